"""Write the times of a calendar's event as its beginning is written: a day, a time, or a time in a zone.

RFC 5545 requires that of UNTIL, EXDATE and RDATE (3.3.10, 3.8.5), and calendars often write them otherwise.
The library that follows recurring events then reads them, or the whole event, as UTC.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo

MIDNIGHT, LAST_SECOND = time(), time(23, 59, 59)
"""Times that programs add, as UTC, to what is only a day."""

FIRST_PLACE = timezone(timedelta(hours=14))
"""Where a day begins first (Pacific/Kiritimati)."""


@dataclass(frozen=True)
class Writing:
    """How an event writes its times."""

    begins: date
    """Its DTSTART."""
    here: tzinfo | None
    """Whose clocks it means where it names no zone; None where those are each site's own."""

    def of(self, at: date) -> date | None:
        """Return the time as DTSTART is written; None where nothing says which that is. A day stays one."""
        if not isinstance(at, datetime):
            return at
        if not isinstance(self.begins, datetime):
            return self._day(at)
        if at.tzinfo is None:
            return at.replace(tzinfo=self.begins.tzinfo)
        if self.begins.tzinfo is not None:
            return at
        return None if self.here is None else _shown(at, self.here)

    def last(self, until: date) -> date:
        """Return the last moment of a rule that has this UNTIL, as DTSTART is written; with a zone, in UTC.

        A day belongs to the rule whole (RFC 2445). Of two moments that may be meant it is the later one.
        """
        if not isinstance(until, datetime):
            if not isinstance(self.begins, datetime):
                return until
            until = datetime.combine(until, LAST_SECOND)
        if not isinstance(self.begins, datetime):
            return self._day(until) or max(until.date(), _shown(until, FIRST_PLACE).date())
        if self.begins.tzinfo is not None:
            return until.replace(tzinfo=until.tzinfo or self.begins.tzinfo).astimezone(UTC)
        if until.tzinfo is None:
            return until
        return max(until.replace(tzinfo=None), _shown(until, self.here or FIRST_PLACE))

    def _day(self, at: datetime) -> date | None:
        if at.tzname() != "UTC" or at.time() in (MIDNIGHT, LAST_SECOND):
            return at.date()
        return None if self.here is None else _shown(at, self.here).date()


def _shown(at: datetime, place: tzinfo) -> datetime:
    return at.astimezone(place).replace(tzinfo=None)


def moment(at: date) -> date:
    """Return what is equal for one moment, whatever the zone in which it is written."""
    return at.astimezone(UTC) if isinstance(at, datetime) and at.tzinfo is not None else at
