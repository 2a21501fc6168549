"""Control's past: what was normal before the window began, taken from two looks at the counters."""

from collections.abc import Mapping
from dataclasses import dataclass

from policies.gates import Exceedance, GatePolicy, Rate
from policies.judge.counts import Series, fold_series, planned
from policies.judge.reading import Reading
from policies.words.verdict import Cohorts

FEWEST_FOR_A_BOUND = 50
"""Control events below which no quantile is taken from them."""
ALL = float("inf")


@dataclass(frozen=True, slots=True)
class Past:
    """The growth of control's counters over the baseline before now."""

    policy: GatePolicy
    cohorts: Cohorts
    reading: Reading
    scrapes: Mapping[str, tuple[float, ...]]

    def bounds(self) -> dict[str, float]:
        """Freeze, for each exceedance gate, the bucket bound between normal and slow."""
        bounds = {}
        for gate in self.policy.gates:
            if isinstance(gate, Exceedance):
                bound = gate.bound.fixed or self._quantile(gate)
                if bound is not None:
                    bounds[gate.id] = bound
        return bounds

    def shares(self, bounds: Mapping[str, float]) -> dict[str, tuple[int, int]]:
        """Return control's events and bad events per gate."""
        past = {}
        for gate in self.policy.gates:
            if isinstance(gate, Rate):
                total = sum(self._grown(gate.total).values())
                bad = sum(self._grown(gate.bad).values())
            elif isinstance(gate, Exceedance) and gate.id in bounds:
                buckets = self._grown(gate.histogram)
                total = buckets.get(ALL, 0.0)
                bad = total - buckets.get(bounds[gate.id], 0.0)
            else:
                continue
            past[gate.id] = (round(total), max(0, min(round(bad), round(total))))
        return past

    def _quantile(self, gate: Exceedance) -> float | None:
        buckets = self._grown(gate.histogram)
        total = buckets.get(ALL, 0.0)
        if total < FEWEST_FOR_A_BOUND:
            return None
        high = [le for le, n in buckets.items() if n >= gate.bound.quantile * total and le <= gate.bound.max]
        return min(high, default=None)

    def _grown(self, selector: str) -> dict[float, float]:
        """Return growth per bucket bound over all control series; plain counters count as one bucket."""
        before = {one.key: one.samples[-1] for one in self._control(self.reading.history.get(selector, ()))}
        now = {one.key: one for one in self._control(self.reading.series.get(selector, ()))}
        _, growth = fold_series(before, [one for key, one in now.items() if key in before], self.scrapes)
        sums: dict[float, float] = {}
        for key, total in growth.items():
            le = float(now[key].labels.get("le", ALL))
            sums[le] = sums.get(le, 0.0) + total
        return sums

    def _control(self, series: tuple[Series, ...]) -> list[Series]:
        control = set(self.cohorts.control)
        ours = planned(series, self.cohorts, self.policy.identity.label)
        return [one for one in ours if one.instance in control and one.samples]
