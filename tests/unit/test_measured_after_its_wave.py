"""After a wave has passed only hard signs roll back, and the judge asks operators about all other harm."""

from datetime import timedelta

import pytest

from policies.judge.tick import Tick
from policies.judge.window import WindowState, fold_tick
from policies.model.verdict import Action, Decision, GateReading, GateVerdict
from policies.status.awaited import finds_harm, gives_no_verdict
from policies.votes import basis_of_harm
from tests.unit.judged import START, policy
from tests.unit.test_judge_failures import GATES, NAMES, WAVE, tick

BAKE = GATES.baking(timedelta(hours=24))
LOGINS = GateReading(gate="logins", verdict=GateVerdict.UNHEALTHY, reason="logins: 9 of 10 bad")


@pytest.mark.parametrize("control", [(), NAMES[10:]], ids=["all promoted", "a ring"])
def test_the_judge_asks_operators_about_harm_that_it_measures_in_the_bake(control: tuple[str, ...]) -> None:
    update = {"canary": NAMES[:10], "changed_before": (), "control": control, "may_fail": 1}
    cohorts = WAVE.model_copy(update=update)
    well = dict.fromkeys(NAMES, (20, 0))
    ill = well | dict.fromkeys(NAMES[:10], (20, 10))
    state, decisions = WindowState(), list[Decision]()
    for at in range(120):
        one = tick(at, counts={"logins": ill if at > 60 else well})
        state, decision = fold_tick(BAKE, BAKE.window, cohorts, state, one)
        decisions.append(decision)
    assert not any(finds_harm(decision) for decision in decisions[:60])
    last = decisions[-1]
    assert (last.action, last.verdict) == (Action.HOLD_FOR_HUMAN, GateVerdict.UNHEALTHY)
    assert finds_harm(last)


@pytest.mark.parametrize(("passed", "ends"), [(False, Action.ROLL_BACK), (True, Action.HOLD_FOR_HUMAN)])
def test_a_gauge_far_beyond_its_ratio_rolls_back_in_its_wave_and_asks_operators_later(
    passed: bool, ends: Action
) -> None:
    cpu = {"kind": "gauge_ratio", "value": "cpu{$cohort}", "per": "sessions{$cohort}", "over": "5s"}
    gates = policy({"id": "cpu-per-session", "ratio_hard": 3.0, **cpu})
    gates = gates.baking(timedelta(hours=24)) if passed else gates
    gauges = {"cpu-per-session": {name: 8.0 if name in WAVE.canary else 1.0 for name in NAMES}}
    state, decision = WindowState(), None
    for at in range(30):
        state, decision = fold_tick(gates, gates.window, WAVE, state, Tick(at=START + at, gauges=gauges))
    assert decision is not None
    assert (decision.action, decision.verdict) == (ends, GateVerdict.UNHEALTHY)
    assert finds_harm(decision)


def test_gates_that_only_hold_a_wave_keep_holding_it_until_their_cause_is_gone() -> None:
    hold = GATES.model_copy(update={"gates": tuple(gate.gentle() for gate in GATES.gates)})
    ill = dict.fromkeys(NAMES, (20, 0)) | dict.fromkeys(NAMES[:8], (20, 10))
    state, decision = WindowState(), None
    for at in range(60):
        state, decision = fold_tick(hold, hold.window, WAVE, state, tick(at, counts={"logins": ill}))
    assert decision is not None
    assert (decision.action, decision.verdict) == (Action.HOLD, GateVerdict.UNHEALTHY)


@pytest.mark.parametrize(
    ("action", "verdict", "harm", "unjudged"),
    [
        (Action.HOLD, GateVerdict.UNHEALTHY, True, False),
        (Action.HOLD_FOR_HUMAN, GateVerdict.HARD, True, False),
        (Action.ROLL_BACK, GateVerdict.HARD, True, False),
        (Action.HOLD, GateVerdict.METRICS_UNAVAILABLE, False, True),
        (Action.CONTINUE, GateVerdict.METRICS_UNAVAILABLE, False, True),
        (Action.HOLD, GateVerdict.CONFLICTING, False, True),
        (Action.CONTINUE, GateVerdict.CONFLICTING, False, False),
        (Action.HOLD_FOR_HUMAN, GateVerdict.NOT_ENOUGH_DATA, False, False),
        (Action.CONTINUE, GateVerdict.HEALTHY, False, False),
    ],
)
def test_a_decision_shows_harm_or_no_verdict_whatever_its_action(
    action: Action, verdict: GateVerdict, harm: bool, unjudged: bool
) -> None:
    decision = Decision(action=action, verdict=verdict, reason="because")
    assert (finds_harm(decision), gives_no_verdict(decision)) == (harm, unjudged)


def test_operators_decide_about_the_gates_that_show_harm_whatever_else_is_missing() -> None:
    asked = Decision(
        action=Action.ROLL_BACK, verdict=GateVerdict.UNHEALTHY, reason="logins", readings=(LOGINS,)
    )
    blind = GateReading(gate="tunnels", verdict=GateVerdict.METRICS_UNAVAILABLE, reason="no value")
    later = asked.model_copy(update={"action": Action.HOLD, "readings": (LOGINS, blind)})
    worse = later.model_copy(
        update={"readings": (LOGINS, blind.model_copy(update={"verdict": LOGINS.verdict}))}
    )
    assert basis_of_harm(asked).covers(basis_of_harm(later))
    assert not basis_of_harm(asked).covers(basis_of_harm(worse))
