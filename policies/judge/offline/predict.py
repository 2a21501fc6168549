"""Prediction: can this traffic decide in time, and what to change when it cannot?

Taken from the expected growth of the evidence per event: for the health proof of an equal
canary, and for the rollback of one that fails by a given drop. The figures are medians; half
of all windows take longer. Each event adds to the log of the evidence by the law that is true;
the sum is taken for Brownian, so that it first reaches what is needed (and the mixture's cost)
after an inverse Gaussian number of events. On simulated windows the medians agree within a fifth.
"""

from collections.abc import Sequence
from datetime import timedelta
from math import erfc, exp, inf, log, sqrt

from policies.judge.gates.counted import Counted
from policies.judge.health import BETTER, ODDS_FLOOR, Health
from policies.judge.sle import EFFECTS, FIRST_ONSET, odds_margin
from policies.model.gates import GatePolicy
from policies.model.value import Value

ASSUMED_SHARE = 0.015
"""Control's share of bad events where nobody knows better."""
TYPICAL_RATES = (5.0, 15.0, 30.0)
_DROP = 0.2


class Prediction(Value):
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


class Proof(Value):
    """What a rate of logins can prove: how long a decision takes, None where the window's cap comes first."""

    per_minute: float
    healthy_after: timedelta | None
    rollback_after: timedelta | None
    sentence: str


def what_logins_prove(
    policy: GatePolicy,
    rates: Sequence[float] = TYPICAL_RATES,
    *,
    canaries: int = 1,
    controls: int = 3,
    bad_share: float = ASSUMED_SHARE,
) -> tuple[Proof, ...]:
    """Return what the required gates can decide at each rate of first logins a minute and gateway.

    The slowest gate counts, and a promotion never comes before the window's minimum. Medians.
    """
    found = []
    for rate in rates:
        gates = predict(policy, rate, canaries=canaries, controls=controls, bad_share=bad_share)
        healthy = _slowest([one.healthy_after for one in gates], policy.window.cap)
        worse = _slowest([one.rollback_after for one in gates], policy.window.cap)
        at = f"{rate:g} logins a minute on a gateway"
        if healthy is None:
            advice = next((one.advice for one in gates if one.advice), "no gate is required")
            cap = _spoken(policy.window.cap)
            sentence = f"{at} cannot prove a release healthy within {cap}: {advice}"
        else:
            healthy = max(healthy, policy.window.minimum)
            sentence = f"{at} prove a release healthy after about {_spoken(healthy)}"
        bad = f"one on which a fifth more fail is turned round after about {_spoken(worse)}" if worse else ""
        sentence = f"{sentence}; {bad}" if bad else sentence
        found.append(Proof(per_minute=rate, healthy_after=healthy, rollback_after=worse, sentence=sentence))
    return tuple(found)


def _slowest(times: Sequence[timedelta | None], cap: timedelta) -> timedelta | None:
    known = [time for time in times if time is not None and time <= cap]
    return max(known) if known and len(known) == len(times) else None


def _spoken(length: timedelta) -> str:
    seconds = length.total_seconds()
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"  # noqa: PLR2004 - two minutes


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
    """Return where the sooner of both proofs is enough; each counts for half."""
    needed = log(2 / health.error)
    found = [
        _first_passage(
            _binomial(bad_share, log(part), log((1 - part * health.delta) / (1 - health.delta))),
            needed + log(len(BETTER)),
        )
        for part in BETTER
    ]
    if ratio:
        odds = odds_margin(bad_share, health.delta, ODDS_FLOOR)
        equal, worse = 1 / (1 + ratio), odds / (odds + ratio)
        step = _binomial(equal, log(equal / worse), log((1 - equal) / (1 - worse)))
        found.append(_first_passage(step, needed) / (bad_share * (1 + ratio)))
    return min(found)


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
    budget = policy.budget.overall or policy.budget.each_wave
    spread = log(len(EFFECTS) / FIRST_ONSET)
    bad = worse + bad_share * ratio
    part, mine = worse / bad, alternative / (alternative + ratio)

    def until(null: float, needed: float) -> float:
        theirs = null / (null + ratio)
        if not ratio or mine <= theirs:
            return inf
        step = _binomial(part, log(mine / theirs), log((1 - mine) / (1 - theirs)))
        return _first_passage(step, needed + spread) / bad

    return max(
        until(margin, log(1 / budget.margin)),
        until(1.0, log(1 / (budget.equal * gate.share))),
        gate.margin.min_bad / worse,
    )


def _binomial(chance: float, gain: float, loss: float) -> tuple[float, float]:
    """Return mean and variance of what one event adds: `gain` by this chance, `loss` otherwise."""
    return chance * gain + (1 - chance) * loss, chance * (1 - chance) * (gain - loss) ** 2


def _first_passage(step: tuple[float, float], needed: float) -> float:
    """Return the median number of steps until their sum reaches what is needed, as if it were Brownian."""
    mean, variance = step
    if mean <= 0:
        return inf
    spread = sqrt(variance)

    def passed(steps: float) -> float:
        """The inverse Gaussian law of first passage times (Schrödinger 1915)."""
        root = spread * sqrt(steps)
        late = -(mean * steps + needed) / root
        reflected = exp(2 * mean * needed / variance + log(_normal(late))) if _normal(late) > 0 else 0.0
        return _normal((mean * steps - needed) / root) + reflected

    least, most = 0.0, 2 * needed / mean
    while most - least > most / 1000:
        middle = (least + most) / 2
        least, most = (least, middle) if passed(middle) >= 1 / 2 else (middle, most)
    return most


def _normal(value: float) -> float:
    return erfc(-value / sqrt(2)) / 2


def _advice(
    policy: GatePolicy,
    gate: Counted,
    per_minute: float,
    ratio: float,
    bad_share: float,
) -> str:
    """Return what to change so that this gate can decide within the nominal window."""
    minutes, time = policy.window.nominal.total_seconds() / 60, _spoken(policy.window.nominal)
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
