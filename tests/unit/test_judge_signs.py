"""Hard signs, gauges, slopes and the placebo guard."""

import random
from collections.abc import Sequence
from math import log

import pytest

from policies.judge.gates.alerts import Alerts
from policies.judge.gates.gauge_ratio import log_ratio, mean_ratio
from policies.judge.gates.hard import Fires, Hard, gone_since
from policies.judge.gates.signs import is_everybodys
from policies.judge.gates.slope import leaks, theil_sen
from policies.judge.placebo import excess_of, placebo_step, stands_out
from policies.judge.sle import Margin, SleState, evidence_of

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


def test_the_worst_canary_is_compared_with_the_median_control() -> None:
    values = {"a": 4.0, "b": 2.0, "k1": 1.0, "k2": 2.0, "k3": 90.0}
    assert log_ratio(values, ["a", "b"], ["k1", "k2", "k3"]) == pytest.approx(log(2))
    assert log_ratio(values, ["a"], ["nobody"]) is None
    assert log_ratio({"a": 0.0, "k1": 1.0}, ["a"], ["k1"]) is None


def test_a_gauge_is_judged_only_over_a_whole_span() -> None:
    points = [(float(t), log(2)) for t in range(0, 301, 15)]
    assert mean_ratio(points, 300) == pytest.approx(2)
    assert mean_ratio(points[:5], 300) is None
    spike = [*points[:-1], (300.0, log(50))]
    assert mean_ratio(spike, 300) == pytest.approx(2.35, abs=0.1)


def test_a_leak_stands_out_from_every_control_and_from_one_wild_sample() -> None:
    chance = random.Random(5)
    steady = [(60.0 * n, 400 + chance.gauss(0, 5)) for n in range(20)]
    leaking = [(at, value + at / 60 * 10) for at, value in steady]
    leaking[7] = (leaking[7][0], 9000.0)
    assert theil_sen(leaking) * 60 == pytest.approx(10, abs=2)
    assert leaks(10, [0.5, 1.0, 0.2], 1)
    assert not leaks(10, [0.5, 11.0, 0.2], 1)
    assert not leaks(2, [0.9, 0.8, 1.0], 1)
    assert not leaks(0.5, [0.0, 0.0], 1)
    assert not leaks(0.5, [], 1)


def run_placebo(bad: dict[str, int], controls: int = 5, ticks: int = 40) -> dict[str, SleState]:
    control = tuple(f"k{n}" for n in range(controls))
    states: dict[str, SleState] = {}
    for _ in range(ticks):
        seen = {name: (8, bad.get(name, 0)) for name in control}
        states = placebo_step(states, seen, control, Margin(), horizon=120, memory=20)
    return states


def test_an_uneven_fleet_is_recognised_by_its_controls() -> None:
    states = run_placebo({"k2": 3})
    assert evidence_of(states["k2"]).equal > 1e6
    assert evidence_of(states["k1"]).equal < 1
    excesses = {name: excess_of(state) for name, state in states.items()}
    assert not stands_out(0.4, excesses)
    assert stands_out(0.9, excesses)


def test_too_few_controls_make_no_placebo() -> None:
    assert run_placebo({}, controls=3) == {}
