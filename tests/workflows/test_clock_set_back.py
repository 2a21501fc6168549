"""An engine clock that is set back makes no news old: numbers tell what is newer, and not times."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from temporalio import workflow

from policies.model.change import Outcome, Phase
from policies.model.command import CommandKind
from policies.notices.entries import UNWATCHED
from tests.fakes.control import BLIND, CRASHING, HEALTHY, PASSED, UNDECIDED, UNHEALTHY
from tests.patience import until
from tests.workflows.engine import Engine
from tests.workflows.world import World, fleet_of, in_phase, lengthen, result_of, say, status_of, working
from workflows import steps

HOUR, SOON = timedelta(hours=1), 60


class Clock:
    """The engine's clock as the SDK shows it.

    Within a run its time stands still from when it was set back; a run that begins later has the new time.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._real, self._since = workflow.now, datetime.max.replace(tzinfo=UTC)
        monkeypatch.setattr(workflow, "now", self._now)

    def set_back(self) -> None:
        self._since = datetime.now(UTC)

    def _now(self) -> datetime:
        at = self._real()
        return at - HOUR if workflow.info().start_time >= self._since else min(at, self._since)


async def run_of(world: World, name: str) -> str:
    return (await world.client.get_workflow_handle(name).describe()).run_id


async def is_cut(world: World, name: str, run: str) -> None:
    """Return once the workflow goes on in another run than that."""

    async def is_another() -> bool:
        return await run_of(world, name) != run

    await until(is_another, SOON)


def short(monkeypatch: pytest.MonkeyPatch, world: World) -> World:
    monkeypatch.setattr(steps, "SHORT_HISTORY", 40)
    world.judge.pace = 0.3
    world.judge.says(UNDECIDED)
    return world


async def test_harm_that_is_found_after_the_clock_was_set_back_takes_the_release_back(
    server: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was written down, and nobody acted on it until the clock had caught up."""
    clock = Clock(monkeypatch)
    world = short(
        monkeypatch, World.made(await server.client(), fleet_of("edge", lease=timedelta(seconds=15)))
    )
    async with working(world):
        rollout = await world.start(("gw-1",), ("gw-2",))
        await in_phase(rollout, Phase.OBSERVING)
        watch = f"{rollout.id}/{world.newest}/wave/001/watch"
        clock.set_back()
        await is_cut(world, watch, await run_of(world, watch))
        world.judge.says(UNHEALTHY)
        result = await asyncio.wait_for(result_of(rollout), SOON)
    assert (result.outcome, result.reason) == (Outcome.ROLLED_BACK, UNHEALTHY.reason)
    assert world.serving()["gw-1"] == "1.1.6"


@pytest.mark.sweep
async def test_harm_in_waves_that_have_passed_counts_after_the_clock_was_set_back(
    server: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    world = short(monkeypatch, World.made(await server.client(), fleet_of("edge")))
    world.judge.says(HEALTHY, wave=1)
    world.judge.says(UNDECIDED, wave=2)
    world.judge.says(UNDECIDED, wave=PASSED)
    async with working(world):
        rollout = await world.start(("gw-1",), ("gw-2",))
        await in_phase(rollout, Phase.OBSERVING, wave=2)
        watch = f"{rollout.id}/{world.newest}/passed/001/watch"
        clock.set_back()
        await is_cut(world, watch, await run_of(world, watch))
        world.judge.says(CRASHING, wave=PASSED)
        result = await asyncio.wait_for(result_of(rollout), SOON)
    assert result.outcome is Outcome.ROLLED_BACK
    assert world.serving()["gw-1"] == "1.1.6"


@pytest.mark.sweep
async def test_votes_are_counted_after_the_clock_was_set_back(
    server: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    world = short(monkeypatch, World.made(await server.client(), fleet_of("edge")))
    world.judge.says(BLIND)
    async with working(world):
        rollout = await world.start(("gw-1", "gw-2"))
        await in_phase(rollout, Phase.HELD)
        watch = world.client.get_workflow_handle(f"{rollout.id}/{world.newest}/wave/001/watch")
        run = await run_of(world, watch.id)
        clock.set_back()
        await lengthen(watch, "leave_to", None)
        await is_cut(world, watch.id, run)
        for person in ("ben", "cleo"):
            await say(rollout, CommandKind.PROMOTE, person)
        result = await asyncio.wait_for(result_of(rollout), SOON)
    assert result.outcome is Outcome.PROMOTED


@pytest.mark.sweep
@pytest.mark.parametrize("passed", [0, 1], ids=["the wave under way", "waves that have passed"])
async def test_a_watch_that_is_silent_is_noticed_after_the_clock_was_set_back(
    server: Engine, monkeypatch: pytest.MonkeyPatch, passed: int
) -> None:
    """The time of whoever listens stands still for as long as the clock was set back."""
    monkeypatch.setattr(steps, "UNREAD_FOR", timedelta(seconds=4))
    clock = Clock(monkeypatch)
    world = World.made(await server.client(), fleet_of("edge"))
    world.judge.says(HEALTHY if passed else UNDECIDED)
    world.judge.says(UNDECIDED, wave=2)
    async with working(world):
        rollout = await world.start(("gw-1",), ("gw-2",))
        await in_phase(rollout, Phase.OBSERVING, wave=passed + 1)
        clock.set_back()
        await asyncio.sleep(10)
        assert (await status_of(rollout)).phase is Phase.OBSERVING  # watches report as often as before
        world.judge.hangs = True
        if passed:
            await until(lambda: UNWATCHED in [one for one, _, _ in world.book.events.values()], SOON)
        else:
            await in_phase(rollout, Phase.HELD)
            assert "has not reported since" in ((await status_of(rollout)).why or "")
