"""Waves that have passed are watched while the next one waits, switches or is observed (R3, R7)."""

from datetime import UTC, datetime, timedelta

import pytest
from temporalio.client import WorkflowExecutionStatus

from policies.model.change import PENSTOCK_WATCH, Outcome, Phase, Quarantine
from policies.model.command import CommandKind
from policies.model.verdict import Action, Decision, GateReading, GateVerdict
from policies.notices.entries import NOT_TAKEN_BACK, TAKEN_BACK, UNWATCHED, WATCHED
from tests.fakes.control import (
    AT_CAP,
    BLIND,
    CLOSED,
    CRASHING,
    HEALTHY,
    MEASURED,
    OPEN,
    PASSED,
    QUIET,
    UNDECIDED,
)
from tests.patience import until
from tests.unit.test_harm_asked import COHORTS, alerting
from tests.workflows.recorded import blocked
from tests.workflows.world import (
    NEW,
    OLD,
    Running,
    World,
    in_phase,
    lengthen_change,
    result_of,
    say,
    status_of,
)
from workflows import steps

IN_A_MINUTE = 60.0
"""Seconds: the promise for harm that is found where a wave has passed."""

ONE_FAILED = Decision(
    action=Action.CONTINUE, verdict=GateVerdict.NOT_ENOUGH_DATA, reason="12 logins", failed=("gw-2",)
)


async def second_wave_that(world: World, waits_for: str) -> Running:
    """Start an upgrade of two waves; return it once the first has passed and the second waits for that."""
    world.judge.says(UNDECIDED)
    world.judge.says(UNDECIDED, wave=2)
    order = world.order(("gw-1", "gw-2"), ("gw-3", "gw-4"))
    rollout = await world.run(order.model_copy(update={"asks_window": waits_for == "its window"}))
    await in_phase(rollout, Phase.OBSERVING)
    if waits_for == "its window":
        world.windows.answer = CLOSED
    world.judge.says(HEALTHY)
    if waits_for == "its window":
        await in_phase(rollout, Phase.WAITING)
    if waits_for == "its verdict":
        await in_phase(rollout, Phase.OBSERVING, wave=2)
    await until(lambda: bool(world.judge.passed))
    return rollout


@pytest.mark.parametrize("waits_for", ["its window", "its verdict"])
async def test_harm_where_a_wave_has_passed_goes_back_at_once_whatever_the_next_wave_waits_for(
    world: World, waits_for: str
) -> None:
    rollout = await second_wave_that(world, waits_for)
    world.judge.says(CRASHING, wave=PASSED)
    await until(lambda: set(world.serving().values()) == {"1.1.6"}, IN_A_MINUTE)
    result = await result_of(rollout)
    assert (result.outcome, result.decision) == (Outcome.ROLLED_BACK, CRASHING)
    assert CRASHING.reason in result.reason
    assert {(asked.wave, asked.passed) for asked in world.judge.passed} == {(0, 1)}


@pytest.mark.parametrize("beside", [pytest.param(True, marks=pytest.mark.sweep), False])
async def test_harm_is_looked_for_as_often_while_only_an_operator_can_promote(
    world: World, *, beside: bool
) -> None:
    """R4: a sign that has to last for two looks was found after minutes, on trial and where a wave passed."""
    rollout = await second_wave_that(world, "its verdict")
    world.judge.says(AT_CAP, wave=PASSED if beside else 2)
    looks = world.judge.passed if beside else world.judge.orders
    seen = len(looks)
    await until(lambda: len(looks) > seen + 10, 10 * 10 * steps.HELD_PACE.total_seconds())
    world.judge.says(CRASHING, wave=PASSED if beside else 2)
    assert (await result_of(rollout)).outcome is Outcome.ROLLED_BACK


@pytest.mark.sweep
async def test_harm_where_a_wave_has_passed_goes_back_while_a_hold_keeps_the_next_from_its_beginning(
    world: World,
) -> None:
    rollout = await second_wave_that(world, "its window")
    await say(rollout, CommandKind.HOLD)
    await in_phase(rollout, Phase.HELD)
    world.judge.says(CRASHING, wave=PASSED)
    await until(lambda: set(world.serving().values()) == {"1.1.6"}, IN_A_MINUTE)
    assert (await result_of(rollout)).outcome is Outcome.ROLLED_BACK


