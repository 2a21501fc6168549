"""A rollback of settings that gives way to one of the release is carried out all the same."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from orchestrator.service import changes
from orchestrator.service.changes import ChangeService
from policies.model.change import NOT_ASKED, ChangeRecord, Outcome
from policies.model.command import Command, CommandKind
from policies.model.errors import Unavailable
from tests.fakes.control import CRASHING
from tests.patience import until
from tests.workflows.engine import Engine
from tests.workflows.recorded import SOON, Recorded, blocked
from tests.workflows.test_settings import configured, with_settings
from tests.workflows.world import NEW, OLD, World, fleet_of, working


def have_them(recorded: Recorded) -> list[str]:
    return sorted(name for name, fake in recorded.world.gateways.items() if fake.settings)


def told(recorded: Recorded) -> str:
    return " | ".join(f"{one.name} {one.outcome}: {one.sentence}" for one in recorded.ledger.history("edge"))


async def promoted_and_configured(recorded: Recorded) -> None:
    assert (await recorded.upgrade()).outcome is Outcome.PROMOTED
    await recorded.everybody_on(NEW)
    await configured(recorded, with_settings(recorded))
    await recorded.service.end_of("edge")


async def interrupted(recorded: Recorded, by: Callable[[], Awaitable[None]]) -> ChangeRecord:
    """Order a rollback of settings, end it while gw-1 does not answer, and return how it ended."""
    world = recorded.world
    async with blocked(world.gateways["gw-1"], "observe") as taken:
        await recorded.service.roll_back(world.fleet, "ana", "no name is found", settings=True)
        await taken.wait()
        await until(lambda: have_them(recorded) == ["gw-1"])
        await by()
    return next(one for one in recorded.ledger.history("edge") if one.kind == "configure")


async def reconciled(recorded: Recorded) -> None:
    await recorded.nothing_under_way()
    await recorded.reconcile()
    await recorded.nothing_under_way()


@pytest.mark.sweep
async def test_harm_in_the_bake_does_not_end_the_rollback_of_settings_for_good(recorded: Recorded) -> None:
    world = recorded.world
    await promoted_and_configured(recorded)

    async def harm() -> None:
        world.judge.says(CRASHING, wave=0)
        await until(lambda: len(recorded.ledger.history("edge")) == 5, SOON)

    ended = await interrupted(recorded, harm)
    assert ended.outcome is Outcome.HELD
    assert "harm was found in the release that serves" in ended.sentence
    await until(lambda: set(world.serving().values()) == {"1.1.6"}, SOON)
    await reconciled(recorded)
    assert have_them(recorded) == [], told(recorded)


@pytest.mark.sweep
async def test_a_rollback_of_the_release_does_not_end_that_of_settings_for_good(recorded: Recorded) -> None:
    """Release and settings are bad: an operator orders both rollbacks, one after the other."""
    said = list[str]()
    await promoted_and_configured(recorded)

    async def another() -> None:
        said.append((await recorded.service.roll_back(recorded.world.fleet, "ana", "users call")).sentence)

    await interrupted(recorded, another)
    assert "keep the settings they have until penstock asks them again, after this rollback" in said[0]
    await until(lambda: set(recorded.world.serving().values()) == {"1.1.6"}, SOON)
    await reconciled(recorded)
    assert have_them(recorded) == [], told(recorded)


async def test_a_rollback_of_settings_that_gave_way_counts_each_gateway_that_has_them_no_more(
    recorded: Recorded,
) -> None:
    """It said `0 of 4 gateways`, and that the others were not asked, when three of them had gone back."""
    await configured(recorded, with_settings(recorded))
    await recorded.service.end_of("edge")

    async def another() -> None:
        await recorded.service.roll_back(recorded.world.fleet, "ana", "users call")

    ended = await interrupted(recorded, another)
    assert ended.sentence == (
        "ana: users call; 3 of 4 gateways use what they had before edge-2; "
        "gw-1: it had not answered when this was stopped; penstock asks the others again"
    )


@pytest.mark.sweep
async def test_an_operator_who_aborts_a_rollback_of_settings_has_ended_it(recorded: Recorded) -> None:
    await configured(recorded, with_settings(recorded))
    await recorded.service.end_of("edge")

    async def abort() -> None:
        command = Command(id="1", kind=CommandKind.ABORT, person="ana", reason="the name server is well")
        await recorded.service.command("edge", command)
        await recorded.nothing_under_way()

    ended = await interrupted(recorded, abort)
    assert (ended.outcome, ended.sentence[-len(NOT_ASKED) :]) == (Outcome.ABORTED, NOT_ASKED)
    await reconciled(recorded)
    assert have_them(recorded) == ["gw-1"]


@pytest.mark.sweep
async def test_a_stored_rollback_of_settings_outlives_one_of_the_release(
    server: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a worker the first order was stored, and the second one erased it."""
    monkeypatch.setattr(changes, "ANSWER", timedelta(seconds=2))
    world = World.made(await server.client(), fleet_of("edge", lease=timedelta(seconds=30)), serving=OLD)
    recorded = Recorded(world, ChangeService(world.client, world.book))
    async with working(world):
        await configured(recorded, with_settings(recorded))
        await recorded.service.end_of("edge")
    await recorded.service.roll_back(world.fleet, "ana", "no name is found", settings=True)
    with pytest.raises(Unavailable, match="nothing is taken back yet: repeat the rollback"):
        await recorded.service.roll_back(world.fleet, "ana", "users call")
    async with working(world):
        await reconciled(recorded)
        assert have_them(recorded) == [], told(recorded)


@pytest.mark.sweep
async def test_a_rollback_of_credentials_that_gave_way_says_that_it_has_to_be_ordered_again(
    recorded: Recorded,
) -> None:
    """No host reports whose credentials it has, so penstock cannot go on by itself."""
    service, fleet = recorded.service, recorded.world.fleet
    name = await service.reload(fleet, await service.plan_reload(fleet), "ana", "new certificates")
    await service.end_of("edge")
    async with blocked(recorded.world.gateways["gw-1"], "observe") as taken:
        await service.roll_back(fleet, "ana", "no user gets in", of=name)
        await taken.wait()
        receipt = await service.roll_back(fleet, "ana", "users call")
    assert "order that rollback again after this one" in receipt.sentence
    await recorded.nothing_under_way()
    ended = recorded.ledger.history("edge")[0]
    assert (ended.outcome, ended.cause) == (Outcome.HELD, name)
    assert ended.sentence.endswith("order this rollback again for the others")
