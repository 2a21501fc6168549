"""Other people's rules, ported from their documented behaviour and left at their documented settings.

Each takes traces and returns, per run, the scrape at which it rolls back, or -1.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.stats import hypergeom, norm

from tests.bench.judge_traces import TICKS, Floats, Ints, Traces

THRESHOLD = 0.95
FIVE_MINUTES = 20
ONE_MINUTE = 4
Rule = Callable[[Traces], Ints]


def _sums(values: Ints, width: int) -> Ints:
    """Return trailing sums over `width` scrapes."""
    total = np.cumsum(values, axis=1)
    before = np.concatenate([np.zeros((len(values), width), total.dtype), total[:, :-width]], axis=1)
    return np.asarray(total - before)


def _failing(traces: Traces, width: int) -> NDArray[np.bool_]:
    """Return whether the canary's success over the last `width` scrapes is below the threshold."""
    total, bad = _sums(traces.canary, width), _sums(traces.canary_bad, width)
    return np.asarray((total > 0) & (bad > (1 - THRESHOLD) * total))


def _first(fired: NDArray[np.bool_]) -> Ints:
    return np.where(fired.any(axis=1), fired.argmax(axis=1), -1).astype(np.int64)


def _checks(traces: Traces, width: int) -> tuple[NDArray[np.int64], Ints]:
    """Return the scrapes at which checks happen, and how many have failed by then."""
    at = np.arange(width - 1, TICKS, width)
    return at, np.cumsum(_failing(traces, width)[:, at], axis=1)


def argo(width: int, limit: int) -> Rule:
    """Argo Rollouts: one measurement per interval, failed when more than `limit` failed."""

    def rule(traces: Traces) -> Ints:
        at, failed = _checks(traces, width)
        first = _first(failed > limit)
        return np.where(first >= 0, at[first], -1)

    return rule


def flagger(width: int, threshold: int) -> Rule:
    """Flagger: failed checks add up, and the check after the threshold rolls back."""

    def rule(traces: Traces) -> Ints:
        at, failed = _checks(traces, width)
        first = _first(failed >= threshold)
        last = len(at) - 1
        return np.where((first >= 0) & (first < last), at[np.minimum(first + 1, last)], -1)

    return rule


def kayenta(traces: Traces) -> Ints:
    """Kayenta's judge: Mann-Whitney at 98 % on the last five minutes' error rates, every five minutes."""
    ours = _rates(traces.canary_bad, traces.canary)
    theirs = _rates(traces.control_bad, traces.control)
    fired = np.zeros((len(ours), TICKS), bool)
    for end in range(FIVE_MINUTES, TICKS + 1, FIVE_MINUTES):
        span = slice(end - FIVE_MINUTES, end)
        fired[:, end - 1] = _mann_whitney_high(ours[:, span], theirs[:, span])
    return _first(fired)


def _rates(bad: Ints, total: Ints) -> Floats:
    return np.where(total > 0, bad / np.maximum(total, 1), np.nan)


def _mann_whitney_high(ours: Floats, theirs: Floats) -> NDArray[np.bool_]:
    """Return whether the canary's rates are higher, by the tie-corrected normal approximation."""
    there = ~np.isnan(ours)[:, :, None] & ~np.isnan(theirs)[:, None, :]
    more = (ours[:, :, None] > theirs[:, None, :]) & there
    same = (ours[:, :, None] == theirs[:, None, :]) & there
    n, m = (~np.isnan(ours)).sum(axis=1), (~np.isnan(theirs)).sum(axis=1)
    both = np.concatenate([ours, theirs], axis=1)
    ties = (both[:, :, None] == both[:, None, :]).sum(axis=2)
    correction = np.where(np.isnan(both), 0.0, ties.astype(float) ** 2 - 1).sum(axis=1)
    size = np.maximum(n + m, 2)
    variance = n * m / 12 * (size + 1 - correction / (size * (size - 1)))
    u = more.sum(axis=(1, 2)) + 0.5 * same.sum(axis=(1, 2))
    z = (u - n * m / 2 - 0.5) / np.sqrt(np.maximum(variance, 1e-12))
    return np.asarray((n >= 5) & (m >= 5) & (z > norm.ppf(0.99)))


def fisher(traces: Traces) -> Ints:
    """Fisher's exact test, one-sided at 1e-4, on the last five minutes at every scrape."""
    n, x = _sums(traces.canary, FIVE_MINUTES), _sums(traces.canary_bad, FIVE_MINUTES)
    m, y = _sums(traces.control, FIVE_MINUTES), _sums(traces.control_bad, FIVE_MINUTES)
    candidates = (x >= 2) & (x * m > y * n)
    p = np.ones(x.shape)
    p[candidates] = hypergeom.sf(x[candidates] - 1, (n + m)[candidates], (x + y)[candidates], n[candidates])
    return _first(p < 1e-4)


RIVALS: Mapping[str, Rule] = {
    "Fisher 5m": fisher,
    "Argo 5m/3": argo(FIVE_MINUTES, 3),
    "Argo 1m/3": argo(ONE_MINUTE, 3),
    "Flagger 1m/5": flagger(ONE_MINUTE, 5),
    "Flagger 1m/10": flagger(ONE_MINUTE, 10),
    "Kayenta-like": kayenta,
}
