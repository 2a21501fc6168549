"""The guard: what can be said of a release's share of bad events when nobody is left to compare with.

The share is held against a fixed limit, so an outage of everybody looks like a fault of the release;
whoever uses this must not roll back by it. Health is the absolute test of `health`; harm is an
e-process against "the share is at most the limit", begun anew whenever it falls below one (an
e-detector, Shin, Ramdas, Rinaldo, arXiv 2203.03532), so that a fault is found whenever it begins.
"""

from dataclasses import dataclass
from math import exp, log

from policies.judge.sle import CAP
from policies.model.verdict import Against

WORSE = (2.0, 5.0)
"""Shares, as multiples of the limit, that are mixed as alternatives; at most halfway to all."""
FEWEST_KNOWN = 50.0
"""Events of a baseline below which it says nothing."""
_CEILING = 1e250


@dataclass(frozen=True, slots=True)
class Limit:
    """The share of bad events that is too much, and where it comes from."""

    share: float
    against: Against


@dataclass(frozen=True, slots=True)
class GuardState:
    """Evidence of harm per alternative; exact through JSON."""

    harm: tuple[float, ...] = (1.0,) * len(WORSE)


def limit_of(worst: float, leeway: float, known: float, known_bad: float) -> Limit:
    """Return the fleet's own baseline share plus the leeway, or `worst` where that is less or unknown."""
    own = known_bad / known + leeway if known >= FEWEST_KNOWN else worst
    return Limit(own, Against.BASELINE) if own < worst else Limit(worst, Against.GUARD)


def guard_step(state: GuardState, counted: int, bad: int, limit: Limit) -> GuardState:
    """Fold one scrape."""
    harm = []
    for value, times in zip(state.harm, WORSE, strict=True):
        worse = min(times * limit.share, (1 + limit.share) / 2)
        gain = bad * log(worse / limit.share) + (counted - bad) * log((1 - worse) / (1 - limit.share))
        harm.append(min(max(value, 1.0) * exp(min(gain, CAP)), _CEILING))
    return GuardState(tuple(harm))


def harm_value(state: GuardState) -> float:
    """Return the evidence that the share is above the limit."""
    return sum(state.harm) / len(WORSE)
