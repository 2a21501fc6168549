"""A return of single gateways that is cut short reports what is not back, and closes nothing."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from policies.model.change import GatewayResult, Outcome
from policies.model.errors import Unavailable
from policies.model.plan_part import PartKey
from policies.planning import parts
from policies.returns import MOST_RELAPSES
from tests.fakes.gateway import FakeGateway
from tests.patience import until
from tests.workflows.engine import Engine
from tests.workflows.recorded import blocked
from tests.workflows.test_relapses import began, let_pass
from tests.workflows.world import NEW, World, fleet_of, reconcile, result_of, working
from workflows.restore import Restore, restores_of

LEFT = "left to reconcile"


def died_on(world: World, *names: str) -> str:
    """Have an upgrade of these gateways die after they took its release; return its name."""
    dead, at = world.left_open(names), datetime.now(UTC)
    moved = [
        GatewayResult(gateway=name, wave=1, state="kept", slot="b", started=at.timestamp(), at=at)
        for name in names
    ]
    world.book.record_gateways(dead, moved)
    for name in names:
        world.gateways[name].serve(NEW, "b")
    return dead


async def test_a_return_that_is_left_names_the_gateways_whose_turn_had_not_come(
    server: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "most_together", lambda members: 2)
    async with working(World.made(await server.client(), fleet_of("edge", size=6))) as world:
        for fake in world.gateways.values():
            fake.serve(NEW, "b")
        keys = tuple(PartKey(wave=0, number=number) for number in (1, 2, 3))
        async with blocked(world.gateways["gw-1"], "restore") as asked:
            root = await world.restore(keys=keys, at_once=1, within=timedelta(seconds=30))
            await asked.wait()
            for one in (root.id, restores_of(root.id, keys)[0]):
                await world.client.get_workflow_handle(one).signal(Restore.leave_all, LEFT)
            result = await result_of(root)
    assert result.given_up.pop("gw-1") == LEFT
    assert result.given_up == dict.fromkeys(
        ("gw-3", "gw-4", "gw-5", "gw-6"), f"{LEFT}: its turn had not come"
    )
    assert (result.back, result.more_given_up) == (1, 0)


async def test_a_return_that_is_left_counts_the_gateways_that_it_does_not_name(
    server: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("activities.plans.MOST_MEMBERS", 2)
    monkeypatch.setattr(parts, "most_together", lambda members: 1)
    async with working(World.made(await server.client(), fleet_of("edge", size=5))) as world:
        keys = tuple(PartKey(wave=0, number=number) for number in range(1, 6))
        async with blocked(world.gateways["gw-1"], "restore") as asked:
            root = await world.restore(keys=keys, at_once=1, within=timedelta(seconds=30))
            await asked.wait()
            for one in (root.id, restores_of(root.id, keys)[0]):
                await world.client.get_workflow_handle(one).signal(Restore.leave_all, LEFT)
            result = await result_of(root)
    assert ([*result.given_up], result.more_given_up) == (["gw-1", "gw-2", "gw-3"], 2)


@pytest.mark.sweep
async def test_an_upgrade_that_died_ends_only_once_reconcile_has_brought_back_every_gateway_of_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workflows.change.ALONE_WITHIN", timedelta(seconds=1))
    dead = died_on(world, "gw-1", "gw-2")
    world.gateways["gw-2"].fail("restore", Unavailable("gw-2 does not answer"), times=10_000)
    assert (await reconcile(world)).sentence == "bringing back: gw-1, gw-2"
    await until(lambda: world.book.open_changes("edge") != (dead,))
    await until(lambda: world.newest not in world.book.open_changes("edge"))
    assert world.book.open_changes("edge") == (dead,)
    assert (world.serving()["gw-1"], world.serving()["gw-2"]) == ("1.1.6", "1.3.0")
    world.gateways["gw-2"].recover("restore")
    let_pass(world, timedelta(hours=2))
    assert (await reconcile(world)).sentence == "bringing back: gw-2"
    await until(lambda: world.book.open_changes("edge") == ())
    assert world.serving()["gw-2"] == "1.1.6"
    assert world.book.change(dead).outcome is Outcome.ROLLED_BACK


def start_slowly(fake: FakeGateway, seconds: float) -> None:
    """Have known-good be down on the gateway, and take longer to start than its return lasts."""
    original = fake.start

    async def slow(*arguments: Any, **more: Any) -> Any:
        await asyncio.sleep(seconds)
        return await original(*arguments, **more)

    fake.start = slow  # type: ignore[method-assign]
    fake.serve(NEW, "b")
    fake.crash("a")


@pytest.fixture
def short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Returns of single gateways try for a second, and end after three."""
    monkeypatch.setattr("workflows.change.ALONE_WITHIN", timedelta(seconds=1))
    monkeypatch.setattr("workflows.change.ALONE_IN_ALL", timedelta(seconds=3))


