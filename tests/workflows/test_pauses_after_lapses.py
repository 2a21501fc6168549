"""A gateway whose lease lapses again and again waits on known-good, and makes no history long (R7)."""

from datetime import timedelta

import pytest

from policies.model.change import Outcome
from policies.model.command import CommandKind
from policies.planning.cohorts import PAUSED
from tests.fakes.control import HEALTHY
from tests.fakes.gateway import FakeGateway
from tests.patience import until
from tests.workflows.engine import Engine
from tests.workflows.recorded import soon
from tests.workflows.test_lapsed_leases import on_trial_in
from tests.workflows.test_set_aside_by_metrics import NAMES_GW_1, OWN
from tests.workflows.world import Running, World, began_with, fleet_of, result_of, say, status_of, working
from workflows import steps
from workflows.batch import BatchOrder
from workflows.wave import report_after

FOREVER = timedelta(minutes=30)


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first lapse has its trial pause already, for longer than any test."""
    monkeypatch.setattr(steps, "LAPSES_AT_ONCE", 0)
    monkeypatch.setattr(steps, "NEXT_TRIAL", FOREVER)


async def paused(world: World) -> tuple[FakeGateway, Running]:
    """Have the lease of the canary lapse, as by `nft flush ruleset`; return once its trial is paused."""
    canary, rollout = await on_trial_in(world)
    canary.trial = None

    async def is_paused() -> bool:
        return [one.state for one in (await status_of(rollout)).gateways if one.gateway == "gw-1"] == [PAUSED]

    await until(is_paused)
    return canary, rollout


def batch_of(world: World, rollout: Running) -> str:
    return f"{rollout.id}/{world.newest}/wave/001/0001"


async def reports_to(world: World, workflow: str) -> int:
    """Return how many reports it has got."""
    events = world.client.get_workflow_handle(workflow).fetch_history_events()
    signals = [event.workflow_execution_signaled_event_attributes.signal_name async for event in events]
    return signals.count("report")


async def test_a_trial_whose_lease_lapses_again_and_again_pauses_up_to_half_an_hour(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()
    minutes = [steps.pause_after_lapses(lapses) / timedelta(minutes=1) for lapses in range(1, 10)]
    assert minutes == [0, 0, 1, 2, 4, 8, 16, 30, 30]


@pytest.mark.parametrize("changing", [1, 50, 10_000])
async def test_a_wave_reports_mere_progress_at_most_1100_times_in_its_first_five_hours(changing: int) -> None:
    """Each report adds fifteen events to the history of its change, which the engine ends at 51,200."""
    left, told = timedelta(hours=5), 0
    while left > timedelta(0):
        left -= max(report_after(changing, told), timedelta(milliseconds=500))
        told += 1
    assert told <= 1_100
    assert report_after(changing, 10_000) >= timedelta(minutes=30)


@pytest.mark.sweep
async def test_a_gateway_whose_trial_is_paused_is_on_known_good_and_its_row_says_why(world: World) -> None:
    canary, rollout = await paused(world)
    assert canary.target == "a"
    await until(lambda: bool(world.book.gateways_of(world.newest, PAUSED)))
    [row] = world.book.gateways_of(world.newest, PAUSED)
    assert row.sentence.startswith(
        "its lease has lapsed once in this wave while its instance answered (slot b of gw-1 is not on trial "
        "any more); its trial begins again after "
    )
    status = await status_of(rollout)
    assert f"gw-1 is on known-good for now: {row.sentence}" in [one.sentence for one in status.events]
    assert status.aside == {}


@pytest.mark.sweep
async def test_the_end_of_a_wave_does_not_wait_for_a_pause_and_keeps_its_gateway(world: World) -> None:
    canary, rollout = await paused(world)
    world.judge.says(HEALTHY)
    result = await soon(result_of(rollout))
    assert (result.outcome, result.aside, canary.serving) == (Outcome.PROMOTED, {}, "b")


@pytest.mark.sweep
async def test_a_paused_trial_begins_again_when_its_pause_is_over(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "NEXT_TRIAL", timedelta(seconds=1))
    canary, rollout = await paused(world)
    await until(lambda: canary.target == "b")
    world.judge.says(HEALTHY)
    assert (await soon(result_of(rollout))).outcome is Outcome.PROMOTED
    assert canary.effects.count("start b") == 1


@pytest.mark.sweep
async def test_a_gateway_that_metrics_name_while_its_trial_is_paused_is_left_out_at_once(
    world: World,
) -> None:
    _, rollout = await paused(world)
    world.judge.says(NAMES_GW_1)
    result = await soon(result_of(rollout))
    assert result.outcome is Outcome.ROLLED_BACK
    assert OWN in result.reason


@pytest.mark.sweep
async def test_an_instance_that_ends_while_its_trial_is_paused_is_a_failure_of_its_gateway(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "NEXT_TRIAL", timedelta(seconds=1))
    canary, rollout = await on_trial_in(world)
    canary.trial = None
    await until(lambda: bool(world.book.gateways_of(world.newest, PAUSED)))
    canary.crash("b")
    assert (await soon(result_of(rollout))).outcome is Outcome.ROLLED_BACK


@pytest.mark.sweep
async def test_a_rollback_does_not_wait_for_a_pause(world: World) -> None:
    canary, rollout = await paused(world)
    await say(rollout, CommandKind.HOLD)
    await say(rollout, CommandKind.ROLL_BACK)
    assert (await soon(result_of(rollout))).outcome is Outcome.ROLLED_BACK
    assert canary.target == "a"


@pytest.mark.sweep
async def test_a_history_is_cut_while_a_trial_is_paused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "SHORT_HISTORY", 1)
    _, rollout = await paused(world)

    async def order() -> BatchOrder:
        return (await began_with(world.client, batch_of(world, rollout), BatchOrder))[0]

    async def is_cut() -> bool:
        return list((await order()).paused) == ["gw-1"]

    await until(is_cut)
    found = await order()
    assert (found.lapsed, found.on_trial) == ({"gw-1": 1}, {})
    world.judge.says(HEALTHY)
    assert (await soon(result_of(rollout))).outcome is Outcome.PROMOTED


@pytest.mark.sweep
async def test_lapses_after_a_pause_are_reported_as_mere_progress(
    server: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each lapse was reported at once: what waits for the next report makes no history of its wave long."""
    monkeypatch.setattr(steps, "NEXT_TRIAL", timedelta(seconds=0.1))
    monkeypatch.setattr("workflows.wave.BETWEEN_REPORTS", timedelta(minutes=5))
    lease = timedelta(seconds=6)  # renewed every two seconds; others that lapse only add to what is meant
    async with working(World.made(await server.client(), fleet_of("edge", lease=lease))) as world:
        canary, rollout = await on_trial_in(world)
        wave = f"{rollout.id}/{world.newest}/wave/001"
        before = await reports_to(world, wave)
        for _ in range(4):
            canary.trial = None
            await until(lambda: canary.target == "b")
        assert await reports_to(world, wave) == before
