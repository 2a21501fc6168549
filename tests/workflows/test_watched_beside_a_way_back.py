"""What serves is watched while the rollback of a later upgrade waits for a dead host (R3, R7)."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from temporalio import activity

from activities.observation import ObservationActivities, ObservationOrder, ObservationSlice
from activities.watching import WatchActivities, WatchSlice
from orchestrator.service.changes import ChangeService
from policies.model.change import Outcome, Phase
from policies.model.command import CommandKind
from policies.model.errors import Unavailable
from policies.model.verdict import Decision
from tests.fakes.control import CRASHING, HEALTHY, QUIET, UNDECIDED, FakeJudge, _slice
from tests.patience import until
from tests.workflows.engine import Engine
from tests.workflows.world import (
    NEXT,
    Running,
    World,
    fleet_of,
    in_phase,
    reconcile,
    result_of,
    say,
    status_of,
    waiting_for,
    working,
)
from workflows.identities import bake_of

FOR_LONG = 10_000
IN_A_MINUTE = 60.0
"""Seconds."""
NO_LAPSE = timedelta(minutes=5)
"""A lease that outlasts every test, however busy the machine is."""
UPGRADE, ROLLBACK = "edge-3", "edge-4"
"""The upgrade after the one that was promoted, and the rollback that follows once its workflow is gone."""


class WatchedByTheLedger(FakeJudge):
    """A judge whose bakes find their gateways as real ones do; only what metrics say of these is a script."""

    sign: tuple[str, Decision] = ("", QUIET)
    """The address of a gateway, and what is found where that is watched."""

    @activity.defn(name="watch_wave")
    async def watch_wave(self, order: WatchSlice) -> ObservationSlice:
        if order.wave or order.passed or self.book is None:
            return await super().watch_wave(order)
        self.bakes.append(order)
        found = await WatchActivities(self.book, Scripted(self)).watch_wave(order)
        await asyncio.sleep(self.pace)
        return found


class Scripted(ObservationActivities):
    """Metrics with a sign on one gateway, which a bake sees only where it watches that one."""

    def __init__(self, judge: "WatchedByTheLedger") -> None:
        self._judge = judge

    async def observe_slice(self, order: ObservationOrder) -> ObservationSlice:
        target, decision = self._judge.sign
        is_seen = target in order.cohorts.canary
        return _slice(order.state, decision if is_seen else QUIET)


@pytest.fixture
def kept() -> timedelta:
    return timedelta(hours=8)


@pytest.fixture
async def watched(server: Engine, kept: timedelta) -> AsyncIterator[World]:
    made = World.made(await server.client(), fleet_of("edge", lease=NO_LAPSE, kept=kept))
    made.judge = WatchedByTheLedger()
    async with working(made):
        yield made


async def second_wave(world: World) -> Running:
    """Promote to all, and have the next upgrade hang in its second wave; gw-3 does not go back any more."""
    assert (await world.upgrade(("gw-1",), ("gw-2", "gw-3", "gw-4"))).outcome is Outcome.PROMOTED
    await until(lambda: bool(world.judge.bakes))
    world.judge.says(HEALTHY)
    world.judge.says(UNDECIDED, wave=2)
    rollout = await world.start(("gw-1",), ("gw-2", "gw-3"), ("gw-4",), release=NEXT)
    await in_phase(rollout, Phase.OBSERVING, wave=2)
    world.gateways["gw-3"].fail("restore", Unavailable("no power"), times=FOR_LONG)
    return rollout


async def way_back_that_waits(world: World) -> Running:
    """Promote to all, and have the next upgrade go back but for gw-3, which waits for that."""
    rollout = await second_wave(world)
    await say(rollout, CommandKind.ROLL_BACK)
    await waiting_for(rollout, "gw-3")
    assert world.serving() == {"gw-1": "1.3.0", "gw-2": "1.3.0", "gw-3": "1.4.0", "gw-4": "1.3.0"}
    return rollout


async def ended_without_an_end(world: World, monkeypatch: pytest.MonkeyPatch, *, force: bool) -> None:
    """Promote to all, and end the next upgrade by force, or have it die: gw-3 is not back for long."""
    rollout = await second_wave(world)
    if force:
        service = ChangeService(world.client, world.book)
        await service.roll_back(world.fleet, "ana", "1.4.0 hangs", force=True)
    else:
        await rollout.terminate("the engine lost it")
        monkeypatch.setattr("workflows.change.ALONE_WITHIN", timedelta(seconds=1))
        await reconcile(world)

    def is_back_but_for_one() -> bool:
        story = world.book.story(ROLLBACK)
        return story is not None and (story.told.only_waits if force else story.told.result is not None)

    await until(is_back_but_for_one, IN_A_MINUTE)
    assert [world.serving()[name] for name in ("gw-1", "gw-2", "gw-4")] == ["1.3.0"] * 3
    assert world.book.change(UPGRADE).ended is None


def shows(world: World, name: str, decision: Decision) -> None:
    """Have this found where the gateway is watched."""
    assert isinstance(world.judge, WatchedByTheLedger)
    world.judge.sign = (world.fleet.gateway(name).metrics_target, decision)


@pytest.mark.sweep
async def test_harm_in_what_serves_is_found_and_taken_back_while_a_later_way_back_waits_for_a_dead_host(
    watched: World,
) -> None:
    """Every gateway that the upgrade had reached was left to it, and what served crashed unseen."""
    rollout = await way_back_that_waits(watched)
    shows(watched, "gw-2", CRASHING)
    await until(lambda: watched.serving()["gw-2"] == "1.1.6", IN_A_MINUTE)
    assert (await result_of(rollout)).outcome is Outcome.ROLLBACK_INCOMPLETE
    await until(lambda: watched.serving()["gw-1"] == watched.serving()["gw-4"] == "1.1.6", IN_A_MINUTE)


@pytest.mark.sweep
async def test_a_watch_that_is_begun_anew_beside_a_way_back_that_waits_finds_harm(watched: World) -> None:
    await way_back_that_waits(watched)
    await watched.client.get_workflow_handle(bake_of("edge")).terminate("the engine lost it")
    shows(watched, "gw-2", CRASHING)
    await reconcile(watched)
    await until(lambda: watched.serving()["gw-2"] == "1.1.6", IN_A_MINUTE)


@pytest.mark.sweep
@pytest.mark.parametrize("name", ["gw-2", "gw-4"])
async def test_a_gateway_that_fails_alone_is_taken_back_while_a_later_way_back_waits_for_a_dead_host(
    watched: World, name: str
) -> None:
    """It was left to the upgrade, or to a wave of it that never begins."""
    rollout = await way_back_that_waits(watched)
    target = watched.fleet.gateway(name).metrics_target
    shows(watched, name, QUIET.model_copy(update={"failed": (target,)}))
    await until(lambda: watched.serving()[name] == "1.1.6", IN_A_MINUTE)
    assert (await status_of(rollout)).waits_for == ("gw-3",)


@pytest.mark.sweep
@pytest.mark.parametrize("kept", [timedelta(seconds=25)])
async def test_a_bake_with_harm_beside_a_way_back_that_waits_does_not_end_peacefully(watched: World) -> None:
    await way_back_that_waits(watched)
    shows(watched, "gw-2", CRASHING)
    ended = await result_of(watched.client.get_workflow_handle(bake_of("edge")))
    assert ended["peaceful"] is False


@pytest.mark.sweep
@pytest.mark.parametrize("force", [True, False])
async def test_harm_in_what_serves_is_taken_back_while_an_upgrade_without_a_workflow_has_no_end(
    watched: World, monkeypatch: pytest.MonkeyPatch, force: bool
) -> None:
    """Every gateway of it was left to that upgrade until its last one was back, perhaps for days."""
    await ended_without_an_end(watched, monkeypatch, force=force)
    shows(watched, "gw-2", CRASHING)
    await until(lambda: watched.serving()["gw-2"] == "1.1.6", IN_A_MINUTE)
    await until(lambda: watched.serving()["gw-1"] == watched.serving()["gw-4"] == "1.1.6", IN_A_MINUTE)


@pytest.mark.sweep
@pytest.mark.parametrize(("name", "force"), [("gw-4", True), ("gw-2", False), ("gw-4", False)])
async def test_a_gateway_that_fails_alone_is_taken_back_while_an_upgrade_without_a_workflow_has_no_end(
    watched: World, monkeypatch: pytest.MonkeyPatch, name: str, force: bool
) -> None:
    """It was dropped as one of that upgrade's, or left to a wave of it that never begins."""
    await ended_without_an_end(watched, monkeypatch, force=force)
    target = watched.fleet.gateway(name).metrics_target
    shows(watched, name, QUIET.model_copy(update={"failed": (target,)}))
    await until(lambda: watched.serving()[name] == "1.1.6", IN_A_MINUTE)
    others = {"gw-1", "gw-2", "gw-4"} - {name}
    assert [watched.serving()[one] for one in others] == ["1.3.0"] * 2
