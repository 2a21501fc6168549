"""What a fleet's logins can prove, as the plan says it, against windows that were really folded."""

import random
from pathlib import Path
from statistics import median

import pytest

from activities.files import load
from policies.judge.offline.predict import what_logins_prove
from policies.judge.tick import Tick
from policies.judge.window import WindowState, fold_tick
from policies.model.gates import GatePolicy
from policies.model.verdict import Action, Cohorts

SHIPPED = load(Path(__file__).parents[2] / "deploy/prometheus/gates.yaml", GatePolicy)
ALONE = SHIPPED.model_copy(
    update={"min_controls": 1, "gates": (SHIPPED.gates[0].model_copy(update={"placebo": False}),)}
)
COHORTS = Cohorts(canary=("canary",), control=("control",))


def watched(per_minute: float, bad: float, seed: int) -> tuple[Action, float]:
    """Fold one window of one canary and nine controls at this rate; return how and when it ended."""
    chance, state = random.Random(seed), WindowState()

    def events(gateways: int, share: float) -> tuple[int, int]:
        tries = int(per_minute * gateways * 5)
        total = sum(chance.random() < 0.05 for _ in range(tries))
        return total, sum(chance.random() < share for _ in range(total))

    for number in range(242):
        row = {"canary": events(1, bad), "control": events(9, 0.015)}
        tick = Tick(
            at=1000.0 + 15 * number, counts={"connect-success": row}, baseline={"connect-success": (400, 6)}
        )
        state, decision = fold_tick(ALONE, ALONE.window, COHORTS, state, tick)
        if decision.action in {Action.PROMOTE, Action.ROLL_BACK, Action.HOLD_FOR_HUMAN}:
            break
    return decision.action, state.wall


@pytest.mark.parametrize("rate", [5, 15, 30])
def test_what_the_plan_says_of_a_rate_is_what_windows_take(rate: float) -> None:
    (proof,) = what_logins_prove(ALONE, (rate,), controls=9)
    healthy = median(wall for _, wall in (watched(rate, 0.015, seed) for seed in range(31)))
    bad = median(wall for _, wall in (watched(rate, 0.215, seed) for seed in range(21)))
    assert proof.rollback_after is not None
    assert 0.5 < proof.rollback_after.total_seconds() / bad < 2
    assert proof.healthy_after is not None
    assert 0.8 < proof.healthy_after.total_seconds() / healthy < 1.2


def test_what_cannot_be_decided_within_the_cap_is_said_with_what_to_change() -> None:
    (proof,) = what_logins_prove(ALONE, (1,), controls=9)
    assert proof.healthy_after is None
    assert proof.sentence.startswith(
        "1 logins a minute on a gateway cannot prove a release healthy within 60 min"
    )
    assert "times as many canaries" in proof.sentence


def test_nothing_is_promised_before_the_windows_minimum() -> None:
    (proof,) = what_logins_prove(ALONE, (1000,), controls=9)
    assert proof.healthy_after == ALONE.window.minimum


def test_more_logins_never_take_longer_to_prove_anything() -> None:
    proofs = what_logins_prove(ALONE, (5, 15, 30, 120), controls=9)
    for times in ([one.healthy_after for one in proofs], [one.rollback_after for one in proofs]):
        known = [time for time in times if time is not None]
        assert known == sorted(known, reverse=True)
        assert len(known) == len(proofs)
