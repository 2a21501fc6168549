"""SLE: is the canary's share of bad events worse than control's, judged anew at every scrape?

A stratified conditional likelihood-ratio e-process. Each scrape is a stratum: given how many
events each side counted and how many of them were bad on both sides together, the canary's
part of the bad ones follows Fisher's noncentral hypergeometric law, whatever the level of
failures both share. So an outage common to both carries no evidence, and looking at every
scrape costs nothing (Ville's inequality).

Source: ter Schure, Pérez-Ortiz, Ly, Grünwald, "The anytime-valid logrank test", NEJSDS 2(2)
2024 (arXiv 2011.06931); mixture over onsets after Shin, Ramdas, Rinaldo, "E-detectors"
(arXiv 2203.03532). The margin, the cap and the spending of onset weight together are ours.
"""

from dataclasses import dataclass, replace
from datetime import timedelta
from functools import lru_cache
from math import exp, lgamma, log

from pydantic import Field

from policies.model.value import Duration, Value

EFFECTS = (2.0, 5.0, 15.0, 50.0)
"""Odds ratios, beyond the margin, of the alternatives that are mixed."""
_LOG_EFFECTS = tuple(log(effect) for effect in EFFECTS)
CAP = 3.0
"""Most evidence (log) one scrape may add, so that no freak scrape decides alone."""
ONSET_EVERY = 8
"""Scrapes between the moments at which the canary may have turned bad."""
FIRST_ONSET = 0.4
"""Weight of having been bad from the first scrape."""
MEMORY = 0.98
"""What is kept per scrape of control's past when its share is estimated."""
PRIOR = 400.0
"""Most control events the past before the window counts for."""
_CEILING = 1e250
_ROUNDED = 2.0**-50
"""The share of a value that a step's rounding may change: four times what one operation does (IEEE 754)."""
_MOST_WRONG = 1e-9
"""By how much an e-value may be wrong that is folded on: weights of onsets are a thousandth and more."""
_SAFE_EXPONENT = 300.0
_FEW = 40
_MOST = 100_000


class Margin(Value):
    """How much worse than control is too bad, and the plain guards beside the statistics.

    `delta` is a difference of shares (0.01 is one point); the odds ratio that follows from it
    is never below `odds_floor`. The guards look at the last `over` of observed scrapes.
    """

    delta: float = Field(default=0.010, gt=0, lt=1)
    """Difference of shares that is too bad: 0.01 is one point in a hundred."""
    odds_floor: float = Field(default=1.5, gt=1)
    """Odds ratio that is too bad at least, where shares are small."""
    min_excess: float = Field(default=0.02, ge=0, lt=1)
    """Recent difference of shares below which nothing is rolled back."""
    min_bad: int = Field(default=4, ge=1)
    """Recent bad events on the canary, at least."""
    min_ticks: int = Field(default=2, ge=1)
    """Recent scrapes with bad events, at least."""
    over: Duration = timedelta(minutes=5)
    """What counts as recent, twenty scrapes at most."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Events of one scrape: how many were counted, how many of them bad, on each side."""

    canary: int
    canary_bad: int
    control: int
    control_bad: int


