"""The rule's arithmetic against scipy, and what it promises."""

import random
from math import exp, isclose, log

import pytest
from pydantic import TypeAdapter
from scipy.stats import nchypergeom_fisher

from policies.judge.sle import (
    EFFECTS,
    Counts,
    Margin,
    SleState,
    evidence_of,
    log_e,
    odds_margin,
    proven_worse,
    sle_init,
    sle_step,
)

MARGIN = Margin()


def test_bar_8_evidence_equals_scipys_noncentral_hypergeometric_on_a_thousand_tables() -> None:
    chance, compared = random.Random(8), 0
    while compared < 1000:
        canary, control = chance.randint(1, 120), chance.randint(1, 900)
        bad = chance.randint(1, min(60, canary + control))
        null, other = exp(chance.uniform(-1, 2)), exp(chance.uniform(-1, 5))
        ours = chance.randint(max(0, bad - control), min(canary, bad))
        oracle = nchypergeom_fisher.logpmf(
            ours, canary + control, canary, bad, other
        ) - nchypergeom_fisher.logpmf(ours, canary + control, canary, bad, null)
        if oracle != oracle or abs(oracle) == float("inf"):  # noqa: PLR0124 - scipy underflows far out
            continue
        compared += 1
        mine = log_e(Counts(canary, ours, control, bad - ours), log(null), log(other))
        assert isclose(mine, oracle, rel_tol=1e-9, abs_tol=1e-9)
    assert compared >= 1000


def test_bar_8_evidence_at_the_null_has_mean_one() -> None:
    chance = random.Random(9)
    for _ in range(200):
        canary, control = chance.randint(1, 40), chance.randint(1, 300)
        bad = chance.randint(1, min(25, canary + control))
        null, other = exp(chance.uniform(0, 1)), exp(chance.uniform(1, 4))
        mean = sum(
            nchypergeom_fisher.pmf(x, canary + control, canary, bad, null)
            * exp(log_e(Counts(canary, x, control, bad - x), log(null), log(other)))
            for x in range(max(0, bad - control), min(canary, bad) + 1)
        )
        assert isclose(mean, 1.0, rel_tol=1e-9)


def test_many_bad_events_are_weighed_without_overflow() -> None:
    counts = Counts(500, 400, 4500, 1200)
    oracle = nchypergeom_fisher.logpmf(400, 5000, 500, 1600, 3.0) - nchypergeom_fisher.logpmf(
        400, 5000, 500, 1600, 1.5
    )
    assert isclose(log_e(counts, log(1.5), log(3.0)), oracle, rel_tol=1e-6)
    assert (
        log_e(Counts(500, 160, 4500, 1440), 0.0, log(90))
        < 0
        < log_e(Counts(500, 500, 4500, 2250), 0.0, log(90))
    )


def test_an_outage_shared_by_both_sides_is_no_evidence() -> None:
    state = sle_init(120, 400, 6)
    for _ in range(40):
        state = sle_step(state, Counts(8, 3, 72, 27), MARGIN, 20)
    assert not proven_worse(state, MARGIN, 0.05, 0.005)
    assert evidence_of(state).equal < 1


@pytest.mark.parametrize("bad", [20, 200, 2000])
def test_one_freak_scrape_never_rolls_back_alone(bad: int) -> None:
    state = sle_init(120, 400, 6)
    for _ in range(10):
        state = sle_step(state, Counts(bad, 0, 9 * bad, 0), MARGIN, 20)
    state = sle_step(state, Counts(bad, bad, 9 * bad, 0), MARGIN, 20)
    for _ in range(5):
        state = sle_step(state, Counts(bad, 0, 9 * bad, bad // 10), MARGIN, 20)
        assert not proven_worse(state, MARGIN, 0.05, 0.005)


def test_the_weights_of_all_onsets_add_up_to_one() -> None:
    for horizon in (20, 90, 120, 240, 500):
        state = sle_init(horizon)
        for _ in range(horizon):
            state = sle_step(state, Counts(1, 0, 1, 0), MARGIN, 20)
        assert isclose(sum(state.equal) / len(EFFECTS) + state.unspent, 1.0)
        assert state.unspent < 1e-9


def test_ticks_after_the_horizon_spend_nothing() -> None:
    state = sle_init(16)
    for _ in range(100):
        state = sle_step(state, Counts(1, 0, 1, 0), MARGIN, 20)
    assert evidence_of(state).equal == pytest.approx(1.0)


def test_a_state_survives_json_to_the_last_bit() -> None:
    chance, as_json = random.Random(3), TypeAdapter(SleState)
    state = sle_init(120, 400, 6)
    for _ in range(60):
        state = sle_step(state, Counts(8, chance.randint(0, 3), 70, chance.randint(0, 4)), MARGIN, 20)
        assert as_json.validate_json(as_json.dump_json(state)) == state


def test_a_side_without_events_is_no_evidence() -> None:
    state = sle_init(120)
    for _ in range(30):
        state = sle_step(state, Counts(8, 8, 0, 0), MARGIN, 20)
    assert evidence_of(state).equal == pytest.approx(1.0)
    assert not proven_worse(state, MARGIN, 0.05, 0.005)


def test_a_fleet_without_failures_does_not_tolerate_any_odds() -> None:
    assert odds_margin(0.0, 0.01, 1.5) == odds_margin(0.005, 0.01, 1.5) < 3.1
    assert odds_margin(0.5, 0.01, 1.5) == 1.5
    assert odds_margin(0.999, 0.01, 1.5) >= 1.5


def test_the_margin_of_a_scrape_ignores_that_scrape() -> None:
    before = sle_init(120, 400, 6)
    calm = sle_step(before, Counts(8, 4, 72, 1), MARGIN, 20)
    assert calm.baseline_bad == before.baseline_bad * 0.98 + 1
    assert before.baseline == 400
