"""The proof of health: what counts as one, and that it is rarely wrong."""

import random
from math import comb, isclose

from policies.judge.health import Health, HealthState, absolute, health_step, health_value
from policies.judge.sle import Counts

HEALTH = Health(delta=0.03)
NEEDED = 1 / HEALTH.error


def fold(rows: list[Counts], share: float, health: Health = HEALTH) -> HealthState:
    state = HealthState()
    for counts in rows:
        state = health_step(state, counts, share, health)
    return state


def test_a_fleet_without_any_failure_is_proven_healthy() -> None:
    state = fold([Counts(8, 0, 72, 0)] * 20, 0.001)
    assert state.conditional == 0
    assert health_value(state, HEALTH) >= NEEDED


def test_no_traffic_proves_nothing() -> None:
    assert health_value(fold([Counts(0, 0, 72, 1)] * 500, 0.015), HEALTH) < NEEDED


def test_a_proof_works_through_an_outage_both_share() -> None:
    state = fold([Counts(30, 9, 270, 81)] * 40, 0.3)
    assert absolute(state, HEALTH.delta) < 1
    assert health_value(state, Health(delta=0.1)) >= NEEDED


def mean_evidence(share: float, events: int, delta: float) -> float:
    """Return the expectation of the absolute evidence when this share is the true one."""
    return sum(
        comb(events, bad)
        * share**bad
        * (1 - share) ** (events - bad)
        * absolute(HealthState(counted=events, bad=bad), delta)
        for bad in range(events + 1)
    )


def test_the_absolute_evidence_has_mean_one_at_the_margin_and_less_beyond() -> None:
    for delta in (0.02, 0.2):
        for events in (1, 7, 40):
            assert isclose(mean_evidence(delta, events, delta), 1.0, rel_tol=1e-9)
            assert mean_evidence(delta * 1.5, events, delta) < 1


def test_bar_2_health_is_rarely_proven_at_exactly_its_margin() -> None:
    chance = random.Random(22)
    proven, runs = 0, 300
    for _ in range(runs):
        state = HealthState()
        for _ in range(120):
            bad = sum(chance.random() < 0.045 for _ in range(8))
            against = sum(chance.random() < 0.015 for _ in range(24))
            state = health_step(state, Counts(8, bad, 24, against), 0.015, HEALTH)
            if health_value(state, HEALTH) >= NEEDED:
                proven += 1
                break
    assert proven / runs <= 0.05
