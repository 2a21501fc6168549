"""Gates of kind `exceedance`: events slower than a histogram's bucket bound."""

from typing import Literal

from pydantic import Field

from policies.judge.gates.counted import Counted, whole
from policies.judge.gates.kind import Selector
from policies.judge.look import ALL, Baseline, Look
from policies.model.value import Value

FEWEST_FOR_A_BOUND = 50
"""Control events below which no quantile is taken from them."""


class Bound(Value):
    """Which bucket separates slow from normal: a fixed one, or control's quantile at the start."""

    fixed: float | None = Field(default=None, gt=0)
    """Seconds, where the bound is not to be taken from control."""
    quantile: float = Field(default=0.95, gt=0, lt=1)
    """Part of control's events that were quicker, before the window."""
    max: float = Field(default=5.0, gt=0, description="seconds above which no bound is taken")


class Exceedance(Counted):
    """Events slower than a histogram's bucket bound, which is frozen before the window."""

    kind: Literal["exceedance"]
    """Of a histogram."""
    histogram: Selector
    """Its `_bucket` series."""
    bound: Bound = Bound()
    """From which bucket on an event is slow."""
    worst: float = Field(
        default=0.25,
        gt=0,
        lt=1,
        description="share of bad events allowed where nobody unchanged is left to compare with",
    )

    @property
    def promised(self) -> tuple[str, ...]:
        """The histogram."""
        return (self.histogram,)

    @property
    def counters(self) -> tuple[str, ...]:
        """The histogram."""
        return (self.histogram,)

    def before(self, baseline: Baseline) -> tuple[float | None, tuple[int, int] | None]:
        """Return the bound, fixed or the least bucket that held control's quantile, and what was slow."""
        buckets, bound = baseline.grown(self.histogram), self.bound.fixed
        total = buckets.get(ALL, 0.0)
        if bound is None and total >= FEWEST_FOR_A_BOUND:
            held = (le for le, n in buckets.items() if n >= self.bound.quantile * total)
            bound = min((le for le in held if le <= self.bound.max), default=None)
        return bound, None if bound is None else whole(total, total - buckets.get(bound, 0.0))

    def count(self, look: Look) -> tuple[dict[str, float], dict[str, float]]:
        """Return events, and slow events, per instance."""
        quick = look.grown(self.histogram, look.memory.bounds.get(self.id))
        totals = {i: n for i, n in look.grown(self.histogram, ALL).items() if i in quick}
        return totals, {instance: total - quick[instance] for instance, total in totals.items()}
