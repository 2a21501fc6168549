"""Read a calendar (RFC 5545) as times in which nothing starts; what is too much of anything is refused."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from itertools import islice
from math import prod
from typing import Any

from icalendar import Calendar, Component, Timezone, vText
from icalendar.parser import Contentlines
from icalendar.timezone import TZP
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
_FINER = ("BYHOUR", "BYMINUTE", "BYSECOND")
_TIMES = ("DTSTART", "DTEND", "DURATION", "RRULE", "RDATE", "EXDATE", "RECURRENCE-ID")
"""Properties that decide when an event takes place."""


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
        calendar, zones = _parsed(content)
        _name_zone_of_all(calendar, called)
        for event in calendar.walk("VEVENT"):
            _refuse_unread(event, called)
            for key in _TIMES:
                for one in _said(event, key):
                    _place(one, zones, event, called)
            _refuse_reversed(event, called)
        _refuse_too_much(calendar, called, at)
        _tell_apart(calendar.walk("VEVENT"))
        found = occurrences_of(calendar).between(at - BEHIND, at + AHEAD)
        spans = [_frozen(one, tz) for one in islice(found, MOST_SPANS + 1)]
    except BadInput:
        raise
    except Exception as error:  # the libraries raise anything for a file that is not a calendar
        raise BadInput(f"{called} is not a calendar (RFC 5545); export it again as an .ics file") from error
    if len(spans) > MOST_SPANS:
        raise BadInput(
            f"{called} has more than {MOST_SPANS} times within 400 days; leave out what is no freeze"
        )
    return tuple(sorted((one for one in spans if one is not None), key=lambda one: (one.begins, one.ends)))


def _parsed(content: bytes) -> tuple[Any, Mapping[str, tzinfo]]:
    """Return the calendar without its zones, and the zones that this file defines.

    icalendar keeps every VTIMEZONE that it reads in one cache of the process, so it is given none.
    """
    lines, blocks = list[str](), list[list[str]]()
    within = False
    for line in Contentlines.from_ical(content):  # type: ignore[no-untyped-call]
        within = within or line.upper() == "BEGIN:VTIMEZONE"
        if not within:
            lines.append(line)
            continue
        if line.upper() == "BEGIN:VTIMEZONE":
            blocks.append([])
        blocks[-1].append(line)
        within = line.upper() != "END:VTIMEZONE"
    return Calendar.from_ical(_text(lines)), dict(map(_defined, blocks))


def _text(lines: Sequence[str]) -> str:
    return "\r\n".join([*lines, ""])


def _defined(block: Sequence[str]) -> tuple[str, tzinfo]:
    """Return the name of a zone that a file defines, and its rules."""
    zone = Timezone()
    names = [line.partition(":")[2] for line in block if line.upper().startswith("TZID:")]
    zone.add("TZID", names[0])
    begin = next(at for at, line in enumerate(block) if at and line.upper().startswith("BEGIN:"))
    for part in Component.from_ical(_text(block[begin:-1]), multiple=True):
        zone.add_component(part)
    return names[0], zone.to_tz(TZP(), lookup_tzid=False)


def _name_zone_of_all(calendar: Any, called: str) -> None:
    """Write the zone of a whole calendar by its IANA name, as the reader of X-WR-TIMEZONE requires."""
    name = calendar.get("X-WR-TIMEZONE")
    if name is None:
        return
    known = getattr(TZP().timezone(str(name)), "key", None)
    if known is None:
        where = sentence(str(name), 80)
        raise BadInput(f"{called}: its X-WR-TIMEZONE is {where}, which is unknown here; write an IANA name")
    calendar["X-WR-TIMEZONE"] = vText(known)


def _place(said: Any, zones: Mapping[str, tzinfo], event: Any, called: str) -> None:
    """Put the times of a property into the zone that the file defines by the name of their zone.

    Raises:
        BadInput: The zone is neither defined by the file nor known by its name.
    """
    name = getattr(said, "params", {}).get("TZID")
    for one in said.dts if hasattr(said, "dts") else [said]:
        at = getattr(one, "dt", None)
        first = at[0] if isinstance(at, tuple) else at
        if name is None or not isinstance(first, datetime):
            continue
        if isinstance(at, datetime) and str(name) in zones and not _is_iana(at):
            one.dt = at.replace(tzinfo=zones[str(name)])
        elif first.tzinfo is None:
            where = sentence(str(name), 80)
            raise BadInput(
                f"{called}: {_name(event)} is in the zone {where}, which is unknown here; "
                "write an IANA name such as Europe/Berlin, or define the zone by a VTIMEZONE"
            )


def _is_iana(at: datetime) -> bool:
    return getattr(at.tzinfo, "key", None) is not None


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
        for rule in _said(event, "RRULE"):
            _refuse_rule(rule, event, called)
            _bound(rule, event, at)


def _name(event: Any) -> str:
    return sentence(str(event.get("SUMMARY", "")), 60) or "an event"


def _refuse_unread(event: Any, called: str) -> None:
    """Refuse an event of which a time is missing, or was not understood."""
    for key, _ in event.errors:
        if key is None or str(key).upper() in _TIMES:
            what = "a line" if key is None else f"the {str(key).upper()}"
            raise BadInput(f"{called}: {what} of {_name(event)} cannot be read; correct it")
    if "DTSTART" not in event:
        raise BadInput(f"{called}: {_name(event)} has no beginning; add a DTSTART or remove the event")


def _refuse_reversed(event: Any, called: str) -> None:
    begins, key = event["DTSTART"].dt, "DURATION" if "DTEND" not in event else "DTEND"
    ends = event[key].dt if key in event else begins
    if _is_before(begins + ends if isinstance(ends, timedelta) else ends, begins):
        raise BadInput(f"{called}: {_name(event)} ends before it begins; correct its {key}")


def _is_before(one: date, other: date) -> bool:
    if isinstance(one, datetime) and isinstance(other, datetime):
        return _utc(one) < _utc(other)
    return _day(one) < _day(other)


def _day(at: date) -> date:
    return at.date() if isinstance(at, datetime) else at


def _tell_apart(events: Sequence[Any]) -> None:
    """Give events that share a UID, and are no versions of one another, a UID each: all of them count.

    Of versions the one with the highest SEQUENCE counts. Exporters that write one UID, or an empty one, for
    every event write no SEQUENCE.
    """
    seen = set[tuple[str, ...]]()
    for number, event in enumerate(events):
        again = event["RECURRENCE-ID"].to_ical().decode() if "RECURRENCE-ID" in event else ""
        known = (str(event.get("UID", "")), again, str(event.get("SEQUENCE", 0)))
        if known in seen:
            event["UID"] = vText(f"{number} {known[0]}")
        seen.add(known)


def _said(event: Any, key: str) -> Sequence[Any]:
    said = event.get(key, [])
    return said if isinstance(said, list) else [said]


def _refuse_rule(rule: Any, event: Any, called: str) -> None:
    what = _name(event)
    if not rule.get("FREQ"):
        raise BadInput(f"{called}: the RRULE of {what} has no FREQ; write one, or remove the RRULE")
    times_a_day = prod(len(rule.get(key, [0])) for key in _FINER)
    if str(rule["FREQ"][0]).upper() not in _RARE or times_a_day > 1:
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
    """Return when the event takes place; None for one that was cancelled or has no length."""
    if str(event.get("STATUS", "")).upper() == "CANCELLED":
        return None
    begins, ends = event["DTSTART"].dt, event["DTEND"].dt
    if not isinstance(begins, datetime) and not isinstance(ends, datetime) and ends <= begins:
        ends = begins + timedelta(days=1)  # calendars of holidays write such days; all clients show one day
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
