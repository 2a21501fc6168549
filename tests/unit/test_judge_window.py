"""The window: clocks, the order of verdicts, latches, and what no fault of the metrics may cause."""

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.judge.failures import Aside, Why
from policies.judge.look import Memory
from policies.judge.tick import Sign, Tick
from policies.judge.window import WindowState, fold_tick, set_back
from policies.model.verdict import Action, GateVerdict
from tests.unit.judged import CANARY, COHORTS, CONTROL, LOGINS, START, actions, counted, fold, policy

CLEAN = ((2, 0), (2, 0))
BROKEN = ((2, 2), (2, 0))
RESTARTED: dict[str, Any] = {
    "id": "restarted",
    "kind": "hard",
    "value": "started{$cohort}",
    "fires": {"when": "changes"},
}
LEAK: dict[str, Any] = {
    "id": "leak",
    "kind": "slope",
    "value": "fds{$cohort}",
    "min_span": "10s",
    "floor_per_minute": 30,
}


def sign(tick: float, *instances: str, since: float | None = None) -> dict[str, dict[str, Sign]]:
    until = START + tick
    return {
        "restarted": {
            i: Sign(since=START + (tick if since is None else since), until=until) for i in instances
        }
    }


def test_a_clean_canary_is_promoted_but_never_before_the_minimum() -> None:
    _, decisions = fold(policy(), (counted(t, *CLEAN) for t in range(40)))
    first = actions(decisions).index(Action.PROMOTE)
    assert 10 <= first <= 20
    assert set(actions(decisions[:first])) == {Action.CONTINUE}


def test_a_broken_canary_is_rolled_back_and_stays_so_whatever_comes_later() -> None:
    ticks = [counted(t, *BROKEN) for t in range(10)] + [counted(t, *CLEAN) for t in range(10, 60)]
    _, decisions = fold(policy(), ticks)
    first = actions(decisions).index(Action.ROLL_BACK)
    assert first <= 8
    assert set(actions(decisions[first:])) == {Action.ROLL_BACK}
    assert decisions[first].verdict is GateVerdict.UNHEALTHY
    assert decisions[first].readings[0].numbers["canary_bad"] == 2 * (first + 1)


def test_an_outage_of_all_rolls_nothing_back_and_promotes_nothing() -> None:
    _, decisions = fold(policy(), (counted(t, (2, 2), (2, 2)) for t in range(95)))
    assert not {Action.ROLL_BACK, Action.PROMOTE} & set(actions(decisions))
    assert decisions[-1].action is Action.HOLD_FOR_HUMAN


def test_without_traffic_a_person_is_asked_with_the_numbers() -> None:
    _, decisions = fold(policy(), (counted(t, (0, 0), (0, 0)) for t in range(95)))
    assert not {Action.ROLL_BACK, Action.PROMOTE} & set(actions(decisions))
    assert actions(decisions).count(Action.EXTEND) == 4  # at 20, 40, 60 and 80 s
    last = decisions[-1]
    assert (last.action, last.verdict) == (Action.HOLD_FOR_HUMAN, GateVerdict.NOT_ENOUGH_DATA)
    assert last.readings[0].numbers["canary_total"] == 0
    assert "0 of 0 bad on the canary" in last.reason


def test_a_policy_without_gates_never_promotes() -> None:
    _, decisions = fold(policy().model_copy(update={"gates": ()}), (Tick(at=START + t) for t in range(95)))
    assert Action.PROMOTE not in actions(decisions)
    assert decisions[-1].action is Action.HOLD_FOR_HUMAN


def test_blind_time_holds_after_the_grace_asks_a_person_after_the_cap_and_clears_after_good_ticks() -> None:
    blind = [Tick(at=START + t, blind={"logins": "Prometheus is gone"}) for t in range(2, 75)]
    back = [counted(t, *CLEAN) for t in range(75, 90)]
    gates = policy(window={"minimum": "10s", "nominal": "20s", "extension": "0s", "cap": "200s"})
    _, decisions = fold(gates, [counted(0, *CLEAN), counted(1, *CLEAN), *blind, *back])
    held = actions(decisions)
    assert set(held[:12]) == {Action.CONTINUE}
    assert held[12] is Action.HOLD
    assert held[62] is Action.HOLD_FOR_HUMAN
    assert held[75:78] == [Action.HOLD_FOR_HUMAN] * 3
    assert held[78] is Action.CONTINUE
    assert Action.ROLL_BACK not in held
    assert "Prometheus is gone" in decisions[12].reason


def test_blind_time_is_not_observed_time() -> None:
    ticks = [Tick(at=START + t, blind={"logins": "gone"}) for t in range(9)]
    state, _ = fold(policy(), [counted(-1, *CLEAN), *ticks, counted(9, *CLEAN)])
    assert state.observed == 1
    assert state.wall == 10


