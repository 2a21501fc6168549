"""Forward: waves pass one after the other, and what passed becomes known-good."""

from datetime import timedelta
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from temporalio.client import WorkflowExecutionStatus, WorkflowHandle

from policies.model.change import ChangeResult, Outcome, Phase
from policies.model.command import CommandKind
from policies.model.verdict import Action, Decision, GateReading, GateVerdict
from tests.fakes.control import AT_CAP, BLIND, CRASHING, HEALTHY, TORN, UNDECIDED, UNHEALTHY
from tests.patience import until
from tests.workflows.engine import Engine
from tests.workflows.recorded import blocked
from tests.workflows.world import (
    NEW,
    Running,
    World,
    fleet_of,
    in_phase,
    lengthen_change,
    result_of,
    say,
    status_of,
    steps_of,
    working,
)
from workflows.survey import Survey, SurveyOrder

MARGIN = timedelta(milliseconds=100)
"""How much earlier than asked the engine's timers may fire."""


async def test_a_healthy_canary_brings_the_whole_fleet_to_the_release(world: World) -> None:
    result = await world.upgrade(("gw-1",), ("gw-2", "gw-3", "gw-4"))
    assert result.outcome is Outcome.PROMOTED, result.reason
    assert set(world.serving().values()) == {"1.3.0"}
    assert world.book.known_good(world.fleet.name) == dict.fromkeys(world.gateways, NEW)


@pytest.mark.sweep
async def test_the_second_wave_waits_until_the_first_has_passed(world: World) -> None:
    world.judge.says(UNDECIDED)
    rollout = await world.start(("gw-1",), ("gw-2",))
    await in_phase(rollout, Phase.OBSERVING)
    await until(lambda: len(world.judge.orders) > 3)
    assert world.gateways["gw-2"].effects == []
    world.judge.says(HEALTHY)
    assert (await result_of(rollout)).outcome is Outcome.PROMOTED
    assert world.serving()["gw-2"] == "1.3.0"


@pytest.mark.sweep
async def test_each_gateway_is_changed_once_and_in_order(world: World) -> None:
    await world.upgrade(("gw-1",))
    expected = ["stage 1.3.0", "start b", "steer b", "keep b"]
    assert world.gateways["gw-1"].effects[:4] == expected


@pytest.mark.sweep
async def test_a_gateway_outside_the_plan_is_never_touched(world: World) -> None:
    await world.upgrade(("gw-1",), ("gw-2",))
    assert world.gateways["gw-4"].effects == []
    assert world.gateways["gw-4"].owner == (0, "")


@pytest.mark.sweep
async def test_old_instances_stop_once_they_are_empty_and_not_before(world: World) -> None:
    old = world.gateways["gw-1"]
    assert old.login("192.0.2.1") == "a"
    await world.upgrade(("gw-1",))
    await until(lambda: "gw-1" in world.gateways and old.serving == "b")
    assert "stop a" not in old.effects
    old.logout("192.0.2.1")
    await until(lambda: "stop a" in old.effects)
    assert old.lost == []


async def test_metrics_that_are_unavailable_hold_and_a_recovery_goes_on(world: World) -> None:
    world.judge.says(BLIND)
    rollout = await world.start(("gw-1",))
    await in_phase(rollout, Phase.HELD)
    assert (await status_of(rollout)).why == "no sample for 60 s"
    world.judge.says(HEALTHY)
    assert (await result_of(rollout)).outcome is Outcome.PROMOTED


@pytest.mark.sweep
async def test_conflicting_gates_neither_promote_nor_roll_back(world: World) -> None:
    world.judge.says(TORN)
    rollout = await world.start(("gw-1",))
    await until(lambda: len(world.judge.orders) > 5)
    assert world.serving()["gw-1"] == "1.3.0"
    world.judge.says(HEALTHY)
    assert (await result_of(rollout)).outcome is Outcome.PROMOTED


@pytest.mark.sweep
async def test_at_the_cap_two_different_people_pass_the_wave(world: World) -> None:
    world.judge.says(AT_CAP)
    rollout = await world.start(("gw-1",))
    await in_phase(rollout, Phase.HELD)
    await say(rollout, CommandKind.PROMOTE, "ana")
    await say(rollout, CommandKind.PROMOTE, "ben")
    result = await result_of(rollout)
    assert result.outcome is Outcome.PROMOTED
    assert world.serving()["gw-1"] == "1.3.0"


