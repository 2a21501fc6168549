"""Prediction: can this traffic decide in time, and what to change when it cannot?

Taken from the expected growth of the evidence per event: for the health proof of an equal
canary, and for the rollback of one that fails by a given drop. The figures are medians; half
of all windows take longer. Formulas: relative entropy per event of the two laws compared,
Wald's approximation n = (log needed + log of the mixture's cost) / entropy.
"""

from datetime import timedelta
from math import inf, log

from policies.gates import GatePolicy
from policies.judge.gates.counted import Counted
from policies.judge.health import BETTER, Health
from policies.judge.sle import EFFECTS, FIRST_ONSET, odds_margin
from policies.words.word import Word

ASSUMED_SHARE = 0.015
"""Control's share of bad events where nobody knows better."""
_DROP = 0.2


class Prediction(Word):
    """What one gate can do at this traffic: seconds are None where it would never decide."""

    gate: str
    events_per_minute: float
    healthy_after: timedelta | None
    rollback_after: timedelta | None
    in_time: bool
    advice: str = ""


def predict(
    policy: GatePolicy,
    attempts_per_minute: float,
    *,
    canaries: int = 1,
    controls: int = 3,
    bad_share: float = ASSUMED_SHARE,
) -> tuple[Prediction, ...]:
    """Return, for each required gate, when it will probably have decided.

    Args:
        policy: the gates.
        attempts_per_minute: first attempts a minute on one gateway.
        canaries: gateways of the wave.
        controls: gateways left as they are.
        bad_share: share of attempts that fail on control.
    """
    return tuple(
        _predicted(policy, gate, attempts_per_minute * canaries, controls / canaries, bad_share)
        for gate in policy.gates
        if isinstance(gate, Counted) and gate.required
    )


def _predicted(
    policy: GatePolicy, gate: Counted, per_minute: float, ratio: float, bad_share: float
) -> Prediction:
    healthy = _after(events_to_health(gate, ratio, bad_share), per_minute)
    worse = _after(events_to_rollback(policy, gate, ratio, bad_share), per_minute)
    in_time = healthy is not None and healthy <= policy.window.nominal
    return Prediction(
        gate=gate.id,
        events_per_minute=per_minute,
        healthy_after=healthy,
        rollback_after=worse,
        in_time=in_time,
        advice="" if in_time else _advice(policy, gate, per_minute, ratio, bad_share),
    )


def _after(events: float, per_minute: float) -> timedelta | None:
    minutes = events / per_minute if per_minute > 0 else inf
    return timedelta(minutes=minutes) if minutes < 7 * 24 * 60 else None


def events_to_health(gate: Counted, ratio: float, bad_share: float) -> float:
    """Return how many canary events an equal canary needs, median, until it is proven healthy."""
    return inf if gate.health is None else _events_to_prove(gate.health, ratio, bad_share)


def _events_to_prove(health: Health, ratio: float, bad_share: float) -> float:
    delta, needed = health.delta, log(2 / health.error)
    odds = odds_margin(bad_share, delta, 1.5)
    conditional = needed / max(_conditional_gain(bad_share, ratio, 1.0, odds), 1e-12)
    gains = [_binomial_gain(bad_share, part * delta, delta) for part in BETTER]
    absolute = (needed + log(len(BETTER))) / max(*gains, 1e-12)
    return min(conditional, absolute)


def events_to_rollback(
    policy: GatePolicy,
    gate: Counted,
    ratio: float,
    bad_share: float,
    drop: float = _DROP,
) -> float:
    """Return how many canary events one that fails by `drop` needs, median, until it is rolled back."""
    worse = min(bad_share + drop, 0.99)
    odds = worse / (1 - worse) * (1 - bad_share) / max(bad_share, gate.margin.delta / 2)
    margin = odds_margin(bad_share, gate.margin.delta, gate.margin.odds_floor)
    alternative = min((margin * effect for effect in EFFECTS), key=lambda a: abs(log(a / odds)))
    alpha = policy.budget.alpha_equal * gate.share / policy.budget.waves
    spread = log(len(EFFECTS) / FIRST_ONSET)
    against_margin = max(_mixed_gain(bad_share, worse, ratio, alternative, margin), 1e-12)
    against_equal = max(_mixed_gain(bad_share, worse, ratio, alternative, 1.0), 1e-12)
    at_margin = (log(1 / policy.budget.alpha_margin) + spread) / against_margin
    at_equal = (log(1 / alpha) + spread) / against_equal
    return max(at_margin, at_equal, gate.margin.min_bad / worse)


def _conditional_gain(share: float, ratio: float, true_odds: float, null_odds: float) -> float:
    """Return the evidence per canary event of an equal canary against the null odds ratio."""
    part_true = true_odds / (true_odds + ratio)
    part_null = null_odds / (null_odds + ratio)
    bad_per_event = share * (1 + ratio)
    return bad_per_event * _entropy(part_true, part_null)


def _mixed_gain(share: float, worse: float, ratio: float, alternative: float, null: float) -> float:
    """Return the evidence per canary event when the canary fails with `worse`."""
    bad = worse + share * ratio
    part = worse / bad
    a, n = alternative / (alternative + ratio), null / (null + ratio)
    return bad * (part * log(a / n) + (1 - part) * log((1 - a) / (1 - n)))


def _entropy(p: float, q: float) -> float:
    return p * log(p / q) + (1 - p) * log((1 - p) / (1 - q))


def _binomial_gain(share: float, better: float, delta: float) -> float:
    return share * log(better / delta) + (1 - share) * log((1 - better) / (1 - delta))


def _advice(
    policy: GatePolicy,
    gate: Counted,
    per_minute: float,
    ratio: float,
    bad_share: float,
) -> str:
    """Return what to change so that this gate can decide within the nominal window."""
    minutes = policy.window.nominal.total_seconds() / 60
    time = f"{minutes:.0f} min" if minutes >= 2 else f"{minutes * 60:.0f} s"  # noqa: PLR2004 - two minutes
    if per_minute <= 0:
        return f"{gate.id} cannot be decided without traffic: approve by hand, or choose a busier hour"
    needed = events_to_health(gate, ratio, bad_share)
    at = f"{gate.id} cannot be decided in {time} at {per_minute:.0f} first attempts a minute"
    times = needed / (per_minute * minutes)
    ways = [f"take {min(times + 1, 99):.0f} times as many canaries"] if times < inf else []
    for points in (3, 5, 8, 10, 15, 20):
        wider = Health(delta=points / 100)
        needed = _events_to_prove(wider, ratio, bad_share)
        if gate.health and wider.delta > gate.health.delta and needed <= per_minute * minutes:
            ways.insert(0, f"widen health.delta to {points} points")
            break
    return f"{at}: {', '.join([*ways, 'or approve by hand'])}"
