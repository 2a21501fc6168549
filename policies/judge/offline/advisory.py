"""The advisory band: is this hour normal for this hour of the week? Never a gate.

Median and median absolute deviation over at least four weeks, per hour of the week. It may
refuse to *start* a rollout in a fleet that is already unusual, and annotates reports; once a
window runs, the concurrent control knows better than any history.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from statistics import median

from policies.model.value import Value

HOURS = 168
FEWEST_WEEKS = 4
WIDTH = 4.0
"""Median absolute deviations to either side that still count as normal."""
LEAST_WIDTH = 0.1
"""Part of the median that is normal to either side, however steady the past was."""
_MONDAY = datetime(1970, 1, 5)  # noqa: DTZ001 - what clocks on the wall show
"""The first Monday of the epoch."""


class Band(Value):
    """What is normal at one hour of the week, and how many weeks say so."""

    low: float
    middle: float
    high: float
    weeks: int


class Advice(Value):
    """Whether now is unusual, in a sentence; `normal` is None where the metrics do not show it."""

    normal: bool | None
    sentence: str
    unavailable: bool = False
    """Whether that is because the last hour cannot be read, and not because history is short."""


def hour_of_week(at: float, zone: tzinfo = UTC) -> int:
    """Return the hour of the week of seconds since the epoch: 0 is Monday midnight on the zone's clocks."""
    return _on_clocks(at, zone) % timedelta(weeks=1) // timedelta(hours=1)


def bands(points: Sequence[tuple[float, float]], zone: tzinfo = UTC) -> dict[int, Band]:
    """Return the band of each hour of the week of the zone from (time, value) points of past weeks."""
    by_hour: dict[int, dict[int, list[float]]] = {}
    for at, value in points:
        week = _on_clocks(at, zone) // timedelta(weeks=1)
        by_hour.setdefault(hour_of_week(at, zone), {}).setdefault(week, []).append(value)
    return {hour: _band([median(values) for values in weeks.values()]) for hour, weeks in by_hour.items()}


def _on_clocks(at: float, zone: tzinfo) -> timedelta:
    """Return how long after the first Monday clocks of the zone show it to be."""
    return datetime.fromtimestamp(at, zone).replace(tzinfo=None) - _MONDAY


def _band(values: Sequence[float]) -> Band:
    middle = median(values)
    width = max(WIDTH * median(abs(value - middle) for value in values), LEAST_WIDTH * abs(middle))
    return Band(low=middle - width, middle=middle, high=middle + width, weeks=len(values))


def advise(known: dict[int, Band], at: float, value: float, name: str, zone: tzinfo = UTC) -> Advice:
    """Compare one value with the band of its hour, as clocks of the zone count hours."""
    band = known.get(hour_of_week(at, zone))
    if band is None or band.weeks < FEWEST_WEEKS:
        weeks = band.weeks if band else 0
        sentence = f"{name}: only {weeks} weeks are known of this hour, {FEWEST_WEEKS} are needed"
        return Advice(normal=None, sentence=sentence)
    usual = f"usual at this hour of the week is {band.low:.4g} to {band.high:.4g}"
    if band.low <= value <= band.high:
        return Advice(normal=True, sentence=f"{name} is {value:.4g}; {usual}")
    sentence = f"{name} is {value:.4g}; {usual}: start later, or say that you want to start anyway"
    return Advice(normal=False, sentence=sentence)
