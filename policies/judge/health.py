"""The proof of health: is the canary *not* worse than control by the health margin?

Two e-processes against the hypothesis "worse by delta or more", averaged (an average of
e-processes is one). The conditional one is SLE turned round: it sees the canary's part of
the bad events of each scrape, so it works through outages both sides share, and says
nothing where nobody fails. The absolute one takes "the canary's share is at least delta",
which "worse than control by delta" implies, and weighs it against better shares by binomial
likelihood ratios: it is quick on a clean fleet and useless in an outage. Together neither
silence nor trouble stops a proof. How much sooner: `run bench judge`, table `health`.
"""

from dataclasses import dataclass
from math import exp, log

from pydantic import Field

from policies.judge.sle import Counts, log_e, odds_margin
from policies.model.value import Value

BETTER = (0.02, 0.125, 0.3, 0.6)
"""Shares, as parts of delta, that the absolute test mixes as alternatives."""
ODDS_FLOOR = 1.5
_MOST = 700.0


class Health(Value):
    """What must be shown before promotion: not worse by `delta` or more, wrong in at most `error`.

    While more than `calm` of control's own events are bad, nothing is proven: an outage that all
    share hides the canary's part of the way a login takes.
    """

    delta: float = Field(default=0.03, gt=0, lt=1)
    """Difference of shares that is excluded before promotion; larger than `margin.delta`."""
    calm: float = Field(default=0.25, gt=0, le=1)
    """Share of control's own bad events above which nothing is proven."""
    error: float = Field(default=0.05, gt=0, lt=0.5)
    """Chance of promoting one that is worse by `delta`."""


@dataclass(frozen=True, slots=True)
class HealthState:
    """Sums from the window's first scrape; exact through JSON."""

    conditional: float = 0.0
    counted: int = 0
    bad: int = 0


def health_step(state: HealthState, counts: Counts, share: float, health: Health) -> HealthState:
    """Fold one scrape; `share` is control's share of bad events before it."""
    worse = log(odds_margin(share, health.delta, ODDS_FLOOR))
    return HealthState(
        conditional=state.conditional + log_e(counts, worse, 0.0),
        counted=state.counted + counts.canary,
        bad=state.bad + counts.canary_bad,
    )


def absolute(state: HealthState, delta: float) -> float:
    """Return the e-value against "the canary's share of bad events is at least delta"."""
    good = state.counted - state.bad
    logs = [state.bad * log(part) + good * (log(1 - part * delta) - log(1 - delta)) for part in BETTER]
    return sum(exp(min(value, _MOST)) for value in logs) / len(BETTER)


def health_value(state: HealthState, health: Health) -> float:
    """Return the e-value against "worse by delta or more"; healthy from 1 / error on."""
    return (exp(min(state.conditional, _MOST)) + absolute(state, health.delta)) / 2
