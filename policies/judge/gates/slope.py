"""Gates of kind `slope`: a gauge that grows on the canary and not on control, as a leak does."""

from collections.abc import Sequence
from datetime import timedelta
from statistics import median
from typing import Literal

from pydantic import Field

from policies.judge.gates.gauge import Gauge
from policies.judge.gates.kind import Response
from policies.judge.persistence import Level
from policies.model.value import Duration
from policies.model.verdict import GateReading, GateVerdict

MINUTE = 60.0
TIMES_LARGEST = 1.0
TIMES_MEDIAN = 3.0


class Slope(Gauge):
    """A gauge that grows on the canary and not on control: a leak; too noisy to roll back.

    A new instance gathers sessions, and files and memory with them: give `per`, or a floor beyond that.
    """

    kind: Literal["slope"]
    """Of a gauge that should not grow."""
    min_span: Duration = timedelta(minutes=20)
    """How long it is followed before anything is said."""
    floor_per_minute: float = Field(default=1.0, gt=0)
    """Growth a minute that is never too much."""
    action: Literal[Response.HOLD] = Response.HOLD

    @property
    def span(self) -> timedelta:
        """How long a gauge is followed before anything is said of it."""
        return self.min_span

    def verdict_on(self, mine: Sequence[Level], theirs: Sequence[Level]) -> GateReading | None:
        """Return whether the fastest canary outgrows any control, thrice the median one, and the floor."""
        if not mine:
            return None
        worst = max(level.growth for level in mine) * MINUTE
        others = [abs(level.growth) * MINUTE for level in theirs] or [0.0]
        allowed = max(TIMES_LARGEST * max(others), TIMES_MEDIAN * median(others), self.floor_per_minute)
        highest = max((level.growth * MINUTE for level in theirs if level.growth > 0), default=0.0)
        verdict = GateVerdict.UNHEALTHY if worst > allowed else GateVerdict.HEALTHY
        reason = f"grows by {worst:.2f} a minute on the canary, at most {highest:.2f} elsewhere"
        numbers = {"canary_per_minute": round(worst, 6), "control_per_minute": round(highest, 6)}
        return self.reading(verdict, reason, numbers)
