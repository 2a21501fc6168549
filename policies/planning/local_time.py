"""Local times as instants: what a clock on the wall shows is one moment, also where clocks are changed.

A time that no clock shows is the first moment after it; one that a clock shows twice is the first of the two.
"""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

_EXACT = timedelta(seconds=1)


def instant(local: datetime, zone: ZoneInfo) -> datetime:
    """Return the moment at which clocks of that zone show this time, in UTC."""
    first = local.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if shown(first, zone) == local:
        return first
    return _end_of_gap(local.replace(tzinfo=zone, fold=1).astimezone(UTC), first, zone)


def shown(at: datetime, zone: ZoneInfo) -> datetime:
    """Return what clocks of that zone show at that moment."""
    return at.astimezone(zone).replace(tzinfo=None, fold=0)


def _end_of_gap(before: datetime, after: datetime, zone: ZoneInfo) -> datetime:
    """Return the moment between these two from which on clocks show another offset, to the second."""
    offset = before.astimezone(zone).utcoffset()
    while after - before > _EXACT:
        middle = before + timedelta(seconds=(after - before) // _EXACT // 2)
        if middle.astimezone(zone).utcoffset() == offset:
            before = middle
        else:
            after = middle
    return after