def test_one_lost_tick_is_forgiven() -> None:
    ticks = [counted(t, *CLEAN) for t in range(30)]
    ticks[5] = Tick(at=START + 5, blind={"logins": "timed out"})
    _, decisions = fold(policy(), ticks)
    assert Action.HOLD not in actions(decisions)
    assert Action.PROMOTE in actions(decisions)


def test_a_hard_sign_on_the_canary_rolls_back_at_once() -> None:
    ticks = [counted(0, *CLEAN), counted(1, *CLEAN, signs=sign(1, CANARY))]
    _, decisions = fold(policy(LOGINS, RESTARTED), ticks)
    assert (decisions[-1].action, decisions[-1].verdict) == (Action.ROLL_BACK, GateVerdict.HARD)


def test_a_restart_before_the_window_is_no_sign() -> None:
    ticks = [counted(0, *CLEAN, signs=sign(0, CANARY, since=-30)), counted(1, *CLEAN)]
    assert fold(policy(LOGINS, RESTARTED), ticks)[1][0].action is Action.CONTINUE


def test_bar_12_the_same_sign_on_a_third_of_control_holds_instead() -> None:
    ticks = [counted(0, *CLEAN), counted(1, *CLEAN, signs=sign(1, CANARY, CONTROL[0]))]
    _, decisions = fold(policy(LOGINS, RESTARTED), ticks)
    assert (decisions[-1].action, decisions[-1].verdict) == (Action.HOLD, GateVerdict.CONFLICTING)


def test_a_hard_sign_counts_while_other_gates_are_blind() -> None:
    ticks = [
        counted(0, *CLEAN),
        *(Tick(at=START + t, blind={"logins": "no answer"}) for t in range(1, 20)),
        Tick(at=START + 20, blind={"logins": "no answer"}, signs=sign(20, CANARY)),
    ]
    _, decisions = fold(policy(LOGINS, RESTARTED), ticks)
    assert decisions[-2].action is Action.HOLD
    assert decisions[-1].action is Action.ROLL_BACK


def test_a_wrong_executable_holds_and_outranks_proof_of_harm() -> None:
    wrong = {CANARY: "sha256:" + "ef" * 32}
    _, decisions = fold(policy(), (counted(t, *CLEAN, other=wrong) for t in range(15)))
    assert actions(decisions)[:5] == [Action.CONTINUE] * 5
    assert (decisions[6].action, decisions[6].verdict) == (Action.HOLD, GateVerdict.CONFLICTING)
    _, decisions = fold(policy(), (counted(t, *(BROKEN if t > 7 else CLEAN), other=wrong) for t in range(30)))
    assert Action.ROLL_BACK not in actions(decisions)


def test_a_gate_that_may_only_hold_holds() -> None:
    gates = policy(LOGINS | {"action": "hold"})
    _, decisions = fold(gates, (counted(t, *BROKEN) for t in range(20)))
    assert Action.HOLD in actions(decisions)
    assert Action.ROLL_BACK not in actions(decisions)


def test_a_leak_holds_and_is_told_with_its_slope() -> None:
    def fds(tick: int) -> dict[str, dict[str, float]]:
        return {"leak": {CANARY: 100.0 + 5 * tick, **dict.fromkeys(CONTROL, 100.0 + tick % 2)}}

    _, decisions = fold(policy(LOGINS, LEAK), (counted(t, *CLEAN, gauges=fds(t)) for t in range(14)))
    assert decisions[-1].action is Action.HOLD
    assert "grows by 300.00 a minute" in decisions[-1].reason


def test_in_shadow_mode_a_person_acts() -> None:
    _, decisions = fold(policy(shadow=True), (counted(t, *BROKEN) for t in range(20)))
    assert decisions[-1].action is Action.HOLD_FOR_HUMAN
    assert decisions[-1].reason.startswith("shadow: would roll back: logins")
    _, decisions = fold(policy(shadow=True), (counted(t, *CLEAN) for t in range(20)))
    assert decisions[-1].reason.startswith("shadow: would promote: ")


def test_a_hold_does_not_reset_the_evidence() -> None:
    gates = policy(LOGINS, RESTARTED)
    both = sign(3, CANARY, *CONTROL)
    held = [counted(t, (2, 1), (2, 0), signs=both if t == 3 else {}) for t in range(30)]
    plain = [counted(t, (2, 1), (2, 0)) for t in range(30)]
    assert fold(gates, held)[0].gates["logins"] == fold(gates, plain)[0].gates["logins"]
    assert Action.HOLD in actions(fold(gates, held)[1])