@pytest.mark.sweep
async def test_harm_where_a_wave_has_passed_goes_back_while_the_next_is_being_switched(world: World) -> None:
    async with blocked(world.gateways["gw-3"], "stage") as staging:
        rollout = await world.start(("gw-1", "gw-2"), ("gw-3", "gw-4"))
        await staging.wait()
        world.judge.says(CRASHING, wave=PASSED)
        await until(lambda: world.serving()["gw-1"] == "1.1.6", IN_A_MINUTE)
    assert (await result_of(rollout)).outcome is Outcome.ROLLED_BACK
    assert set(world.serving().values()) == {"1.1.6"}


@pytest.mark.sweep
async def test_harm_that_is_measured_where_a_wave_has_passed_holds_the_next_wave_until_operators_decide(
    world: World,
) -> None:
    """The judge rolls back only for hard signs there: the next wave began, and operators read nothing."""
    rollout = await second_wave_that(world, "its window")
    world.judge.says(MEASURED, wave=PASSED)
    await in_phase(rollout, Phase.HELD)
    status = await status_of(rollout)
    assert status.needs_you is not None
    assert MEASURED.reason in status.needs_you
    assert "proven harm" not in status.next
    world.judge.says(HEALTHY, wave=2)
    world.windows.answer = OPEN
    looks = len(world.judge.passed)
    await until(lambda: len(world.judge.passed) > looks + 2)
    assert {world.serving()[name] for name in ("gw-3", "gw-4")} == {"1.1.6"}
    world.judge.says(QUIET, wave=PASSED)
    await say(rollout, CommandKind.RESUME, "ana", hold_of=PENSTOCK_WATCH)
    assert (await result_of(rollout)).outcome is Outcome.PROMOTED


@pytest.mark.sweep
async def test_operators_who_passed_a_wave_against_harm_are_not_asked_about_the_same_harm_again(
    world: World,
) -> None:
    """The wave would have rolled back or held for it, and the watch after it holds: that is no news."""
    logins = GateReading(gate="logins", verdict=GateVerdict.UNHEALTHY, reason=MEASURED.reason)
    tunnels = logins.model_copy(update={"gate": "tunnels", "reason": "8 of 9 tunnels fail"})
    decided = MEASURED.model_copy(update={"readings": (logins,)})
    world.judge.says(decided)
    world.judge.says(decided, wave=PASSED)
    world.judge.says(UNDECIDED, wave=2)
    rollout = await world.start(("gw-1", "gw-2"), ("gw-3", "gw-4"))
    await in_phase(rollout, Phase.HELD)
    await say(rollout, CommandKind.PROMOTE, "ana")
    await say(rollout, CommandKind.PROMOTE, "ben")
    await in_phase(rollout, Phase.OBSERVING, wave=2)
    looks = len(world.judge.passed)
    await until(lambda: len(world.judge.passed) > looks + 2)
    assert (await status_of(rollout)).phase is Phase.OBSERVING
    world.judge.says(decided.model_copy(update={"readings": (logins, tunnels)}), wave=PASSED)
    await in_phase(rollout, Phase.HELD)


@pytest.mark.sweep
async def test_harm_that_comes_back_after_operators_let_the_upgrade_go_on_holds_it_again(
    world: World,
) -> None:
    """Each gate asked once in a change: 95 % of logins failed by it two waves later, and nothing held."""
    world.judge.says(HEALTHY)
    world.judge.says(UNDECIDED, wave=2)
    rollout = await world.start(("gw-1",), ("gw-2",), ("gw-3", "gw-4"))
    await in_phase(rollout, Phase.OBSERVING, wave=2)
    world.judge.says(failing_logins(60), wave=PASSED)
    await in_phase(rollout, Phase.HELD)
    world.judge.says(QUIET, wave=PASSED)
    await looked(world)
    await say(rollout, CommandKind.RESUME, "ana", hold_of=PENSTOCK_WATCH)
    await in_phase(rollout, Phase.OBSERVING, wave=2)
    world.judge.says(failing_logins(70), wave=PASSED)
    await in_phase(rollout, Phase.HELD)
    await say(rollout, CommandKind.RESUME, "ana", hold_of=PENSTOCK_WATCH)
    world.judge.says(QUIET, wave=PASSED)
    world.judge.says(HEALTHY, wave=2)
    world.judge.says(UNDECIDED, wave=3)
    await in_phase(rollout, Phase.OBSERVING, wave=3)
    world.judge.says(failing_logins(950), wave=PASSED)
    await in_phase(rollout, Phase.HELD)
    needs = (await status_of(rollout)).needs_you
    assert needs is not None
    assert "950 of 1000 logins fail" in needs


