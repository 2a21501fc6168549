"""Gates of kind `exceedance`: events slower than a histogram's bucket bound."""

from typing import Literal

from pydantic import Field

from policies.judge.baseline import ALL, Baseline
from policies.judge.gates.counted import Counted
from policies.judge.gates.kind import Selector
from policies.judge.look import Look
from policies.model.value import Value

FEWEST_FOR_A_BOUND = 50
"""Control events below which no quantile is taken from them."""


class Bound(Value):
    """Which bucket separates slow from normal: a fixed one, or control's quantile at the start."""

    fixed: float | None = Field(default=None, gt=0)
    quantile: float = Field(default=0.95, gt=0, lt=1)
    max: float = Field(default=5.0, gt=0, description="seconds above which no bound is taken")


class Exceedance(Counted):
    """Events slower than a histogram's bucket bound, which is frozen before the window."""

    kind: Literal["exceedance"]
    histogram: Selector
    bound: Bound = Bound()
    worst: float = Field(
        default=0.25,
        gt=0,
        lt=1,
        description="share allowed when nobody is left to compare with",
    )

    @property
    def promised(self) -> tuple[str, ...]:
        """The histogram."""
        return (self.histogram,)

    @property
    def counters(self) -> tuple[str, ...]:
        """The histogram."""
        return (self.histogram,)

    @property
    def histogram_read(self) -> str:
        """The histogram."""
        return self.histogram

    def freeze(self, baseline: Baseline) -> float | None:
        """Return the fixed bound, or the least bucket that held control's quantile."""
        if self.bound.fixed:
            return self.bound.fixed
        buckets = baseline.grown(self.histogram)
        total = buckets.get(ALL, 0.0)
        if total < FEWEST_FOR_A_BOUND:
            return None
        enough = self.bound.quantile * total
        return min((le for le, n in buckets.items() if n >= enough and le <= self.bound.max), default=None)

    def before(self, baseline: Baseline, bound: float | None) -> tuple[int, int] | None:
        """Return control's events and slow events before the window."""
        if bound is None:
            return None
        buckets = baseline.grown(self.histogram)
        total = buckets.get(ALL, 0.0)
        slow = round(total - buckets.get(bound, 0.0))
        return round(total), max(0, min(slow, round(total)))

    def count(self, look: Look) -> tuple[dict[str, float], dict[str, float]]:
        """Return events, and slow events, per instance."""
        quick = look.grown(self.histogram, look.bounds.get(self.id))
        totals = {i: n for i, n in look.grown(self.histogram, ALL).items() if i in quick}
        return totals, {instance: total - quick[instance] for instance, total in totals.items()}
