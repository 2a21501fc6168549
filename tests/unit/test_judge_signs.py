"""Hard signs, gauges, slopes and the placebo guard."""

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.judge.gates.alerts import Alerts
from policies.judge.gates.counted import placebo_step, stands_out
from policies.judge.gates.gauge_ratio import GaugeRatio
from policies.judge.gates.hard import Fires, Hard, gone_since
from policies.judge.gates.signs import is_everybodys
from policies.judge.gates.slope import Slope
from policies.judge.persistence import Level, follow, settled
from policies.judge.sle import Margin, SleState, evidence_of
from policies.model.verdict import GateVerdict

FAILING = Fires(when="equals", value=0)
Samples = Sequence[tuple[float, float]]


def firing_since(samples: Samples, fires: Fires, divisor: float = 1.0) -> float | None:
    gate = Hard(id="sign", kind="hard", value="sign{$cohort}", fires=fires)
    return gate.firing_since(samples, divisor)


def test_a_sign_counts_from_where_it_has_not_stopped_since() -> None:
    assert firing_since([(1, 0), (2, 1), (3, 0), (4, 0)], FAILING) == 3
    assert firing_since([(1, 0), (2, 0), (3, 1)], FAILING) is None
    assert firing_since([], FAILING) is None
    assert firing_since([(1, 5), (2, 95)], Fires(when="above", value=0.9), 100) == 2
    assert firing_since([(1, 5), (2, 3)], Fires(when="below", value=4)) == 2


def test_a_change_counts_where_the_last_one_was() -> None:
    changes = Fires(when="changes")
    assert firing_since([(1, 7), (2, 7), (3, 9), (4, 9)], changes) == 3
    assert firing_since([(1, 7), (2, 8), (3, 9)], changes) == 3
    assert firing_since([(1, 7), (2, 7)], changes) is None
    assert firing_since([(1, 7), (2, 8), (3, 7)], Fires(when="changes", value=1.01)) is None
    assert firing_since([(1, 7), (2, 9)], Fires(when="changes", value=1.01)) == 2


def test_an_alert_fires_by_being_there() -> None:
    assert Alerts(id="noc", kind="alerts", value="ALERTS{$cohort}").firing_since([(1, 1), (2, 1)]) == 1


def test_a_series_is_gone_only_if_its_target_was_reached_since() -> None:
    assert gone_since(10.0, (8.0, 9.0, 10.0)) is None
    assert gone_since(10.0, (9.0, 10.0, 11.0, 12.0)) == 10.0
    assert gone_since(None, (9.0, 10.0)) is None
    assert gone_since(10.0, ()) is None


def test_a_third_of_control_makes_a_sign_the_fleets() -> None:
    nine = [f"k{n}" for n in range(9)]
    assert not is_everybodys(["canary", "k1", "k2"], nine)
    assert is_everybodys(["canary", "k1", "k2", "k3"], nine)
    assert is_everybodys(["k1"], ["k1", "k2", "k3"])
    assert not is_everybodys(["canary"], nine)
    assert not is_everybodys(["canary"], [])


def followed(values: Sequence[float], span: float = 300, step: float = 15) -> Level:
    level = None
    for number, value in enumerate(values):
        level = follow(level, number * step, value, span)
    assert level is not None
    return level


RATIO = GaugeRatio(id="cpu", kind="gauge_ratio", value="cpu{$cohort}", floor=0.5)
LEAK = Slope(id="leak", kind="slope", value="fds{$cohort}", floor_per_minute=1)


def test_the_worst_canary_is_compared_with_the_median_control() -> None:
    levels = [followed([value] * 21) for value in (4.0, 2.0, 1.0, 2.0, 90.0)]
    found = RATIO.verdict_on(levels[:2], levels[2:])
    assert found is not None
    assert (found.verdict, found.numbers["ratio"]) == (GateVerdict.UNHEALTHY, 2)
    assert RATIO.verdict_on(levels, []) is None
    assert RATIO.verdict_on([followed([0.4] * 21)], levels) is None


def test_a_gauge_is_believed_only_after_its_span() -> None:
    young, old = followed([2.0] * 5), followed([2.0] * 21)
    assert settled({"young": young, "old": old}, ["young", "old", "unknown"], 300) == [old]


def test_one_wild_sample_moves_no_level_far_and_a_lasting_one_does() -> None:
    assert followed([1.0] * 20 + [50.0]).quick < 1.1
    assert followed([1.0] * 20 + [3.0] * 20).quick > 2.2


@given(st.floats(0.5, 15), st.floats(300, 500))
def test_steady_growth_is_measured_as_it_is(per_minute: float, start: float) -> None:
    level = followed([start + per_minute * n / 4 for n in range(120)], span=1200)
    assert level.growth * 60 == pytest.approx(per_minute, rel=0.01)


def test_a_leak_stands_out_from_every_control_and_from_one_wild_sample() -> None:
    chance = random.Random(5)
    steady = [400 + chance.gauss(0, 5) for _ in range(80)]
    leaking = [value + n / 4 * 10 for n, value in enumerate(steady)]
    leaking[7] = 9000.0
    calm, bad = followed(steady, span=1200), followed(leaking, span=1200)
    found = LEAK.verdict_on([bad], [calm])
    assert found is not None
    assert found.verdict is GateVerdict.UNHEALTHY
    assert found.numbers["canary_per_minute"] == pytest.approx(10, abs=3)
    assert LEAK.verdict_on([calm], [bad]).verdict is GateVerdict.HEALTHY  # type: ignore[union-attr]
    assert LEAK.verdict_on([calm], []).verdict is GateVerdict.HEALTHY  # type: ignore[union-attr]
    assert LEAK.verdict_on([], [calm]) is None


def run_placebo(bad: dict[str, int], controls: int = 5, ticks: int = 40) -> dict[str, SleState]:
    control = tuple(f"k{n}" for n in range(controls))
    states: dict[str, SleState] = {}
    for _ in range(ticks):
        seen = {name: (8, bad.get(name, 0)) for name in control}
        states = placebo_step(states, seen, control, Margin(), 120, 20)
    return states


def test_an_uneven_fleet_is_recognised_by_its_controls() -> None:
    states = run_placebo({"k2": 3})
    assert evidence_of(states["k2"]).equal > 1e6
    assert evidence_of(states["k1"]).equal < 1
    excesses = [evidence_of(state).excess for state in states.values()]
    assert not stands_out(0.4, excesses)
    assert stands_out(0.9, excesses)


def test_too_few_controls_make_no_placebo() -> None:
    assert run_placebo({}, controls=3) == {}
