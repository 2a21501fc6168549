"""What gates that follow a gauge have in common: what lasts on the canary and is not so on control."""

from collections.abc import Mapping, Sequence
from datetime import timedelta

from pydantic import Field

from policies.judge.counts import Series
from policies.judge.gates.kind import GateState, Kind, Selector, Setup
from policies.judge.look import Look
from policies.judge.persistence import Level, follow, settled
from policies.judge.tick import Finding, Tick
from policies.model.verdict import GateReading, GateVerdict

MOST_FOLLOWED = 16
"""Gateways of each side that are followed; what a release does to a gauge, it does to all."""


class Gauge(Kind):
    """A value, or a value per unit, on single instances."""

    value: Selector
    """What is followed."""
    per: Selector | None = None
    """By what it is divided, such as sessions."""
    min_per: float = Field(default=20, ge=0, description="below this many units nothing is said")

    @property
    def promised(self) -> tuple[str, ...]:
        """The gauge, and its units."""
        return (self.value, self.per) if self.per else (self.value,)

    @property
    def span(self) -> timedelta:
        """How long a gauge is followed before anything is said of it."""
        raise NotImplementedError

    @property
    def rates(self) -> tuple[bool, bool]:
        """Whether the value and the units are counters, of which the rate a second is meant."""
        return False, False

    def verdict_on(self, mine: Sequence[Level], theirs: Sequence[Level]) -> GateReading | None:
        """Return the reading from the levels of canary and control; None where they say nothing."""
        raise NotImplementedError

    def find(self, look: Look) -> Finding:
        """Return the gauge per unit on each instance that has enough units."""
        values = _per_instance(look.ours(self.value), rate=self.rates[0])
        if self.per is None:
            return Finding(gauges=values)
        units = _per_instance(look.ours(self.per), rate=self.rates[1])
        enough = {instance: per for instance, per in units.items() if per > self.min_per}
        return Finding(gauges={i: value / enough[i] for i, value in values.items() if i in enough})

    def judge(self, setup: Setup, state: GateState, tick: Tick) -> tuple[GateState, GateReading]:
        """Follow every level, and compare those that were followed for the span."""
        span, at = self.span.total_seconds(), tick.at - setup.started
        sides = setup.cohorts.canary, setup.cohorts.control
        canary, control = (sorted(side)[:MOST_FOLLOWED] for side in sides)
        values: Mapping[str, float] = tick.gauges.get(self.id, {})
        levels = state.levels | {
            instance: follow(state.levels.get(instance), at, values[instance], span)
            for instance in (*canary, *control)
            if values.get(instance, 0.0) > 0
        }
        reading = self.verdict_on(settled(levels, canary, span), settled(levels, control, span))
        if reading is None:
            reason = f"nothing to compare over {span:.0f} s yet"
            reading = self.reading(GateVerdict.NOT_ENOUGH_DATA, reason, {})
        return GateState(levels=levels), reading


def _per_instance(series: Sequence[Series], *, rate: bool) -> dict[str, float]:
    """Return the newest values, or of counters the rates per second, summed up per instance."""
    values: dict[str, float] = {}
    for one in series:
        (first, low), (last, value) = one.samples[0], one.samples[-1]
        if rate:
            value = max(0.0, value - low) / (last - first) if last > first else 0.0
        values[one.instance] = values.get(one.instance, 0.0) + value
    return values
