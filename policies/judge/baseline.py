"""What was normal before the window began: counters at two moments, a baseline apart.

They are control's; where nobody unchanged is left, those of what ran on the changed gateways before,
which is still there to be read while its last sessions are waited for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from policies.judge.counts import Series, fold_series, planned, unplanned
from policies.judge.reading import Reading
from policies.model.verdict import Cohorts

ALL = float("inf")
"""The bound of the bucket that holds every event."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """The growth of counters over the baseline before now; `label` says which executable ran."""

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
