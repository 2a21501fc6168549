"""Gates of kind `gauge_ratio`: too much of something on the canary, compared with control's median."""

from collections.abc import Sequence
from datetime import timedelta
from statistics import median
from typing import Literal, Self

from pydantic import Field

from policies.judge.gates.gauge import Gauge
from policies.judge.gates.kind import Response
from policies.judge.persistence import Level
from policies.model.value import Duration
from policies.model.verdict import GateReading, GateVerdict


class GaugeRatio(Gauge):
    """A gauge (or a counter's rate) per unit, of the worst canary against control's median, over a while."""

    kind: Literal["gauge_ratio"]
    """Of a gauge, or of a counter's rate."""
    counter: bool = Field(default=False, description="take the rate of `value` per second")
    per_counter: bool = Field(default=False, description="take the rate of `per` per second")
    floor: float = Field(default=0.0, ge=0, description="canary values up to this are never too much")
    ratio: float = Field(default=1.5, gt=1)
    """Times control's median that the worst canary may have."""
    ratio_hard: float | None = Field(
        default=None,
        gt=1,
        description="times control's median beyond which it rolls back in its wave, whatever `action` says",
    )
    over: Duration = timedelta(minutes=5)
    """How long both are followed before anything is said."""
    action: Response = Response.HOLD

    @property
    def span(self) -> timedelta:
        """How long a gauge is followed before anything is said of it."""
        return self.over

    @property
    def rates(self) -> tuple[bool, bool]:
        """Whether the value and the units are counters."""
        return self.counter, self.per_counter

    def verdict_on(self, mine: Sequence[Level], theirs: Sequence[Level]) -> GateReading | None:
        """Return whether the worst canary is too high."""
        worst = max((level.quick for level in mine), default=0.0)
        if not theirs or worst <= self.floor:
            return None
        ratio = worst / median(level.quick for level in theirs)
        verdict = GateVerdict.UNHEALTHY if ratio > self.ratio else GateVerdict.HEALTHY
        reason = f"the canary has {ratio:.2f} times control's median, {self.ratio:g} allowed"
        beyond_hard = float(self.ratio_hard is not None and ratio > self.ratio_hard)
        numbers = {"ratio": round(ratio, 6), "allowed": self.ratio, "beyond_hard": beyond_hard}
        return self.reading(verdict, reason, numbers)

    def response(self, reading: GateReading) -> Response:
        """Return what this reading may cause; far beyond the ratio it may cause more than the gate."""
        return Response.ROLL_BACK if reading.numbers.get("beyond_hard") else self.action

    def gentle(self) -> Self:
        """Return the gate as the bake asks it: it holds, however far beyond the ratio the canary is."""
        return super().gentle().model_copy(update={"ratio_hard": None})
