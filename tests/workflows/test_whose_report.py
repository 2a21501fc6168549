"""What children report counts for their own change only: all changes of a fleet have one workflow id (R3)."""

import threading
from datetime import UTC, datetime

import pytest

from policies.model.change import Outcome, Phase
from policies.model.plan_part import PlanHeader
from policies.model.report import WatchReport, WaveReport
from tests.fakes.control import CLOSED, CRASHING, HEALTHY, OPEN, UNDECIDED
from tests.patience import until
from tests.workflows.world import Running, World, in_phase, lengthen_change, result_of, run_of, status_of
from workflows.identities import bake_of

EARLIER = "edge-1"


async def waiting_for_its_window(world: World) -> Running:
    world.windows.answer = CLOSED
    order = world.order(("gw-1", "gw-2"), ("gw-3", "gw-4"))
    rollout = await world.run(order.model_copy(update={"asks_window": True}))
    await in_phase(rollout, Phase.WAITING, wave=0)
    return rollout


@pytest.mark.sweep
async def test_the_window_of_an_earlier_change_opens_and_closes_nothing(world: World) -> None:
    rollout = await waiting_for_its_window(world)
    await rollout.signal("window", args=[EARLIER, 1, OPEN])
    asked = len(world.windows.asked)
    await until(lambda: len(world.windows.asked) > asked + 3)
    status = await status_of(rollout)
    assert (status.phase, status.counts) == (Phase.WAITING, {})
    world.windows.answer = OPEN
    assert (await result_of(rollout)).outcome is Outcome.PROMOTED


async def test_the_last_words_of_an_earlier_wave_are_not_shown_of_the_next_change(world: World) -> None:
    rollout = await waiting_for_its_window(world)
    before = await status_of(rollout)
    last = WaveReport(
        change=EARLIER,
        at=datetime.now(UTC),
        wave=1,
        phase=Phase.OBSERVING,
        counts={"on trial": 2},
        aside={"gw-1": "its daemon ended"},
        decision=CRASHING,
    )
    await rollout.signal("report", last)
    assert await status_of(rollout) == before


@pytest.mark.sweep
async def test_harm_that_the_watch_of_an_earlier_change_found_takes_no_passed_wave_back(world: World) -> None:
    world.judge.says(UNDECIDED, wave=2)
    rollout = await world.start(("gw-1", "gw-2"), ("gw-3", "gw-4"))
    await in_phase(rollout, Phase.OBSERVING, wave=2)
    await until(lambda: bool(world.judge.passed))
    run = (await world.client.get_workflow_handle(rollout.id).describe()).run_id
    await rollout.signal("report_watch", harm_of(EARLIER, run))
    looks = len(world.judge.passed)
    await until(lambda: len(world.judge.passed) > looks + 2)
    assert (await status_of(rollout)).phase is Phase.OBSERVING
    await rollout.signal("report_watch", harm_of(world.newest, run))
    assert (await result_of(rollout)).outcome is Outcome.ROLLED_BACK


@pytest.mark.sweep
async def test_harm_that_the_watch_of_an_earlier_promotion_found_takes_no_newer_one_back(
    world: World,
) -> None:
    await world.upgrade(("gw-1", "gw-2"), ("gw-3", "gw-4"))
    await until(lambda: bool(world.judge.bakes))
    bake = world.client.get_workflow_handle(bake_of("edge"))
    run = (await bake.describe()).run_id
    await bake.signal("report_watch", harm_of(EARLIER, run))
    looks = len(world.judge.bakes)
    await until(lambda: len(world.judge.bakes) > looks + 2)
    assert set(world.serving().values()) == {"1.3.0"}
    await bake.signal("report_watch", harm_of(world.newest, run))
    await until(lambda: set(world.serving().values()) == {"1.1.6"})


@pytest.mark.sweep
async def test_a_change_of_which_the_history_is_cut_knows_its_plan_while_the_ledger_is_away(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A window that closed in that moment ended the change, with gateways on trial that nobody watched."""
    away, reads = threading.Event(), world.book.plan_header

    def read(digest: str) -> PlanHeader:
        if away.is_set():
            raise ConnectionError("the ledger is away")
        return reads(digest)

    monkeypatch.setattr(world.book, "plan_header", read)
    world.judge.says(UNDECIDED)
    order = world.order(("gw-1", "gw-2"), ("gw-3", "gw-4"))
    rollout = await world.run(order.model_copy(update={"asks_window": True}))
    await in_phase(rollout, Phase.OBSERVING)
    newest, whole = world.client.get_workflow_handle(rollout.id), (await status_of(rollout)).waves
    await lengthen_change(rollout)
    away.set()
    world.windows.answer = CLOSED
    world.judge.says(HEALTHY)
    await in_phase(newest, Phase.WAITING)
    assert (await newest.describe()).run_id != await run_of(rollout)
    assert (await status_of(newest)).waves == whole == 2
    away.clear()
    world.windows.answer = OPEN
    assert (await result_of(rollout)).outcome is Outcome.PROMOTED


def harm_of(change: str, run: str) -> WatchReport:
    return WatchReport(
        change=change, run=run, at=datetime.now(UTC), beginning=(9,), number=99, decision=CRASHING
    )