@pytest.mark.sweep
async def test_one_person_alone_and_the_same_person_twice_pass_nothing(world: World) -> None:
    world.judge.says(AT_CAP)
    rollout = await world.start(("gw-1",))
    await in_phase(rollout, Phase.HELD)
    await say(rollout, CommandKind.PROMOTE, "ana")
    await say(rollout, CommandKind.PROMOTE, "ana")
    looked = len(world.judge.orders)
    # The orders may have caused all the looks they cause by now, and one may be under way: time makes more.
    await until(lambda: len(world.judge.orders) > looked + 1)
    assert (await status_of(rollout)).phase is Phase.HELD
    await say(rollout, CommandKind.ROLL_BACK, "ana")
    assert (await result_of(rollout)).outcome is Outcome.ROLLED_BACK


@pytest.mark.sweep
async def test_leases_are_confirmed_at_every_third_of_their_length(server: Engine) -> None:
    lease = timedelta(seconds=9)
    async with working(World.made(await server.client(), fleet_of("edge", lease=lease))) as world:
        world.judge.says(UNDECIDED)
        rollout = await world.start(("gw-1",))
        await in_phase(rollout, Phase.OBSERVING)
        batch = f"change/{world.fleet.name}/{world.newest}/wave/001/0001"

        async def confirmed_three_times() -> bool:
            return len(await steps_of(world.client, batch, "start_trial")) > 3

        await until(confirmed_three_times)
        times = await steps_of(world.client, batch, "start_trial")
        gaps = [timedelta(seconds=later - earlier) for earlier, later in pairwise(times[1:])]
        # A busy machine asks late; what the promise is for is that the lease never lapses.
        assert all(lease / 6 - MARGIN < gap < lease for gap in gaps), gaps
        world.judge.says(HEALTHY)
        assert (await result_of(rollout)).outcome is Outcome.PROMOTED


LEAK = "descriptor-leak: grows by 0.03 a minute on the canary, 0.02 allowed"
COMPLAINTS = "complaints: 40 distinct users of 200 cannot log in"


def held_for(reason: str) -> Decision:
    reading = GateReading(gate=reason.partition(":")[0], verdict=GateVerdict.UNHEALTHY, reason=reason)
    return Decision(action=Action.HOLD, verdict=GateVerdict.UNHEALTHY, reason=reason, readings=(reading,))


@pytest.mark.sweep
async def test_two_votes_promote_only_against_the_reasons_that_both_were_shown(world: World) -> None:
    """B4: each operator votes on what is shown, and what is shown is what the judge says now."""
    world.judge.says(held_for(LEAK))
    rollout = await world.start(("gw-1",))
    await until(partial(shows, rollout, LEAK))
    await say(rollout, CommandKind.PROMOTE, "ana")
    world.judge.says(held_for(COMPLAINTS))
    await until(partial(shows, rollout, COMPLAINTS))
    await say(rollout, CommandKind.PROMOTE, "ben")
    offers = (await status_of(rollout)).can_do
    assert any("ben did" in offer.note and "ana" not in offer.note for offer in offers)
    await say(rollout, CommandKind.PROMOTE, "ana")
    result = await result_of(rollout)
    assert result.outcome is Outcome.PROMOTED
    assert f"by ana and ben against: {COMPLAINTS}" in result.reason


@pytest.mark.sweep
@pytest.mark.parametrize("automation", ["ask", "observe"])
async def test_a_hard_sign_goes_back_also_after_harm_that_operators_decide_about(
    server: Engine, automation: str
) -> None:
    """B5: the watch goes on after the first statistical verdict."""
    fleet = fleet_of("edge", lease=timedelta(seconds=15), automation=automation)
    async with working(World.made(await server.client(), fleet)) as world:
        world.judge.says(UNHEALTHY)
        rollout = await world.start(("gw-1",), ("gw-2",))
        await until(partial(shows, rollout, UNHEALTHY.reason))
        assert world.serving()["gw-1"] == "1.3.0"
        world.judge.says(CRASHING)
        result = await result_of(rollout)
        assert (result.outcome, result.reason) == (Outcome.ROLLED_BACK, CRASHING.reason)
        assert world.serving()["gw-1"] == "1.1.6"


