"""Gates of kind `gauge_ratio`: too much of something on the canary, compared with control's median."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from math import exp, log
from statistics import median
from typing import Literal

from pydantic import Field

from policies.judge.counts import Series
from policies.judge.gates.kind import GateState, Kind, Response, Selector, Setup
from policies.judge.look import Look
from policies.judge.tick import Finding, Tick
from policies.words.verdict import GateReading, GateVerdict
from policies.words.word import Duration

MOST_POINTS = 64
Point = tuple[float, float]


class GaugeRatio(Kind):
    """A gauge (or a counter's rate) per unit, against control's median, averaged over a while."""

    kind: Literal["gauge_ratio"]
    value: Selector
    per: Selector | None = None
    min_per: float = Field(default=20, ge=0, description="below this many units the ratio says nothing")
    counter: bool = Field(default=False, description="take the rate of `value` per second")
    per_counter: bool = Field(default=False, description="take the rate of `per` per second")
    floor: float = Field(default=0.0, ge=0, description="canary values up to this are never too much")
    ratio: float = Field(default=1.5, gt=1)
    ratio_hard: float | None = Field(
        default=None, gt=1, description="ratio that rolls back whatever `action`"
    )
    over: Duration = timedelta(minutes=5)
    action: Response = Response.HOLD

    @property
    def compares(self) -> bool:
        """Whether the gate has nothing to say without control: so it is."""
        return True

    @property
    def promised(self) -> tuple[str, ...]:
        """The gauge, and its units."""
        return (self.value, self.per) if self.per else (self.value,)

    def find(self, look: Look) -> Finding:
        """Return the gauge per unit on each instance that has enough units."""
        values = per_instance(look.ours(self.value), counter=self.counter)
        if self.per is None:
            return Finding(gauges=values)
        units = per_instance(look.ours(self.per), counter=self.per_counter)
        return Finding(gauges=per_unit(values, units, self.min_per))

    def judge(self, setup: Setup, state: GateState, tick: Tick) -> tuple[GateState, GateReading]:
        """Add the worst canary's ratio, and compare the mean over a while."""
        values = tick.gauges.get(self.id, {})
        point = log_ratio(values, setup.cohorts.canary, setup.cohorts.control)
        over = self.over.total_seconds()
        points = state.points
        spacing = over / MOST_POINTS
        if point is not None and (not points or tick.at - points[-1][0] >= spacing):
            points = (*(p for p in points if p[0] >= tick.at - over), (tick.at, point))
        ratio = mean_ratio(points, over)
        largest = max((values.get(i, 0.0) for i in setup.cohorts.canary), default=0.0)
        moved = GateState(points=points)
        if ratio is None or largest <= self.floor:
            reason = f"{self.id}: nothing to compare over {over:.0f} s yet"
            return moved, GateReading(gate=self.id, verdict=GateVerdict.NOT_ENOUGH_DATA, reason=reason)
        beyond = self.ratio_hard is not None and ratio > self.ratio_hard
        verdict = GateVerdict.UNHEALTHY if ratio > self.ratio else GateVerdict.HEALTHY
        reason = f"{self.id}: the canary has {ratio:.2f} times control's median, {self.ratio:g} allowed"
        numbers = {"ratio": round(ratio, 6), "allowed": self.ratio, "beyond_hard": float(beyond)}
        return moved, GateReading(gate=self.id, verdict=verdict, reason=reason, numbers=numbers)

    def response(self, reading: GateReading) -> Response:
        """Return what this reading may cause; far beyond the ratio it may cause more than the gate."""
        return Response.ROLL_BACK if reading.numbers.get("beyond_hard") else self.action


def per_instance(series: Sequence[Series], *, counter: bool = False) -> dict[str, float]:
    """Return the newest values, or of counters the rates per second, summed up per instance."""
    values: dict[str, float] = {}
    for one in series:
        value = _rate(one) if counter else one.samples[-1][1]
        values[one.instance] = values.get(one.instance, 0.0) + value
    return values


def per_unit(values: Mapping[str, float], units: Mapping[str, float], fewest: float) -> dict[str, float]:
    """Return values over units, of instances that have more units than the fewest."""
    return {i: v / units[i] for i, v in values.items() if units.get(i, 0.0) > fewest}


def _rate(one: Series) -> float:
    (first, low), (last, high) = one.samples[0], one.samples[-1]
    return max(0.0, high - low) / (last - first) if last > first else 0.0


def log_ratio(values: Mapping[str, float], canary: Sequence[str], control: Sequence[str]) -> float | None:
    """Return log of the worst canary's value over control's median; None when either is missing."""
    mine = [values[i] for i in canary if values.get(i, 0.0) > 0]
    theirs = [values[i] for i in control if values.get(i, 0.0) > 0]
    if not mine or not theirs:
        return None
    return log(max(mine) / median(theirs))


def mean_ratio(points: Sequence[Point], over: float) -> float | None:
    """Return the mean ratio of the last `over` seconds; None while they are not yet covered."""
    if not points or points[-1][0] - points[0][0] < over * 0.9:
        return None
    recent = [value for at, value in points if at > points[-1][0] - over]
    return exp(sum(recent) / len(recent)) if recent else None
