"""Gates of kind `slope`: a gauge that grows on the canary and not on control, as a leak does."""

from collections.abc import Sequence
from datetime import timedelta
from itertools import combinations
from statistics import median
from typing import Literal

from pydantic import Field

from policies.judge.gates.gauge_ratio import Point, per_instance, per_unit
from policies.judge.gates.kind import GateState, Kind, Response, Selector, Setup
from policies.judge.look import Look
from policies.judge.tick import Finding, Tick
from policies.words.verdict import GateReading, GateVerdict
from policies.words.word import Duration

MINUTE = 60.0
FEWEST_POINTS = 5
MOST_SLOPE_POINTS = 24
MOST_TRACKED = 16
"""Control gateways whose slopes are followed."""
TIMES_LARGEST = 1.0
TIMES_MEDIAN = 3.0


class Slope(Kind):
    """A gauge that grows on the canary and not on control: a leak; too noisy to roll back.

    A new instance gathers sessions, and files and memory with them: give `per`, or a floor beyond that.
    """

    kind: Literal["slope"]
    value: Selector
    per: Selector | None = None
    min_per: float = Field(default=20, ge=0, description="below this many units the slope says nothing")
    min_span: Duration = timedelta(minutes=20)
    floor_per_minute: float = Field(default=1.0, gt=0)
    action: Literal[Response.HOLD] = Response.HOLD

    @property
    def promised(self) -> tuple[str, ...]:
        """The gauge, and its units."""
        return (self.value, self.per) if self.per else (self.value,)

    def find(self, look: Look) -> Finding:
        """Return the gauge per unit on each instance that has enough units."""
        values = per_instance(look.ours(self.value))
        if self.per is None:
            return Finding(gauges=values)
        return Finding(gauges=per_unit(values, per_instance(look.ours(self.per)), self.min_per))

    def judge(self, setup: Setup, state: GateState, tick: Tick) -> tuple[GateState, GateReading]:
        """Add a point to each track, and compare the canary's growth with control's."""
        span = self.min_span.total_seconds()
        spacing = max(min(MINUTE, span / FEWEST_POINTS), span / (MOST_SLOPE_POINTS - 2))
        followed = {*setup.cohorts.canary, *sorted(setup.cohorts.control)[:MOST_TRACKED]}
        tracks = {
            instance: _tracked(state.tracks.get(instance, ()), (tick.at - setup.started, value), spacing)
            for instance, value in sorted(tick.gauges.get(self.id, {}).items())
            if instance in followed
        }
        moved = GateState(tracks=state.tracks | tracks)
        slopes = {
            instance: theil_sen(track) * MINUTE
            for instance, track in moved.tracks.items()
            if track[-1][0] - track[0][0] >= span * 0.9
        }
        mine = [slopes[i] for i in setup.cohorts.canary if i in slopes]
        controls = [slopes[i] for i in setup.cohorts.control if i in slopes]
        if not mine:
            reason = f"{self.id}: watched for less than {span / MINUTE:g} min"
            return moved, GateReading(gate=self.id, verdict=GateVerdict.NOT_ENOUGH_DATA, reason=reason)
        worst = max(mine)
        leaking = leaks(worst, controls, self.floor_per_minute)
        verdict = GateVerdict.UNHEALTHY if leaking else GateVerdict.HEALTHY
        highest = max(controls, default=0.0)
        reason = f"{self.id}: grows by {worst:.2f} a minute on the canary, at most {highest:.2f} on control"
        numbers = {"canary_per_minute": round(worst, 6), "control_per_minute": round(highest, 6)}
        return moved, GateReading(gate=self.id, verdict=verdict, reason=reason, numbers=numbers)


def _tracked(track: tuple[Point, ...], point: Point, spacing: float) -> tuple[Point, ...]:
    if track and point[0] - track[-1][0] < spacing:
        return track
    return (*track, point)[-MOST_SLOPE_POINTS:]


def theil_sen(points: Sequence[Point]) -> float:
    """Return the median slope per second over all pairs of points."""
    slopes = [(v2 - v1) / (t2 - t1) for (t1, v1), (t2, v2) in combinations(points, 2) if t2 > t1]
    return median(slopes) if slopes else 0.0


def leaks(canary: float, controls: Sequence[float], floor: float) -> bool:
    """Whether the canary's slope is more than any control's, thrice the median one's, and the floor."""
    others = [abs(slope) for slope in controls]
    if not others:
        return canary > floor
    return canary > max(TIMES_LARGEST * max(others), TIMES_MEDIAN * median(others), floor)