def test_bar_11_a_worker_killed_at_every_tick_decides_the_same_to_the_byte() -> None:
    gates = policy(LOGINS | {"placebo": True}, RESTARTED, LEAK)
    ticks = [
        counted(t, (2, t % 3 == 0), (2, t % 7 == 0), gauges={"leak": {CANARY: 100.0 + t % 5}})
        for t in range(60)
    ]
    whole_state, whole = fold(gates, ticks)
    state, killed = WindowState(), []
    for tick in ticks:
        state = WindowState.model_validate_json(state.model_dump_json())
        tick = Tick.model_validate_json(tick.model_dump_json())  # noqa: PLW2901 - the same, restored
        state, decision = fold_tick(gates, gates.window, COHORTS, state, tick)
        killed.append(decision)
    assert [d.model_dump_json() for d in killed] == [d.model_dump_json() for d in whole]
    assert state.model_dump_json() == whole_state.model_dump_json()


def test_bar_11_five_gates_are_judged_within_twenty_milliseconds_a_tick() -> None:
    five = [LOGINS | {"id": name, "share": 0.1} for name in ("a", "b", "c", "d", "e")]
    gates = policy(*five)
    rows = {CANARY: (30, 4), **dict.fromkeys(CONTROL, (90, 11))}
    ticks = [Tick(at=START + t, counts=dict.fromkeys("abcde", rows)) for t in range(80)]
    state, spent = WindowState(), []
    for tick in ticks:
        began = time.process_time()
        state, _ = fold_tick(gates, gates.window, COHORTS, state, tick)
        WindowState.model_validate_json(state.model_dump_json())
        spent.append(time.process_time() - began)
    assert sorted(spent)[len(spent) // 2] <= 0.020


@given(
    st.lists(st.sampled_from([CLEAN, BROKEN, ((2, 1), (2, 0)), ((0, 0), (2, 0))]), min_size=12, max_size=40),
    st.sets(st.integers(0, 39), min_size=1),
    st.sampled_from(["logins", "restarted"]),
)
@settings(max_examples=60, deadline=None)
def test_a_lost_metric_never_turns_into_a_pass(rows: list[Any], lost: set[int], gate: str) -> None:
    gates = policy(LOGINS, RESTARTED)
    ticks = [counted(t, *row) for t, row in enumerate(rows)]
    without = [
        tick.model_copy(
            update={
                "blind": {gate: "lost"},
                "counts": {} if gate == "logins" else tick.counts,
            }
        )
        if number in lost
        else tick
        for number, tick in enumerate(ticks)
    ]
    decisions = fold(gates, without)[1]
    for number in lost:
        if number < len(decisions):
            assert decisions[number].action is not Action.PROMOTE


@pytest.mark.parametrize("missing", [{"counts": {}}, {"counts": {"logins": {}}}])
def test_a_tick_that_counted_nothing_proves_nothing(missing: dict[str, Any]) -> None:
    _, decisions = fold(policy(), (Tick(at=START + t, **missing) for t in range(95)))
    assert Action.PROMOTE not in actions(decisions)


def test_a_gate_that_is_only_suspected_delays_a_promotion_and_does_no_more() -> None:
    latency = LOGINS | {"id": "latency", "required": False, "health": None, "margin": {"min_bad": 100}}
    slow = {CANARY: (2, 1), **dict.fromkeys(CONTROL, (2, 0))}

    def ticks(suspicious: bool) -> list[Tick]:
        ticks = [counted(t, *CLEAN) for t in range(40)]
        return [
            b.model_copy(update={"counts": b.counts | ({"latency": slow} if suspicious else {})})
            for b in ticks
        ]

    assert Action.PROMOTE in actions(fold(policy(LOGINS, latency), ticks(suspicious=False))[1])
    decided = set(actions(fold(policy(LOGINS, latency), ticks(suspicious=True))[1]))
    assert decided == {Action.CONTINUE, Action.EXTEND}


def test_a_tick_of_a_worker_whose_clock_was_ahead_holds_up_no_verdict_after_it() -> None:
    """C1: a worker ten minutes ahead took one tick; the next is taken by another."""
    ticks = [counted(600, *BROKEN)] + [counted(t, *BROKEN) for t in range(1, 20)]
    _, decisions = fold(policy(), ticks)
    assert actions(decisions).index(Action.ROLL_BACK) <= 9


def test_nothing_that_a_window_remembers_lies_after_its_newest_tick() -> None:
    """C1."""
    ahead = START + 600
    aside = {CONTROL[0]: Aside(at=ahead, why=Why.UNSEEN)}
    moments: dict[str, Any] = dict.fromkeys(("started", "last", "blind_since", "other_since"), ahead)
    state = WindowState(
        **moments,
        unseen={CANARY[0]: ahead},
        silent={CANARY[0]: ahead},
        aside=aside,
        memory=Memory(counted=ahead),
    )
    back = set_back(state, START)
    assert str(ahead) not in back.model_dump_json()
    assert set_back(back, START + 1) is back
