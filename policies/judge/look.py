"""One look at the metrics: whose series are whose, which values are fresh, what was counted since."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from policies.judge.counts import Series, planned
from policies.judge.reading import Reading
from policies.model.verdict import Cohorts


@dataclass(frozen=True, slots=True)
class Look:
    """A reading as the gates ask it.

    `oldest` is when a sample must have been taken to be fresh, `scrapes` when each instance was
    reached, `growth` what each counter grew by since the last fold, or None between folds.
    `bounds` are frozen histogram bounds by gate; `last_shown` tells, by gate and instance, when a
    series that may be missing was last there, `last_reached` when an instance was.
    """

    cohorts: Cohorts
    reading: Reading
    label: str
    presence: str
    counters: frozenset[str]
    oldest: float
    fewest_controls: int
    scrapes: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    growth: Mapping[str, float] | None = None
    bounds: Mapping[str, float] = field(default_factory=dict)
    last_shown: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    last_reached: Mapping[str, float] = field(default_factory=dict)

    def ours(self, selector: str) -> list[Series]:
        """Return what the selector found of the executables and slots that the plan put there."""
        return planned(self.reading.series.get(selector, ()), self.cohorts, self.label)

    def fresh(self, selector: str) -> set[str]:
        """Return the instances of which the selector has a fresh value."""
        found = self.ours(selector)
        return {one.instance for one in found if one.samples and one.samples[-1][0] >= self.oldest}

    def unread(self, selectors: Sequence[str]) -> str:
        """Return why one of these could not be read; empty when all were."""
        unread = self.reading.unread
        return next((unread[selector] for selector in sorted(set(selectors)) if selector in unread), "")

    def unfresh(self, selectors: Sequence[str]) -> str:
        """Return which of these is not fresh on every canary and on enough of control; empty when all are."""
        for selector in selectors:
            fresh, metric = self.fresh(selector), selector.partition("{")[0]
            stale = [instance for instance in self.cohorts.canary if instance not in fresh]
            if stale:
                return f"{metric} has no fresh value from {stale[0]}"
            controls = sum(instance in fresh for instance in self.cohorts.control)
            if controls < min(self.fewest_controls, len(self.cohorts.control)):
                return f"{metric} is fresh on only {controls} control gateways"
        return ""

    def grown(self, selector: str, le: float | None = None) -> dict[str, float]:
        """Return by how much the selector's counters grew per instance; of histograms the bucket `le`."""
        sums: dict[str, float] = {}
        for one in self.ours(selector):
            if "le" not in one.labels or float(one.labels["le"]) == le:
                sums[one.instance] = sums.get(one.instance, 0.0) + (self.growth or {}).get(one.key, 0.0)
        return sums