@pytest.mark.sweep
async def test_harm_that_lasts_is_asked_about_again_once_a_further_wave_has_passed(world: World) -> None:
    world.judge.says(HEALTHY)
    world.judge.says(UNDECIDED, wave=2)
    world.judge.says(UNDECIDED, wave=3)
    rollout = await world.start(("gw-1",), ("gw-2",), ("gw-3", "gw-4"))
    await in_phase(rollout, Phase.OBSERVING, wave=2)
    world.judge.says(failing_logins(60), wave=PASSED)
    await in_phase(rollout, Phase.HELD)
    await say(rollout, CommandKind.RESUME, "ana", hold_of=PENSTOCK_WATCH)
    await looked(world)
    assert (await status_of(rollout)).phase is Phase.OBSERVING
    world.judge.says(HEALTHY, wave=2)
    await in_phase(rollout, Phase.HELD)


@pytest.mark.sweep
async def test_an_upgrade_that_operators_let_go_on_is_not_held_again_because_the_harm_has_gone(
    world: World,
) -> None:
    """While its hold cleared, the decision named no gate, and its reason counted as other harm."""
    firing, *clearing, cleared = alerting({3}, 8, COHORTS)[3:]
    assert "the cause is gone" in clearing[0].reason
    rollout = await second_wave_that(world, "its window")
    world.judge.says(firing, wave=PASSED)
    await in_phase(rollout, Phase.HELD)
    world.judge.says(UNDECIDED, wave=2)
    world.windows.answer = OPEN
    await say(rollout, CommandKind.RESUME, "ana", hold_of=PENSTOCK_WATCH)
    await in_phase(rollout, Phase.OBSERVING, wave=2)
    for said in (*clearing[:2], firing, clearing[0]):
        world.judge.says(said, wave=PASSED)
        await looked(world)
        assert (await status_of(rollout)).phase is Phase.OBSERVING
    world.judge.says(cleared, wave=PASSED)
    await looked(world)
    world.judge.says(firing, wave=PASSED)
    await in_phase(rollout, Phase.HELD)


@pytest.mark.sweep
async def test_harm_that_lasts_is_not_asked_about_again_after_the_history_was_cut(world: World) -> None:
    """The watch begins anew, without data: that does not end the harm, and a verdict without it does."""
    few = GateReading(gate="logins", verdict=GateVerdict.NOT_ENOUGH_DATA, reason="7 logins so far")
    rollout = await second_wave_that(world, "its window")
    world.judge.says(failing_logins(60), wave=PASSED)
    await in_phase(rollout, Phase.HELD)
    await say(rollout, CommandKind.RESUME, "ana", hold_of=PENSTOCK_WATCH)
    await in_phase(rollout, Phase.WAITING)
    world.judge.says(UNDECIDED.model_copy(update={"readings": (few,)}), wave=PASSED)
    await cut(world, rollout)
    newest = world.client.get_workflow_handle(rollout.id)
    for said in (failing_logins(70), QUIET):
        await looked(world)
        assert (await status_of(newest)).phase is Phase.WAITING
        world.judge.says(said, wave=PASSED)
    await looked(world)
    world.judge.says(failing_logins(80), wave=PASSED)
    await in_phase(newest, Phase.HELD)


def failing_logins(bad: int) -> Decision:
    """Return what the judge says after a wave of logins that fail."""
    reading = GateReading(gate="logins", verdict=GateVerdict.UNHEALTHY, reason=f"{bad} of 1000 logins fail")
    return MEASURED.model_copy(update={"reason": reading.reason, "readings": (reading,)})


async def looked(world: World) -> None:
    """Wait until the watch over waves that have passed has reported what it sees now."""
    looks = len(world.judge.passed)
    await until(lambda: len(world.judge.passed) > looks + 2)


@pytest.mark.sweep
async def test_a_gateway_that_fails_alone_after_its_wave_returns_alone_and_the_change_goes_on(
    world: World,
) -> None:
    rollout = await second_wave_that(world, "its window")
    world.judge.says(ONE_FAILED, wave=PASSED)
    await until(lambda: world.serving()["gw-2"] == "1.1.6", IN_A_MINUTE)
    assert world.serving()["gw-1"] == "1.3.0"
    assert list((await status_of(rollout)).aside) == ["gw-2"]
    world.judge.says(HEALTHY, wave=2)
    world.windows.answer = OPEN
    result = await result_of(rollout)
    assert (result.outcome, list(result.aside)) == (Outcome.PROMOTED, ["gw-2"])
    good = world.book.known_good("edge")
    assert good == {"gw-1": NEW, "gw-2": OLD, "gw-3": NEW, "gw-4": NEW}
    [row] = world.book.gateways_of(world.newest, "set aside")
    assert (row.gateway, row.wave) == ("gw-2", 1)


