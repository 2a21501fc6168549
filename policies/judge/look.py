"""One look at the metrics: whose series are whose, what is fresh, what was counted since and before."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from policies.judge.counts import Series, fold_series, planned, unplanned
from policies.judge.reading import Reading
from policies.model.value import Value
from policies.model.verdict import Cohorts

ALL = float("inf")
"""The bound of the bucket that holds every event."""


class Memory(Value):
    """What reading the next tick needs from the ones before.

    `based` says that counting has begun, `counted` when counters were last folded, `folded` up to
    which scrape of each instance, `cursor` to which values; `last_shown` and `last_reached` when
    series and instances were last there, `boots` when and in which boot a host was first seen,
    `last_values` the newest sample of each series in which a change is looked for, by gate, `signed` when
    a changed gateway last showed each gate's sign.
    """

    based: bool = False
    counted: float = 0.0
    folded: dict[str, float] = {}
    cursor: dict[str, tuple[float, float]] = {}
    last_shown: dict[str, dict[str, float]] = {}
    last_reached: dict[str, float] = {}
    boots: dict[str, tuple[float, str]] = {}
    bounds: dict[str, float] = {}
    baseline: dict[str, tuple[int, int]] = {}
    last_values: dict[str, dict[str, tuple[float, float]]] = {}
    signed: dict[str, float] = {}


@dataclass(frozen=True, slots=True)
class Look:
    """A reading as the gates ask it.

    `oldest` is when a sample must have been taken to be fresh, `scrapes` when each instance was
    reached, `growth` what each counter grew by since the last fold, or None between folds.
    """

    cohorts: Cohorts
    reading: Reading
    label: str
    presence: str
    counters: frozenset[str]
    oldest: float
    fewest_controls: int
    scrapes: Mapping[str, tuple[float, ...]]
    memory: Memory
    growth: Mapping[str, float] | None = None

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

    def unsound(self, selectors: Iterable[str]) -> dict[str, str]:
        """Return the instances of which one of these shows no evidence, and why; empty when all are sound."""
        found: dict[str, str] = {}
        for selector in selectors:
            found = self.reading.unsound.get(selector, {}) | found
        return found

    def unsound_canary(self, selectors: Iterable[str]) -> str:
        """Return why one of these shows no evidence of a canary; empty when all are sound there."""
        lost = self.unsound(selectors)
        return next((lost[instance] for instance in self.cohorts.canary if instance in lost), "")

    def unfresh(self, selectors: Sequence[str], absent: Iterable[str] = ()) -> str:
        """Return which of these is not fresh on every canary and on enough of control; empty when all are.

        Those of `absent` may have no series at all. A series that is there and is no evidence is not absent.
        """
        lost = self.unsound((*selectors, *absent))
        if why := self.unsound_canary((*selectors, *absent)):
            return why
        for selector in selectors:
            fresh, metric = self.fresh(selector) - lost.keys(), selector.partition("{")[0]
            stale = [instance for instance in self.cohorts.canary if instance not in fresh]
            if stale:
                return f"{metric} has no fresh value from {stale[0]}"
            controls = sum(instance in fresh for instance in self.cohorts.control)
            if controls < min(self.fewest_controls, len(self.cohorts.control)):
                why = next((f": {lost[one]}" for one in self.cohorts.control if one in lost), "")
                return f"{metric} is fresh on only {controls} control gateways{why}"
        return ""

    def grown(self, selector: str, le: float | None = None) -> dict[str, float]:
        """Return by how much the selector's counters grew per instance; of histograms the bucket `le`."""
        sums: dict[str, float] = {}
        for one in self.ours(selector):
            if "le" not in one.labels or float(one.labels["le"]) == le:
                sums[one.instance] = sums.get(one.instance, 0.0) + (self.growth or {}).get(one.key, 0.0)
        return sums


@dataclass(frozen=True, slots=True)
class Baseline:
    """What was normal before the window began: the growth of counters between two moments.

    It is control's; where nobody unchanged is left, that of what ran on the changed gateways before,
    which is still there to be read while its last sessions are waited for.
    """

    cohorts: Cohorts
    label: str
    reading: Reading
    scrapes: Mapping[str, tuple[float, ...]]

    def grown(self, selector: str) -> dict[float, float]:
        """Return growth per bucket bound over all series; plain counters count as one bucket."""
        before = {one.key: one.samples[-1] for one in self._of_before(self.reading.history.get(selector, ()))}
        now = {one.key: one for one in self._of_before(self.reading.series.get(selector, ()))}
        _, growth = fold_series(before, [one for key, one in now.items() if key in before], self.scrapes)
        sums: dict[float, float] = {}
        for key, total in growth.items():
            le = float(now[key].labels.get("le", ALL))
            sums[le] = sums.get(le, 0.0) + total
        return sums

    def _of_before(self, series: Sequence[Series]) -> list[Series]:
        if not self.cohorts.control:
            return unplanned(series, self.cohorts, self.label)
        control = set(self.cohorts.control)
        return [one for one in planned(series, self.cohorts, self.label) if one.instance in control]
