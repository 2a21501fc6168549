"""Read a calendar (RFC 5545) as times in which nothing starts; what is too much of anything is refused."""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from itertools import islice
from typing import Any

from icalendar import Calendar
from recurring_ical_events import of as occurrences_of  # type: ignore[import-untyped]

from policies.model.errors import BadInput
from policies.model.value import sentence
from policies.model.windows import MOST_SPANS, Frozen
from policies.model.zones import zone

LARGEST = 1 << 20
"""Bytes of a calendar."""

MOST_EVENTS, MOST_RECURRING = 2_000, 100
"""Events of a calendar, and those of them that come again and again."""

AHEAD, BEHIND = timedelta(days=400), timedelta(days=40)
"""Which of its events count: those around now, so that one without an end has one."""

FIRST_YEAR = 2000
"""What comes again may have begun in it: whatever is older takes long to be followed until today."""

MOST_INTERVAL = 1_000
"""Days, weeks, months or years between two times of an event; 0 would never end."""

_RARE = {"DAILY", "WEEKLY", "MONTHLY", "YEARLY"}
_FINER = {"BYHOUR", "BYMINUTE", "BYSECOND"}


def read_calendar(content: bytes, called: str, tz: str, at: datetime) -> tuple[Frozen, ...]:
    """Return when the events of a calendar take place, from 40 days before that moment to 400 days after it.

    Args:
        content: The file.
        called: How sentences call it.
        tz: The zone, or `site`, of events that name none and of whole days.
        at: The moment.

    Raises:
        BadInput: It is no calendar, or has too much of something; a sentence says of what.
    """
    if len(content) > LARGEST:
        raise BadInput(f"{called} is larger than {LARGEST} bytes; leave out what is long over")
    try:
        calendar = Calendar.from_ical(content)
        _refuse_too_much(calendar, called, at)
        found = occurrences_of(calendar).between(at - BEHIND, at + AHEAD)
        spans = [_frozen(one, tz) for one in islice(found, MOST_SPANS + 1)]
    except BadInput:
        raise
    except Exception as error:  # whatever a library says of what a stranger wrote
        why = sentence(str(error), 200) or type(error).__name__
        raise BadInput(f"{called} is no calendar that is understood: {why}; export it anew") from error
    if len(spans) > MOST_SPANS:
        raise BadInput(
            f"{called} has more than {MOST_SPANS} times within 400 days; leave out what is no freeze"
        )
    return tuple(sorted((one for one in spans if one is not None), key=lambda one: (one.begins, one.ends)))


def _refuse_too_much(calendar: Any, called: str, at: datetime) -> None:
    events: Sequence[Any] = calendar.walk("VEVENT")
    if not events:
        raise BadInput(f"{called} has no event; check that it is the calendar you mean")
    if len(events) > MOST_EVENTS:
        raise BadInput(
            f"{called} has {len(events)} events, more than {MOST_EVENTS}; leave out what is long over"
        )
    recurring = [event for event in events if "RRULE" in event]
    if len(recurring) > MOST_RECURRING:
        many = f"{len(recurring)} events that come again, more than {MOST_RECURRING}"
        raise BadInput(f"{called} has {many}; leave out what is no freeze")
    for event in recurring:
        for rule in _rules(event):
            _refuse_rule(rule, event, called)
            _bound(rule, event, at)


def _rules(event: Any) -> Iterator[Any]:
    said = event["RRULE"]
    yield from said if isinstance(said, list) else [said]


def _refuse_rule(rule: Any, event: Any, called: str) -> None:
    what = sentence(str(event.get("SUMMARY", "an event")), 60)
    if str(rule.get("FREQ", [""])[0]).upper() not in _RARE or _FINER & {key.upper() for key in rule}:
        raise BadInput(f"{called}: {what} comes more often than daily; write one that does not")
    named = {key.upper() for key in rule}
    if {"BYMONTH", "BYMONTHDAY"} <= named and str(rule.get("FREQ", [""])[0]).upper() != "YEARLY":
        raise BadInput(f"{called}: {what} is on days of months; write it with FREQ=YEARLY")
    if not all(1 <= int(interval) < MOST_INTERVAL for interval in rule.get("INTERVAL", [1])):
        raise BadInput(f"{called}: {what} never comes to an end; write an INTERVAL from 1 to {MOST_INTERVAL}")
    if event["DTSTART"].dt.year < FIRST_YEAR:
        raise BadInput(f"{called}: {what} began before {FIRST_YEAR}; write a later beginning")


def _bound(rule: Any, event: Any, at: datetime) -> None:
    """Let a rule end after what is asked about: days that no calendar has are looked for until its end."""
    if "UNTIL" in rule or "COUNT" in rule:
        return
    last, begins = at + AHEAD + timedelta(days=2), event["DTSTART"].dt
    if not isinstance(begins, datetime):
        rule["UNTIL"] = [last.date()]
    else:
        rule["UNTIL"] = [last if begins.tzinfo is not None else last.replace(tzinfo=None)]


def _frozen(event: Any, tz: str) -> Frozen | None:
    """Return when the event takes place, None for one without a length."""
    begins, ends = event["DTSTART"].dt, event["DTEND"].dt
    (begin, place), (end, other) = _local(begins, tz), _local(ends, tz)
    if place != other:
        begin, end, place = _utc(begins), _utc(ends), "UTC"
    if end <= begin:
        return None
    return Frozen(begins=begin, ends=end, tz=place, what=sentence(str(event.get("SUMMARY", "")), 200))


def _local(at: date | datetime, tz: str) -> tuple[datetime, str]:
    """Return what clocks show then, and whose: those of the event's own zone where it is a known one."""
    if not isinstance(at, datetime):
        return datetime.combine(at, time()), tz
    if at.tzinfo is None:
        return at, tz
    key = getattr(at.tzinfo, "key", None)
    try:
        zone(str(key))
    except ValueError:
        return _utc(at), "UTC"
    return at.replace(tzinfo=None, fold=0), str(key)


def _utc(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(tzinfo=None)