@pytest.mark.sweep
async def test_operators_are_notified_when_waves_that_have_passed_are_not_watched(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R7: also while only the next wave's window is waited for."""
    monkeypatch.setattr(steps, "UNREAD_FOR", timedelta(seconds=1))
    rollout = await second_wave_that(world, "its window")
    world.judge.says(BLIND, wave=PASSED)
    await until(lambda: UNWATCHED in [action for action, *_ in world.book.events.values()])
    world.judge.says(QUIET, wave=PASSED)
    await until(lambda: WATCHED in [action for action, *_ in world.book.events.values()])
    await say(rollout, CommandKind.ROLL_BACK)
    assert (await result_of(rollout)).outcome is Outcome.ROLLED_BACK


@pytest.mark.sweep
@pytest.mark.parametrize("answers_after", [0.0, 3.0])
async def test_a_notice_of_waves_that_are_not_watched_is_settled_after_the_history_was_cut(
    world: World, monkeypatch: pytest.MonkeyPatch, answers_after: float
) -> None:
    """The next run of the change knew of no notice, and operators read for ever that nothing is watched.

    So it did where the history was cut while the notice was being written.
    """
    monkeypatch.setattr(steps, "UNREAD_FOR", timedelta(seconds=1))
    world.book.answers_after[UNWATCHED] = answers_after
    rollout = await second_wave_that(world, "its window")
    world.judge.says(BLIND, wave=PASSED)
    await until(lambda: UNWATCHED in actions(world))
    await cut(world, rollout)
    assert WATCHED not in actions(world)
    world.judge.says(QUIET, wave=PASSED)
    await until(lambda: WATCHED in actions(world))
    assert actions(world).count(UNWATCHED) == 1


@pytest.mark.sweep
@pytest.mark.parametrize("answers_after", [0.0, 3.0])
async def test_a_gateway_that_is_not_taken_back_is_tried_on_after_the_history_was_cut(
    world: World, monkeypatch: pytest.MonkeyPatch, answers_after: float
) -> None:
    """It was reported, then forgotten: no attempt followed, and its notice stayed."""
    monkeypatch.setattr(steps, "NOT_BACK_FOR", timedelta(seconds=1))
    world.book.answers_after[NOT_TAKEN_BACK] = answers_after
    rollout = await second_wave_that(world, "its window")
    out = Quarantine(fleet="edge", gateway="gw-2", reason="its disk", person="ana", since=datetime.now(UTC))
    world.book.set_quarantine(out)
    world.judge.says(ONE_FAILED, wave=PASSED)
    await until(lambda: NOT_TAKEN_BACK in actions(world))
    world.judge.says(QUIET, wave=PASSED)
    await cut(world, rollout)
    assert world.book.clear_quarantine("edge", "gw-2", "ana", "mended")
    await until(lambda: world.serving()["gw-2"] == "1.1.6", IN_A_MINUTE)
    await until(lambda: TAKEN_BACK in actions(world))
    assert actions(world).count(NOT_TAKEN_BACK) == 1
    assert list((await status_of(world.client.get_workflow_handle(rollout.id))).aside) == ["gw-2"]


async def cut(world: World, rollout: Running) -> None:
    """Have the change, which waits for its next wave, continue as new."""
    newest = world.client.get_workflow_handle(rollout.id)
    before = (await newest.describe()).run_id
    await lengthen_change(newest)

    async def is_cut() -> bool:
        return (await newest.describe()).run_id != before

    await until(is_cut)
    asked = world.client.get_workflow_handle(f"{rollout.id}/{world.newest}/window/002/{before}")

    async def is_over() -> bool:
        return (await asked.describe()).status is WorkflowExecutionStatus.CANCELED

    await until(is_over)


def actions(world: World) -> list[str]:
    """Return what was written to the audit record, from which notices are sent."""
    return [action for action, *_ in world.book.events.values()]


@pytest.mark.sweep
async def test_what_has_passed_is_watched_only_until_the_release_is_promoted(world: World) -> None:
    result = await world.upgrade(("gw-1",), ("gw-2",), ("gw-3", "gw-4"))
    assert result.outcome is Outcome.PROMOTED
    await until(lambda: bool(world.judge.bakes))
    looks = len(world.judge.passed)
    baked = len(world.judge.bakes)
    await until(lambda: len(world.judge.bakes) > baked + 1)
    assert len(world.judge.passed) == looks
