"""What would have changed a verdict: fed to the real rule it does, and one event less does not."""

from collections.abc import Sequence
from datetime import timedelta

from hypothesis import example, given, settings
from hypothesis import strategies as st

from policies.judge.otherwise import explained, with_bad
from policies.judge.tick import Tick
from policies.judge.window import WindowState, fold_tick
from policies.model.gates import GatePolicy
from policies.model.verdict import Decision, Differing, GateVerdict, Otherwise
from tests.unit.judged import CANARY, COHORTS, CONTROL, START, counted, policy

Row = tuple[int, int, int, int]
ROWS = st.lists(
    st.tuples(
        st.integers(0, 30), st.floats(0, 1), st.integers(0, 30), st.sampled_from([0.0, 0.02, 0.1, 0.5])
    ).map(lambda row: (row[0], round(row[0] * row[1] ** 3), row[2], round(row[2] * row[3]))),
    min_size=3,
    max_size=40,
)


def told(
    rows: Sequence[Row], gates: GatePolicy | None = None, more: Tick | None = None
) -> tuple[WindowState, Decision]:
    """Return what the real judge says of scrapes with these counts of the canary and each control."""
    gates, state = gates or policy(), WindowState()
    ticks = [
        counted(number, (total, bad), (control, control_bad))
        for number, (total, bad, control, control_bad) in enumerate(rows)
    ]
    for tick in (*ticks, *([more] if more else [])):
        state, decision = fold_tick(gates, gates.window, COHORTS, state, tick)
    return state, decision


def verdict(decision: Decision) -> GateVerdict:
    return next(reading.verdict for reading in decision.readings if reading.gate == "logins")


def differences(
    rows: Sequence[Row], gates: GatePolicy | None = None
) -> tuple[Decision, tuple[Otherwise, ...]]:
    gates = gates or policy()
    state, decision = told(rows, gates)
    return decision, explained(gates, gates.window, COHORTS, state, decision).otherwise


def fed(rows: Sequence[Row], one: Otherwise, count: int, gates: GatePolicy) -> GateVerdict:
    """Return what the real judge says from the first scrape on, where so many events had been different."""
    if one.differing is Differing.MORE_GOOD:
        counts = {"logins": {CANARY: (count, 0), **dict.fromkeys(CONTROL, (0, 0))}}
        return verdict(told(rows, gates, Tick(at=START + len(rows), counts=counts))[1])
    more = -count if one.differing is Differing.FEWER_BAD else count
    return verdict(told(with_bad(rows, more), gates)[1])


@given(ROWS, st.sampled_from([1, 3]))
@example([(0, 0, 0, 0)] * 7 + [(12, 0, 10, 5), (2, 2, 3, 0), (4, 1, 2, 0)], 3)
@example([(5, 0, 5, 0)] * 30 + [(12, 0, 10, 5), (2, 2, 3, 0), (4, 1, 2, 0)], 3)
@example(
    [(0, 0, 0, 0)] * 2
    + [(0, 0, 6, 3)]
    + [(0, 0, 0, 0)] * 13
    + [(1, 1, 1, 0), (2, 2, 0, 0), (4, 4, 1, 0), (6, 6, 1, 0), (7, 1, 0, 0), (18, 0, 0, 0)],
    1,
)
@settings(max_examples=150)
def test_the_difference_that_is_told_changes_the_verdict_and_one_event_less_does_not(
    rows: list[Row], waves: int
) -> None:
    gates = policy().over_waves(waves)
    decision, found = differences(rows, gates)
    for one in found:
        assert fed(rows, one, one.count, gates) is one.then
        if one.count > 1:
            assert fed(rows, one, one.count - 1, gates) is verdict(decision) is not one.then


def test_of_thousands_of_logins_in_a_scrape_whatever_is_told_changes_the_verdict() -> None:
    """All of control fails beside a good canary: what counts against it is too small to be divided by."""
    gates = policy()
    for rows in ([(5000, 0, 5000, 1500)] * 6, [(300, 0, 300, 90)] * 9 + [(5000, 10, 9000, 4500)] * 2):
        for one in differences(rows)[1]:
            assert fed(rows, one, one.count, gates) is one.then


def test_of_a_release_that_is_turned_back_it_is_told_how_many_fewer_bad_logins_it_needed() -> None:
    rows = [(10, 0, 10, 0)] * 5 + [(10, 8, 10, 0)] * 4
    decision, (one,) = differences(rows)
    assert verdict(decision) is GateVerdict.UNHEALTHY
    assert (one.gate, one.differing) == ("logins", Differing.FEWER_BAD)
    assert 1 <= one.count <= 32
    assert fed(rows, one, one.count, policy()) is not GateVerdict.UNHEALTHY


def test_where_nothing_is_proven_yet_it_is_told_how_many_good_logins_more_and_how_long_that_takes() -> None:
    good = next(one for one in differences([(2, 0, 2, 0)] * 3)[1] if one.differing is Differing.MORE_GOOD)
    assert good.then is GateVerdict.HEALTHY
    assert good.within == timedelta(seconds=-(-good.count * 3 // 6))


def test_without_any_login_nobody_says_how_long_it_takes() -> None:
    good = [one for one in differences([(0, 0, 5, 0)] * 3)[1] if one.differing is Differing.MORE_GOOD]
    assert [one.within for one in good] == [None]


def test_of_a_proof_of_health_it_is_told_how_many_bad_logins_it_would_not_have_borne() -> None:
    decision, (one,) = differences([(20, 0, 20, 0)] * 12)
    assert verdict(decision) is GateVerdict.HEALTHY
    assert one.differing is Differing.MORE_BAD
    assert one.then is not GateVerdict.HEALTHY