async def shows(rollout: Running, reason: str) -> bool:
    """Whether people are shown that reason."""
    status = await status_of(rollout)
    return status.decision is not None and status.decision.reason == reason


@pytest.mark.sweep
async def test_votes_decide_only_once_the_metrics_were_read_after_the_last_of_them(world: World) -> None:
    """B4: the second operator votes in the moment in which another gate begins to hold the wave."""
    world.judge.says(held_for(LEAK))
    rollout = await world.start(("gw-1",))
    await until(partial(shows, rollout, LEAK))
    await say(rollout, CommandKind.PROMOTE, "ana")
    world.judge.says(held_for(COMPLAINTS))
    await say(rollout, CommandKind.PROMOTE, "ben")
    await until(partial(shows, rollout, COMPLAINTS))
    assert (await status_of(rollout)).outcome is None
    for person in ("ana", "ben"):
        await say(rollout, CommandKind.PROMOTE, person)
    result = await result_of(rollout)
    assert f"by ana and ben against: {COMPLAINTS}" in result.reason


async def still_ends(world: World, workflow_id: str) -> WorkflowHandle[Any, Any]:
    """Have a workflow of that id run, as of a child that was cancelled and has not ended yet."""
    waits = SurveyOrder(fleet=world.fleet.name)
    return await world.client.start_workflow(
        Survey.run,
        waits,
        id=workflow_id,
        task_queue="nobody takes it",
        execution_timeout=timedelta(minutes=2),
    )


async def look_of(world: World, rollout: Running) -> WorkflowHandle[Any, Any]:
    """Return the look before the promotion that the change has asked for."""
    started = [
        event.start_child_workflow_execution_initiated_event_attributes
        async for event in rollout.fetch_history_events()
    ]
    [look] = [child.workflow_id for child in started if child.workflow_type.name == "LastLook"]
    return world.client.get_workflow_handle(look)


async def has_ended(running: WorkflowHandle[Any, Any]) -> bool:
    return (await running.describe()).status is not WorkflowExecutionStatus.RUNNING


@pytest.mark.sweep
async def test_a_look_of_before_that_is_still_ending_does_not_end_the_change_that_asked_for_it(
    world: World,
) -> None:
    """A change that was held before its promotion failed as its history was cut, and nothing went back."""
    world.judge.says(UNDECIDED, wave=2)
    rollout = await world.start(("gw-1",), ("gw-2",))
    await in_phase(rollout, Phase.OBSERVING, wave=2)
    async with blocked(world.gateways["gw-1"], "observe", range(1, 1000)) as taken:
        world.judge.says(HEALTHY, wave=2)
        await taken.wait()
        await say(rollout, CommandKind.HOLD)
        look = await look_of(world, rollout)
        await until(partial(has_ended, look))
    await in_phase(rollout, Phase.HELD, wave=2)
    newest: WorkflowHandle[Any, ChangeResult] = world.client.get_workflow_handle(
        rollout.id, result_type=ChangeResult
    )
    before = (await newest.describe()).run_id
    ending = await still_ends(world, look.id)
    await lengthen_change(newest)

    async def is_cut() -> bool:
        return (await newest.describe()).run_id != before

    await until(is_cut)
    await say(newest, CommandKind.RESUME)
    assert (await result_of(newest)).outcome is Outcome.PROMOTED
    await ending.terminate()


@pytest.mark.sweep
async def test_a_change_whose_next_wave_cannot_be_started_goes_back(world: World) -> None:
    """It failed, and its first wave kept a release that was not promoted."""
    world.judge.says(UNDECIDED)
    rollout = await world.start(("gw-1",), ("gw-2",))
    await in_phase(rollout, Phase.OBSERVING)
    ending = await still_ends(world, f"{rollout.id}/{world.newest}/wave/002")
    world.judge.says(HEALTHY)
    assert (await result_of(rollout)).outcome is Outcome.ROLLED_BACK
    assert set(world.serving().values()) == {"1.1.6"}
    await ending.terminate()