@dataclass(frozen=True, slots=True)
class SleState:
    """Everything the rule remembers; exact through JSON."""

    ticks: int
    later_onsets: int
    baseline: float
    baseline_bad: float
    margin: tuple[float, ...] = (0.0,) * len(EFFECTS)
    equal: tuple[float, ...] = (0.0,) * len(EFFECTS)
    unspent: float = 1.0
    recent: tuple[tuple[int, int, int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Evidence:
    """What speaks against the canary: two e-values and the plain numbers of the recent scrapes."""

    margin: float
    equal: float
    canary_share: float
    control_share: float
    canary_bad: int
    bad_ticks: int
    canary_total: int
    control_total: int

    @property
    def excess(self) -> float:
        """Points of share by which the canary was worse than control recently."""
        return self.canary_share - self.control_share


def proven_worse(state: SleState, margin: Margin, alpha_margin: float, alpha_equal: float) -> bool:
    """Whether the canary is worse beyond doubt: both e-values are large enough, and every guard agrees."""
    evidence = sum(state.equal) / len(EFFECTS) + state.unspent
    if evidence * alpha_equal < 1 or (sum(state.margin) / len(EFFECTS) + state.unspent) * alpha_margin < 1:
        return False
    seen = evidence_of(state)
    return (
        seen.canary_bad >= margin.min_bad
        and seen.bad_ticks >= margin.min_ticks
        and seen.excess >= margin.min_excess
    )


@lru_cache(maxsize=65536)
def _weights(canary: int, control: int, bad: int) -> tuple[int, float, tuple[float, ...]]:
    """Return the least part x of `bad` the canary can have, a log scale, and the ways for each x over it.

    Raises:
        OverflowError: There are more ways than can be weighed, and than gateways have between two scrapes.
    """
    lowest, highest = max(0, bad - control), min(canary, bad)
    if highest - lowest > _MOST:
        raise OverflowError(f"{bad} bad of {canary + control} events in one scrape")
    if highest - lowest <= _FEW:
        weight, weights = 1.0, [1.0]
        for x in range(lowest, highest):
            weight *= (canary - x) * (bad - x) / ((x + 1) * (control - bad + x + 1))
            weights.append(weight)
        return lowest, _log_ways(canary, lowest) + _log_ways(control, bad - lowest), tuple(weights)
    logs = [_log_ways(canary, x) + _log_ways(control, bad - x) for x in range(lowest, highest + 1)]
    scale = max(logs)
    return lowest, scale, tuple(exp(value - scale) for value in logs)


def _log_ways(of: int, chosen: int) -> float:
    return lgamma(of + 1) - lgamma(chosen + 1) - lgamma(of - chosen + 1)


def log_z(canary: int, control: int, bad: int, log_odds: float) -> float:
    """Return the log normaliser of Fisher's noncentral hypergeometric law.

    log of the sum over x of C(canary, x) C(control, bad - x) odds^x.
    """
    lowest, scale, weights = _weights(canary, control, bad)
    return scale + lowest * log_odds + _log_sum(weights, log_odds)


def _log_sum(weights: tuple[float, ...], log_odds: float) -> float:
    """Return the log of the sum of weights[x] odds^x."""
    if len(weights) * abs(log_odds) < _SAFE_EXPONENT:
        odds, total = exp(log_odds), 0.0
        for weight in reversed(weights):
            total = total * odds + weight
        if total > 0.0:
            return log(total)
    terms = [log(weight) + x * log_odds for x, weight in enumerate(weights) if weight > 0.0]
    peak = max(terms)
    return peak + log(sum(exp(term - peak) for term in terms))


def log_e(counts: Counts, log_null: float, log_alternative: float) -> float:
    """Return the log likelihood ratio of one scrape for one odds ratio against another."""
    bad = counts.canary_bad + counts.control_bad
    if bad == 0 or counts.canary == 0 or counts.control == 0:
        return 0.0
    return (
        counts.canary_bad * (log_alternative - log_null)
        + log_z(counts.canary, counts.control, bad, log_null)
        - log_z(counts.canary, counts.control, bad, log_alternative)
    )


def odds_margin(share: float, delta: float, floor: float) -> float:
    """Return the odds ratio of being worse than `share` by `delta`, never below `floor`.

    Below half of delta a share counts as half of delta: a fleet without failures would
    otherwise tolerate any odds ratio at all.
    """
    base = min(max(share, delta / 2), 1 - delta - 1e-6)
    worse = base + delta
    return max(floor, (worse / (1 - worse)) / (base / (1 - base)))


def sle_init(horizon: int, baseline: int = 0, baseline_bad: int = 0) -> SleState:
    """Start a window of at most `horizon` scrapes, knowing control's events before it.

    The horizon is fixed by the window's cap and never extended: the bound rests on it.
    """
    scale = min(1.0, PRIOR / baseline) if baseline else 0.0
    return SleState(
        ticks=0,
        later_onsets=max(1, (horizon - 1) // ONSET_EVERY),
        baseline=baseline * scale,
        baseline_bad=baseline_bad * scale,
    )


def sle_step(state: SleState, counts: Counts, margin: Margin, memory: int) -> SleState:
    """Fold one scrape; `memory` is how many recent scrapes the guards look at.

    The margin used for this scrape comes from scrapes before it only, so it is predictable.
    """
    weight = _onset_weight(state)
    at_margin, at_equal = state.margin, state.equal
    if weight:
        at_margin = tuple(value + weight for value in at_margin)
        at_equal = tuple(value + weight for value in at_equal)
    if counts.canary and counts.control and counts.canary_bad + counts.control_bad:
        share = baseline_share(state, margin.delta)
        log_margin = log(odds_margin(share, margin.delta, margin.odds_floor))
        at_margin, at_equal = _weigh(counts, log_margin, at_margin, at_equal)
    row = (counts.canary, counts.canary_bad, counts.control, counts.control_bad)
    return SleState(
        ticks=state.ticks + 1,
        later_onsets=state.later_onsets,
        baseline=state.baseline * MEMORY + counts.control,
        baseline_bad=state.baseline_bad * MEMORY + counts.control_bad,
        margin=at_margin,
        equal=at_equal,
        unspent=max(0.0, state.unspent - weight),
        recent=(*state.recent[-memory + 1 :], row) if memory > 1 else (row,),
    )


def sle_rewound(state: SleState, margin: Margin) -> SleState | None:
    """Return the state before its recent scrapes, so that they can be folded otherwise.

    Exact but for rounding, since a step only multiplies and adds. None where a step was cut off at the
    ceiling, or has made a value so small beside what was added later that dividing by it is to divide what
    was rounded: neither can be undone.
    """
    if max(*state.margin, *state.equal) >= _CEILING:
        return None
    nothing = (0.0,) * len(EFFECTS)
    wrong_margin, wrong_equal = nothing, nothing
    for canary, canary_bad, control, control_bad in reversed(state.recent):
        before = replace(
            state,
            ticks=state.ticks - 1,
            baseline=max(0.0, (state.baseline - control) / MEMORY),
            baseline_bad=max(0.0, (state.baseline_bad - control_bad) / MEMORY),
        )
        weight, ones = _onset_weight(before), (1.0,) * len(EFFECTS)
        grown_margin, grown_equal = ones, ones
        if canary and control and canary_bad + control_bad:
            odds = odds_margin(baseline_share(before, margin.delta), margin.delta, margin.odds_floor)
            counts = Counts(canary, canary_bad, control, control_bad)
            grown_margin, grown_equal = _weigh(counts, log(odds), ones, ones)
        if not (min(grown_margin) and min(grown_equal)):
            return None
        wrong_margin = _wrong(wrong_margin, state.margin, grown_margin)
        wrong_equal = _wrong(wrong_equal, state.equal, grown_equal)
        state = replace(
            before,
            margin=_shrunk(state.margin, grown_margin, weight),
            equal=_shrunk(state.equal, grown_equal, weight),
            unspent=state.unspent + weight,
        )
    if state.ticks == 0:  # nothing was folded before the first scrape
        return replace(state, margin=nothing, equal=nothing, unspent=1.0, recent=())
    return replace(state, recent=()) if max(*wrong_margin, *wrong_equal) <= _MOST_WRONG else None


def _wrong(
    wrong: tuple[float, ...], values: tuple[float, ...], grown: tuple[float, ...]
) -> tuple[float, ...]:
    """Return by how much values may be wrong once divided, which may have been wrong so much before."""
    each = zip(wrong, values, grown, strict=True)
    return tuple((before + _ROUNDED * value) / by for before, value, by in each)


def _shrunk(values: tuple[float, ...], grown: tuple[float, ...], weight: float) -> tuple[float, ...]:
    return tuple(max(0.0, value / by - weight) for value, by in zip(values, grown, strict=True))


def _weigh(
    counts: Counts, log_margin: float, at_margin: tuple[float, ...], at_equal: tuple[float, ...]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Multiply each alternative's e-values by this scrape's, capped."""
    bad = counts.canary_bad + counts.control_bad
    lowest, _, weights = _weights(counts.canary, counts.control, bad)
    more = counts.canary_bad - lowest
    null_margin = _log_sum(weights, log_margin) - more * log_margin
    null_equal = _log_sum(weights, 0.0)
    margins, equals = [], []
    for log_effect, was_margin, was_equal in zip(_LOG_EFFECTS, at_margin, at_equal, strict=True):
        alternative = log_margin + log_effect
        gain = more * alternative - _log_sum(weights, alternative)
        margins.append(_grown(was_margin, gain + null_margin))
        equals.append(_grown(was_equal, gain + null_equal))
    return tuple(margins), tuple(equals)


def _grown(value: float, evidence: float) -> float:
    return min(value * exp(min(CAP, evidence)), _CEILING)


def _onset_weight(state: SleState) -> float:
    """Return the weight given to "bad from this scrape on": most at the start, then less and less.

    The weights of a window sum to one. They fall as 1 / (k + 1), so that a longer cap costs
    early onsets little: even weights made an hour's window slower at ten minutes (bench).
    """
    if state.ticks == 0:
        return FIRST_ONSET
    onset, rest = divmod(state.ticks, ONSET_EVERY)
    if rest or onset > state.later_onsets:
        return 0.0
    return (1 - FIRST_ONSET) / (onset + 1) / _falling(state.later_onsets)


@lru_cache(maxsize=64)
def _falling(onsets: int) -> float:
    return sum(1 / (onset + 1) for onset in range(1, onsets + 1))


def baseline_share(state: SleState, delta: float) -> float:
    """Return control's share of bad events before this scrape; half of delta when nothing is known."""
    return state.baseline_bad / state.baseline if state.baseline >= 1 else delta / 2


def evidence_of(state: SleState) -> Evidence:
    """Return what the folded scrapes say."""
    rows = state.recent or ((0, 0, 0, 0),)
    canary, canary_bad, control, control_bad = (sum(column) for column in zip(*rows, strict=True))
    return Evidence(
        margin=sum(state.margin) / len(EFFECTS) + state.unspent,
        equal=sum(state.equal) / len(EFFECTS) + state.unspent,
        canary_share=canary_bad / canary if canary else 0.0,
        control_share=control_bad / control if control else 0.0,
        canary_bad=canary_bad,
        bad_ticks=sum(bad > 0 for _, bad, _, _ in rows),
        canary_total=canary,
        control_total=control,
    )