@pytest.mark.sweep
@pytest.mark.usefixtures("short_turns")
async def test_a_gateway_whose_known_good_starts_slowly_comes_back_after_the_lock_is_free(
    world: World,
) -> None:
    start_slowly(world.gateways["gw-3"], 6)
    assert (await reconcile(world)).sentence == "bringing back: gw-3"
    await until(lambda: world.newest != "edge-1")
    await until(lambda: world.book.open_changes("edge") == ())
    assert world.serving()["gw-3"] == "1.3.0"
    assert (await reconcile(world)).sentence.startswith("brought back later: gw-3 ")
    await until(lambda: world.serving()["gw-3"] == "1.1.6", 30)
    await until(lambda: world.book.returns("edge")["gw-3"].came_back)
    assert len(began(world)) == 1


@pytest.mark.sweep
@pytest.mark.usefixtures("short_turns")
async def test_returns_that_are_cut_short_are_no_relapses_of_the_gateway(world: World) -> None:
    start_slowly(world.gateways["gw-3"], 600)
    for _ in range(MOST_RELAPSES + 1):
        before = world.newest
        assert (await reconcile(world)).sentence == "bringing back: gw-3"
        await until(lambda: world.newest != before)  # noqa: B023 - it is waited for here
        await until(lambda: world.book.open_changes("edge") == ())
        let_pass(world, timedelta(hours=1))
    returns = world.book.returns("edge")["gw-3"]
    assert (returns.tries, returns.relapses) == (MOST_RELAPSES + 1, 1)
    assert world.book.quarantined("edge") == ()


@pytest.mark.sweep
@pytest.mark.usefixtures("short_turns")
async def test_only_gateways_that_had_their_turn_count_as_tried(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workflows.change.PARTS_AT_ONCE", 1)
    monkeypatch.setattr(parts, "most_together", lambda members: 1)
    for fake in world.gateways.values():
        fake.serve(NEW, "b")
    async with blocked(world.gateways["gw-1"], "restore") as asked:
        await reconcile(world)
        await asked.wait()
        await until(lambda: world.book.open_changes("edge") == ())
    tried = {*world.book.returns("edge")}
    assert "gw-1" in tried  # the next part may begin before what begins them is told to leave the others
    assert tried.isdisjoint({"gw-3", "gw-4"})


@pytest.mark.sweep
@pytest.mark.usefixtures("short_turns")
async def test_an_upgrade_that_died_ends_after_its_gateway_whose_known_good_starts_slowly_is_back(
    world: World,
) -> None:
    dead = died_on(world, "gw-3")
    start_slowly(world.gateways["gw-3"], 6)
    assert (await reconcile(world)).sentence == "bringing back: gw-3"
    await until(lambda: len(began(world)) == 1)
    await until(lambda: world.newest not in world.book.open_changes("edge"))
    assert (await reconcile(world)).sentence.startswith("brought back later: gw-3 ")
    assert (len(began(world)), world.book.open_changes("edge")) == (1, (dead,))
    await until(lambda: world.serving()["gw-3"] == "1.1.6", 30)
    await until(lambda: world.book.returns("edge")["gw-3"].came_back)
    await reconcile(world)
    await until(lambda: world.book.open_changes("edge") == ())
    assert world.book.change(dead).outcome is Outcome.ROLLED_BACK


@pytest.mark.sweep
@pytest.mark.usefixtures("short_turns")
async def test_the_return_of_another_gateway_leaves_an_upgrade_open_that_waits_for_a_slow_start(
    world: World,
) -> None:
    dead = died_on(world, "gw-3")
    start_slowly(world.gateways["gw-3"], 600)
    await reconcile(world)
    await until(lambda: len(began(world)) == 1)
    await until(lambda: world.newest not in world.book.open_changes("edge"))
    world.gateways["gw-1"].serve(NEW, "b")
    assert (await reconcile(world)).sentence == "bringing back: gw-1"
    await until(lambda: len(began(world)) == 2)
    await until(lambda: world.newest not in world.book.open_changes("edge"))
    assert world.serving()["gw-1"] == "1.1.6"
    assert world.book.open_changes("edge") == (dead,)
