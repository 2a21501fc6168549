"""Persistence: the one rule for gauges, whether they are too high or grow.

Samples of a gauge follow each other closely, so no honest test per sample exists; what is asked
is that something lasts. Of each instance two levels are kept, moving averages with time constants
of half the span and the whole: the quick one says how high the gauge is, the difference of both,
over the difference of their ages, how fast it grows (exact for steady growth). No sample counts
for more than twice the level. On simulated gauges (correlation 0.9 from scrape to scrape) false
alarms and power equal those of means and Theil-Sen slopes over the span.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp

QUICK, SLOW = 0.5, 1.0
"""Time constants of the two levels, as parts of the span."""
NEARLY = 0.9
"""Part of the span after which a level may be believed."""


@dataclass(frozen=True, slots=True)
class Level:
    """Of one instance since `since`: both levels, and the mean age of what went into each."""

    since: float
    at: float
    quick: float
    slow: float
    quick_at: float
    slow_at: float

    @property
    def growth(self) -> float:
        """How much it grows a second."""
        age = self.quick_at - self.slow_at
        return (self.quick - self.slow) / age if age > 0 else 0.0


def follow(level: Level | None, at: float, value: float, span: float) -> Level:
    """Return the level after one more sample, which must be above zero."""
    if level is None:
        return Level(at, at, value, value, at, at)
    quick, slow = (1 - exp((level.at - at) / (part * span)) for part in (QUICK, SLOW))
    return Level(
        since=level.since,
        at=at,
        quick=level.quick + quick * (min(value, 2 * level.quick) - level.quick),
        slow=level.slow + slow * (min(value, 2 * level.slow) - level.slow),
        quick_at=level.quick_at + quick * (at - level.quick_at),
        slow_at=level.slow_at + slow * (at - level.slow_at),
    )


def settled(levels: Mapping[str, Level], instances: Sequence[str], span: float) -> list[Level]:
    """Return the levels of these instances that were followed for the span."""
    found = (levels[instance] for instance in instances if instance in levels)
    return [level for level in found if level.at - level.since >= NEARLY * span]
