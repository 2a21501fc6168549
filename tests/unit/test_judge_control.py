"""An honest control: what is compared with whom, over which waves, and what is said when nobody is left."""

import random
from collections.abc import Sequence
from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.judge.guard import FEWEST_KNOWN, GuardState, Limit, guard_step, harm_value, limit_of
from policies.judge.tick import Tick
from policies.judge.window import WindowState, fold_tick, next_window
from policies.model.gates import GatePolicy
from policies.model.verdict import Action, Against, Cohorts, Decision, GateVerdict
from tests.unit.judged import CANARY, CONTROL, LOGINS, START, policy

NAMES = tuple(f"10.0.1.{n}:9500" for n in range(20))
WAVES = (1, 5, 20)
Row = dict[str, tuple[int, int]]
"""Events and bad events of each gateway at one scrape."""


def watch(
    gates: GatePolicy,
    cohorts: Cohorts,
    rows: Sequence[Row],
    state: WindowState | None = None,
) -> tuple[WindowState, Decision]:
    """Fold until the window decides."""
    state = state or WindowState()
    known = {"logins": (400, 6)} if cohorts.control else {}
    for number, row in enumerate(rows):
        tick = Tick(at=START + number, counts={"logins": row}, baseline=known)
        state, decision = fold_tick(gates, gates.window, cohorts, state, tick)
        if decision.action in {Action.ROLL_BACK, Action.PROMOTE, Action.HOLD_FOR_HUMAN}:
            break
    return state, decision


def rows_of(names: Sequence[str], bad: dict[str, float], seed: int, ticks: int = 90) -> list[Row]:
    chance = random.Random(seed)
    return [
        {n: (8, sum(chance.random() < bad.get(n, 0.01) for _ in range(8))) for n in names}
        for _ in range(ticks)
    ]


ALONE = Cohorts(canary=(CANARY, *CONTROL), control=())
EVERY = (CANARY, *CONTROL)


def test_without_control_a_clean_wave_is_proven_against_the_guard_and_never_said_not_to_be_worse() -> None:
    _, decision = watch(policy(LOGINS | {"worst": 0.1}), ALONE, rows_of(EVERY, {}, 1))
    (reading,) = decision.readings
    assert decision.action is Action.PROMOTE
    assert (reading.verdict, reading.against) == (GateVerdict.HEALTHY, Against.GUARD)
    assert "nobody unchanged is left" in decision.reason
    assert "not worse" not in decision.reason


def test_with_what_earlier_waves_left_the_fleets_own_baseline_decides() -> None:
    gates = policy(LOGINS | {"health": {"delta": 0.03}, "worst": 0.2}).over_waves(2)
    first = Cohorts(canary=(CANARY,), control=CONTROL)
    state, _ = watch(gates, first, rows_of(EVERY, {}, 2, ticks=30))
    last = Cohorts(canary=CONTROL, control=(), changed_before=(CANARY,))
    _, decision = watch(gates, last, rows_of(EVERY, {}, 3), next_window(state))
    (reading,) = decision.readings
    assert (decision.action, reading.against) == (Action.PROMOTE, Against.BASELINE)
    assert 0.03 < reading.numbers["limit"] < 0.06


@pytest.mark.parametrize("bad", [0.12, 0.5, 1.0])
def test_without_control_harm_holds_for_it_may_be_an_outage_of_all(bad: float) -> None:
    _, decision = watch(policy(), ALONE, rows_of(EVERY, dict.fromkeys(EVERY, bad), 4))
    (reading,) = decision.readings
    assert (reading.verdict, reading.against) == (GateVerdict.UNHEALTHY, Against.GUARD)
    assert decision.action in {Action.HOLD, Action.HOLD_FOR_HUMAN}


def test_a_control_that_counts_nothing_proves_nothing() -> None:
    rows = [{CANARY: (8, 0), **dict.fromkeys(CONTROL, (0, 0))} for _ in range(60)]
    _, decision = watch(policy(), Cohorts(canary=(CANARY,), control=CONTROL), rows)
    assert decision.readings[0].verdict is GateVerdict.NOT_ENOUGH_DATA


