"""Leases are long enough for the engine and short enough for users."""

from datetime import timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from policies.model.errors import Refused
from policies.model.fleet import LONGEST_LEASE, Limits
from policies.model.plan import Strategy
from policies.planning.leases import REPEATED, SHORTEST_BEAT, beat_of, lease_of, steps_per_second
from tests.unit.fleets import Facts, any_facts, facts_of, planned, some_plan

SHORT = timedelta(seconds=120)
sizes = st.integers(1, 30_000)


@given(sizes, sizes, st.integers(5, 900).map(lambda s: timedelta(seconds=s)))
def test_renewals_and_beats_together_stay_under_what_the_engine_is_given(
    gateways: int, draining: int, at_least: timedelta
) -> None:
    try:
        lease = lease_of(gateways, draining, at_least)
    except Refused:
        return
    assert at_least <= lease <= LONGEST_LEASE
    assert beat_of(draining) >= SHORTEST_BEAT
    assert steps_per_second(gateways, lease, draining) < REPEATED


@example(8_410, 717)
@given(sizes, sizes)
def test_a_refused_wave_is_told_the_largest_size_that_fits(gateways: int, draining: int) -> None:
    try:
        lease_of(gateways, draining, SHORT)
    except Refused as refused:
        fit = int(str(refused).split("at most ")[1].split()[0])
        assert fit < gateways
        assert lease_of(fit, draining, SHORT) <= LONGEST_LEASE
        with pytest.raises(Refused):
            lease_of(fit + 1, draining, SHORT)


def test_small_waves_have_the_fleets_lease_and_large_ones_a_longer_one() -> None:
    assert lease_of(50, 50, SHORT) == SHORT
    assert lease_of(7_500, 2_500, SHORT) == timedelta(minutes=13, seconds=24)
    assert lease_of(10_000, 0, SHORT) == timedelta(minutes=13, seconds=54)


def test_few_drains_beat_every_thirty_seconds_and_ten_thousand_every_twenty_minutes() -> None:
    assert beat_of(1) == timedelta(seconds=30)
    assert beat_of(10_000) == timedelta(seconds=1250)


@given(any_facts(), st.sampled_from(Strategy))
def test_no_wave_has_a_shorter_lease_than_the_fleet_wants(facts: Facts, strategy: Strategy) -> None:
    if plan := some_plan(facts, strategy):
        assert all(wave.lease >= plan.fleet.limits.lease for wave in plan.waves)


def test_every_wave_of_ten_thousand_keeps_the_engine_under_forty_steps_a_second() -> None:
    plan = planned(facts_of(10_000, Limits(draining=10_000), groups=20))
    before = 0
    for wave in plan.waves:
        assert steps_per_second(len(wave.gateways), wave.lease, before) < 40
        before += len(wave.gateways)
    assert before == 10_000
