"""What a change has moved counts from its first trial on, however seldom or late its parts report."""

import asyncio
import time

import pytest

from orchestrator.service.changes import ChangeService
from policies.model.change import Outcome
from policies.model.command import CommandKind, CommandReceipt
from policies.model.errors import Unavailable
from tests.fakes.control import UNDECIDED
from tests.fakes.gateway import FakeGateway
from tests.patience import until
from tests.workflows.engine import Engine
from tests.workflows.recorded import Recorded, blocked, soon
from tests.workflows.world import NEW, NEXT, World, fleet_of, result_of, say, working

FEW = ("gw-1", "gw-2", "gw-3", "gw-4")
REST = ("gw-2", "gw-3", "gw-4")
LARGE = 52
"""Gateways of a plan of which none is reported by itself."""


def held_up(fake: FakeGateway, seconds: float) -> None:
    """Have its host take so long to fetch a release."""
    stage = fake.stage

    async def slowly(*arguments: object, **more: object) -> object:
        await asyncio.sleep(seconds)
        return await stage(*arguments, **more)  # type: ignore[arg-type]

    fake.stage = slowly  # type: ignore[method-assign,assignment]


async def rolled_back(recorded: Recorded) -> CommandReceipt:
    """Roll back, and repeat that as an operator does whom an error requires to."""
    for _ in range(3):
        try:
            return await recorded.roll_back()
        except Unavailable:
            await asyncio.sleep(2)
    raise AssertionError("the rollback was not taken")


def known_good(recorded: Recorded) -> set[str]:
    """Return the versions that gateways of the first two waves go back to."""
    known = recorded.ledger.known_good("edge")
    return {known[name].version for name in FEW}


@pytest.mark.sweep
async def test_a_rollback_of_a_first_wave_that_has_moved_a_gateway_takes_no_earlier_release_back(
    server: Engine,
) -> None:
    """Mere progress of a large fleet was reported after 5 seconds, 10, 20 and so on."""
    world = World.made(await server.client(), fleet_of("edge", size=LARGE))
    others = tuple(name for name in world.gateways if name not in FEW)
    world.judge.pace = 0.3
    async with working(world):
        recorded = Recorded(world, ChangeService(world.client, world.book))
        assert (await recorded.upgrade(("gw-1",), REST, release=NEW)).outcome is Outcome.PROMOTED
        world.judge.says(UNDECIDED)
        for name in FEW:
            held_up(world.gateways[name], 6 if name == "gw-1" else 50)
        await recorded.start(FEW, others, release=NEXT)
        await until(lambda: world.serving()["gw-1"] == NEXT.version)
        sentence = (await rolled_back(recorded)).sentence
        assert known_good(recorded) == {NEW.version}, sentence
        assert {world.serving()[name] for name in FEW} == {NEW.version}, sentence


@pytest.mark.sweep
async def test_users_on_trial_are_watched_within_seconds_however_seldom_a_large_fleet_reports(
    server: Engine,
) -> None:
    """The watch began with the batch's next report, and later trials were in the ledger with a later one."""
    world = World.made(await server.client(), fleet_of("edge", size=LARGE))
    others = tuple(name for name in world.gateways if name not in FEW)
    world.judge.pace = 0.3
    world.judge.says(UNDECIDED)
    for name, seconds in zip(FEW, (16, 20, 70, 70), strict=True):  # after the reports at 5 and 15 seconds
        held_up(world.gateways[name], seconds)

    def written() -> set[str]:
        """Return which gateways each next slice of the watch takes in."""
        return {one.gateway for one in world.book.gateways_of(world.newest, "on trial")}

    async with working(world):
        await world.start(FEW, others)
        await until(lambda: world.serving()["gw-1"] == NEW.version)
        began = time.monotonic()
        await until(lambda: any(asked.wave == 1 for asked in world.judge.orders), 60)
        assert time.monotonic() - began < 5
        await until(lambda: world.serving()["gw-2"] == NEW.version)
        began = time.monotonic()
        await until(lambda: "gw-2" in written(), 60)
        assert time.monotonic() - began < 5


@pytest.mark.sweep
async def test_a_rollback_takes_no_earlier_release_back_while_the_ledger_is_slow_to_record_the_canary(
    recorded: Recorded,
) -> None:
    """A batch wrote to the ledger before it reported to its wave that users are there."""
    world = recorded.world
    await recorded.upgrade()
    write = world.book.record_gateways

    def slowly(*arguments: object) -> None:
        time.sleep(8)
        write(*arguments)  # type: ignore[arg-type]

    world.judge.says(UNDECIDED)
    world.book.record_gateways = slowly  # type: ignore[method-assign,assignment]
    await recorded.start(("gw-1",), REST, release=NEXT)
    await until(lambda: world.serving()["gw-1"] == NEXT.version)
    sentence = (await rolled_back(recorded)).sentence
    assert known_good(recorded) == {NEW.version}, sentence


@pytest.mark.sweep
async def test_a_rollback_in_a_wave_without_a_trial_takes_no_earlier_release_back_and_says_so(
    recorded: Recorded,
) -> None:
    """A trial may begin while the rollback is on its way: only a wave's result says that none has."""
    world = recorded.world
    await recorded.upgrade()
    async with blocked(world.gateways["gw-1"], "stage") as staging:
        change = await recorded.start(("gw-1",), REST, release=NEXT)
        await soon(staging.wait())
        receipt = await recorded.service.roll_back(world.fleet, "ana", "users call")
    await recorded.nothing_under_way()
    assert not receipt.only_ends
    assert receipt.sentence.endswith(
        f"{change} may have moved sessions, so the release before it stays. To take that back, too, repeat "
        f"the rollback once {change} has ended."
    )
    assert known_good(recorded) == {NEW.version}
    assert (await recorded.roll_back()).accepted
    assert known_good(recorded) == {"1.1.6"}


@pytest.mark.sweep
async def test_an_abort_in_a_wave_without_a_trial_promises_what_is_certain(world: World) -> None:
    async with blocked(world.gateways["gw-1"], "stage") as staging:
        rollout = await world.start(("gw-1",))
        await soon(staging.wait())
        receipt = await say(rollout, CommandKind.ABORT)
        assert (await result_of(rollout)).outcome is Outcome.ABORTED
    assert receipt.sentence == "Aborting. What was started is stopped again; sessions that it moved go back."


@pytest.mark.sweep
async def test_a_rollback_takes_no_earlier_release_back_where_the_engine_lost_a_canary_that_has_no_row(
    recorded: Recorded,
) -> None:
    world = recorded.world
    await recorded.upgrade()
    write = world.book.record_gateways

    def only_begun(change: str, results: object) -> None:
        if all(one.state == "begun" for one in results):  # type: ignore[attr-defined]
            write(change, results)  # type: ignore[arg-type]
        else:
            raise Unavailable("the ledger takes no more writes")

    world.judge.says(UNDECIDED)
    world.book.record_gateways = only_begun  # type: ignore[method-assign]
    change = await recorded.start(("gw-1",), REST, release=NEXT)
    await until(lambda: world.serving()["gw-1"] == NEXT.version)
    await world.client.get_workflow_handle("change/edge").terminate("the engine lost it")
    assert f"{change} has not ended, which is completed first" in (await recorded.roll_back()).sentence
    assert known_good(recorded) == {NEW.version}
    assert recorded.ledger.has_moved(change, "gw-1", NEW.digest)
    assert not recorded.ledger.has_moved(change, "gw-2", NEW.digest)