@given(st.floats(0.001, 0.5), st.floats(0.005, 0.2), st.floats(0, 5000), st.floats(0, 0.3))
def test_the_limit_is_never_above_the_guard(worst: float, leeway: float, known: float, share: float) -> None:
    limit = limit_of(worst, leeway, known, known * share)
    assert limit.share <= worst
    assert (limit.against is Against.BASELINE) == (known >= FEWEST_KNOWN and limit.share < worst)


@given(st.integers(0, 50), st.floats(0.01, 0.3))
@settings(max_examples=50)
def test_at_the_limit_the_evidence_of_harm_of_a_scrape_is_one_on_average(counted: int, share: float) -> None:
    limit = Limit(share, Against.GUARD)
    expected = 0.0
    for bad in range(counted + 1):
        chance = comb(counted, bad) * share**bad * (1 - share) ** (counted - bad)
        expected += chance * harm_value(guard_step(GuardState(), counted, bad, limit))
    assert expected <= 1 + 1e-9


def rollout(bad: float, seed: int, ticks: int = 90) -> tuple[int, Decision]:
    """Return the wave a rollout of twenty ended in, and its last decision: every changed gateway fails."""
    gates = policy(LOGINS | {"health": {"delta": 0.03}, "margin": {"delta": 0.01, "over": "20s"}}).over_waves(
        3
    )
    state, before = WindowState(), 0
    for number, upto in enumerate(WAVES, start=1):
        cohorts = Cohorts(canary=NAMES[before:upto], changed_before=NAMES[:before], control=NAMES[upto:])
        state, decision = watch(
            gates,
            cohorts,
            rows_of(NAMES, dict.fromkeys(NAMES[:upto], bad), seed + number, ticks),
            next_window(state),
        )
        if decision.action is Action.ROLL_BACK:
            return number, decision
        before = upto
    return len(WAVES), decision


def test_a_fault_too_subtle_for_one_canary_is_found_before_the_last_wave() -> None:
    ends = [rollout(0.045, seed) for seed in range(0, 100, 10)]
    assert sum(wave < len(WAVES) for wave, _ in ends) >= 9
    assert all(decision.action is Action.ROLL_BACK for wave, decision in ends if wave < len(WAVES))


def test_evidence_goes_on_over_the_waves_and_only_that() -> None:
    gates = policy().over_waves(3)
    cohorts = Cohorts(canary=(CANARY,), control=CONTROL)
    state, _ = watch(gates, cohorts, rows_of(EVERY, {CANARY: 0.1}, 5, ticks=9))
    after = next_window(state)
    assert after.gates["logins"].overall == state.gates["logins"].overall
    assert after.gates["logins"].sle is None
    assert (after.ticks, after.started, after.memory) == (0, None, WindowState().memory)
    assert next_window(WindowState.model_validate_json(state.model_dump_json())) == after


def test_the_comparisons_share_one_budget() -> None:
    alone, many = policy(), policy().over_waves(4)
    assert alone.budget.overall is None
    assert alone.budget.each_wave.equal == alone.budget.alpha_equal
    assert many.budget.overall is not None
    for spent in ("equal", "margin"):
        total = getattr(many.budget.overall, spent) + 4 * getattr(many.budget.each_wave, spent)
        assert total == pytest.approx(getattr(many.budget, f"alpha_{spent}"))


def test_a_canary_that_fails_alone_is_found_beside_many_healthy_changed_gateways() -> None:
    cohorts = Cohorts(canary=NAMES[5:6], changed_before=NAMES[:5], control=NAMES[6:])
    gates = policy().over_waves(3)
    _, decision = watch(gates, cohorts, rows_of(NAMES, {NAMES[5]: 0.5}, 6))
    assert decision.action is Action.ROLL_BACK
    assert "on the canary" in decision.reason
