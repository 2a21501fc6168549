"""Read a calendar (RFC 5545) as times in which nothing starts; what is too much of anything is refused."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import partial
from itertools import islice
from math import prod
from typing import Any

from icalendar import Calendar, Component, Timezone, vText
from icalendar.parser import Contentline, Contentlines
from icalendar.timezone import TZP
from recurring_ical_events import of as occurrences_of  # type: ignore[import-untyped]

from policies.model.errors import BadInput
from policies.model.value import sentence
from policies.model.windows import MOST_SPANS, Frozen
from policies.model.zones import SITE, zone
from policies.planning.event_times import Writing, moment

LARGEST = 1 << 20
"""Bytes of a calendar."""

MOST_EVENTS, MOST_RECURRING = 2_000, 100
"""Events of a calendar, and those of them that come again and again."""

AHEAD, BEHIND = timedelta(days=400), timedelta(days=40)
"""Which of its events count: those around now, so that one without an end has one."""

FIRST_YEAR, FIRST_YEAR_OF_DAYS = 1900, 2000
"""What comes again may have begun in it, daily or more seldom: what is older takes long to be followed."""

LAST_YEAR = 3000
"""Whatever ends later ends then: calculations with the last days that dates can have leave their range."""

MOST_INTERVAL = 1_000
"""Days, weeks, months or years between two times of an event; 0 would never end."""

_RARE = {"DAILY", "WEEKLY", "MONTHLY", "YEARLY"}
_FINER = ("BYHOUR", "BYMINUTE", "BYSECOND")
_TIMES = ("DTSTART", "DTEND", "DURATION", "RRULE", "RDATE", "EXDATE", "RECURRENCE-ID")
"""Properties that decide when an event takes place."""

_OTHERS = ("UID", "SUMMARY", "STATUS", "SEQUENCE")
"""Properties that are read besides; whatever else an event has may be odd, since nobody reads it."""

_PLACED = ("DTSTART", "DTEND", "RDATE", "EXDATE", "RECURRENCE-ID")
_LEFT_OUT = "X-LEFT-OUT"
"""Under which an event has the moments and days of its EXDATE; it goes with its times through the library."""
_BY_ZONE_OF_ALL = "X-BY-ZONE-OF-ALL"
"""Has an event that is there once more: it comes again by the clocks of the whole calendar's zone."""

_CALENDAR, _EVENT = ("VCALENDAR",), ("VCALENDAR", "VEVENT")
_PROPERTY = re.compile(r"([A-Za-z0-9-]+)[;:]")
_OF_EXCHANGE = re.compile(r""";TZID="?(tzone://Microsoft/\w+)"?(?=[;:])""", re.IGNORECASE)
"""A zone as Exchange writes it: without the quotation marks that its colon needs."""
_UTC_OF_EXCHANGE = "tzone://microsoft/utc"
_ZONE = re.compile(r""";TZID=("[^"]*"|[^";:]*)""", re.IGNORECASE)
_ESCAPED = re.compile(r"\\(.)")


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
        calendars, zones = _parsed(content, called)
        events = [event for calendar in calendars for event in calendar.walk("VEVENT")]
        for event in events:
            _refuse_unread(event, called)
        for calendar in calendars:
            of_all = _zone_of_all(calendar, called)
            _place_all(calendar, zones, of_all, called)
            for event in calendar.walk("VEVENT"):
                _write_alike(event, of_all or (None if tz == SITE else zone(tz)), at, called)
                _refuse_reversed(event, called)
        _refuse_too_much(events, called)
        _tell_apart([event for calendar in calendars for event in calendar.walk("VEVENT")])
        found = (one for calendar in calendars for one in _occurrences(calendar, at))
        spans = [_frozen(one, tz, called) for one in islice(found, MOST_SPANS + 1)]
    except BadInput:
        raise
    except Exception as error:  # the libraries raise anything for a file that is not a calendar
        raise BadInput(f"{called} is not a calendar (RFC 5545); export it again as an .ics file") from error
    if len(spans) > MOST_SPANS:
        raise BadInput(
            f"{called} has more than {MOST_SPANS} times within 400 days; leave out what is no freeze"
        )
    return tuple(sorted((one for one in spans if one is not None), key=lambda one: (one.begins, one.ends)))


def _occurrences(calendar: Any, at: datetime) -> Iterator[Any]:
    """Yield the times of the events, one event with its versions after another.

    The library follows each rule from its beginning. So no more events are followed than it takes to have
    too many times, and none whose rules all ended before.
    """
    by_uid, seen = dict[str, list[Any]](), set[tuple[date, date]]()
    for event in calendar.walk("VEVENT"):
        by_uid.setdefault(_uid(event), []).append(event)
    for events in by_uid.values():
        if len(events) == 1 and _is_long_over(events[0], at):
            continue
        part = Calendar()
        part.subcomponents = events
        found = occurrences_of(part).between(at - BEHIND, at + AHEAD)
        for one in found:
            times = moment(one["DTSTART"].dt), moment(one["DTEND"].dt)
            if not _is_left_out(one) and not (times in seen and _BY_ZONE_OF_ALL in one):
                seen |= set() if _is_cancelled(one) else {times}
                yield one


def _is_long_over(event: Any, at: datetime) -> bool:
    """Return whether the event and each of its rules ended before the times that are asked about."""
    ends = [one for rule in _said(event, "RRULE") for one in rule.get("UNTIL", [date.max])]
    if not ends or "RDATE" in event:
        return False
    begins, end = event["DTSTART"].dt, event.get("DTEND", event["DTSTART"]).dt
    length = event["DURATION"].dt if "DURATION" in event else _shown(end) - _shown(begins)
    last = max(map(_shown, [begins, *ends]))
    earliest = (at - BEHIND).replace(tzinfo=None) - timedelta(days=2)  # a day each for zones and whole days
    return bool(last < earliest - max(length, timedelta()))


def _parsed(content: bytes, called: str) -> tuple[list[Any], Mapping[str, tzinfo]]:
    """Return the calendars of the file without their zones, and the zones that this file defines.

    icalendar keeps every VTIMEZONE that it reads in one cache of the process, so it is given none.
    """
    lines, blocks, before = list[str](), list[list[str]](), ""
    for inside, name, line in _placed(content):
        if "VTIMEZONE" in inside:
            if name == "BEGIN" and inside[-1] == "VTIMEZONE":
                blocks.append([])
            blocks[-1].append(line)
        elif _is_read(inside, name, line):
            lines.append(_in_one_zone(line, called) if name in _TIMES else line)
        elif not name and inside == _EVENT and _may_concern_time(line, before):
            raise BadInput(f"{called}: the line {sentence(line, 60)} cannot be read; correct it")
        before = name or before
    zones = dict[str, tzinfo]()
    for block in blocks:
        with suppress(Exception):  # an event in a zone that cannot be read is refused by the zone's name
            zones.update([_defined(block)])
    return Calendar.from_ical(_text(lines), multiple=True), zones


def _placed(content: bytes) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """Yield each line after the components that it is in and the name of its property, empty without one."""
    inside: tuple[str, ...] = ()
    for raw in Contentlines.from_ical(content):  # type: ignore[no-untyped-call]
        line = raw.lstrip("\ufeff")
        found = _PROPERTY.match(line)
        name, part = found[1].upper() if found else "", line.partition(":")[2].strip().upper()
        if name == "BEGIN":
            inside += (part,)
        if not inside and line.strip():
            raise ValueError("a line outside a calendar")
        if name == "BEGIN" and part == "VEVENT" and inside != _EVENT:
            raise ValueError("an event outside a calendar, or in another event")
        yield inside, name, line
        if name == "END":
            if inside[-1:] != (part,):
                raise ValueError("a component ends that has not begun")
            inside = inside[:-1]
    if inside:
        raise ValueError("a component does not end")


def _may_concern_time(line: str, before: str) -> bool:
    """Whether a line that is no property may be a time, or the rest of one."""
    return before in _TIMES or line.upper().startswith(_TIMES)


def _is_read(inside: tuple[str, ...], name: str, line: str) -> bool:
    if inside == _CALENDAR:
        return name in ("BEGIN", "END", "X-WR-TIMEZONE")
    if inside != _EVENT:
        return False
    if name in ("BEGIN", "END", *_TIMES):
        return True
    whole = name != "SEQUENCE" or line.rpartition(":")[2].strip().isdecimal()
    return name in _OTHERS and whole and _is_sound(line)


def _in_one_zone(line: str, called: str) -> str:
    """Return the line of a time in UTC without a zone beside it, which does not apply (RFC 5545, 3.3.5).

    Raises:
        BadInput: It has times of both.
    """
    line = _zone_of_exchange(line)
    named, values = _ZONE.search(line), line.rpartition(":")[2].split(",")
    in_utc = [value.strip()[15:16].upper() == "Z" for value in values]
    if named is None or not any(in_utc):
        return line
    if not all(in_utc):
        raise BadInput(f"{called}: the line {sentence(line, 60)} has times of two zones; write two lines")
    return line[: named.start()] + line[named.end() :]


def _zone_of_exchange(line: str) -> str:
    """Return the line of a time with a zone of Exchange in quotation marks, or as UTC where it is that."""
    found = _OF_EXCHANGE.search(line)
    if found is None:
        return line
    name = "UTC" if found[1].lower() == _UTC_OF_EXCHANGE else f'"{found[1]}"'
    return f"{line[: found.start()]};TZID={name}{line[found.end() :]}"


def _is_sound(line: str) -> bool:
    try:
        _value(line)
    except ValueError:
        return False
    return True


def _value(line: str) -> str:
    """Return the value of a property; ValueError where the line is none."""
    return str(Contentline(line).parts()[2])  # type: ignore[no-untyped-call]


def _text(lines: Sequence[str]) -> str:
    return "\r\n".join([*lines, ""])


def _defined(block: Sequence[str]) -> tuple[str, tzinfo]:
    """Return the name of a zone that a file defines, and its rules."""
    zone = Timezone()
    name = next(_unescaped(_value(line)) for line in block if line[:5].upper() in ("TZID:", "TZID;"))
    zone.add("TZID", name)
    begin = next(at for at, line in enumerate(block) if at and line.upper().startswith("BEGIN:"))
    for part in Component.from_ical(_text(block[begin:-1]), multiple=True):
        zone.add_component(part)
    return name, zone.to_tz(TZP(), lookup_tzid=False)


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(r"\1", text)


def _zone_of_all(calendar: Any, called: str) -> tzinfo | None:
    """Return the zone of a whole calendar, by any known name; the calendar has none any more.

    Raises:
        BadInput: The zone is unknown, and an event needs it.
    """
    name = str(calendar.pop("X-WR-TIMEZONE", "")).strip()
    known = getattr(TZP().timezone(name), "key", None) if name else None
    if known is not None:
        return zone(known)
    if name and any(map(_needs_zone_of_all, calendar.walk("VEVENT"))):
        where = sentence(name, 80)
        raise BadInput(f"{called}: its X-WR-TIMEZONE is {where}, which is unknown here; write an IANA name")
    return None


def _needs_zone_of_all(event: Any) -> bool:
    """Whether the event has a time without a zone, or comes again by a clock that it names as UTC only."""
    times = [event[key] for key in ("DTSTART", "DTEND") if key in event]
    unplaced = [one.dt for one in times if isinstance(one.dt, datetime) and "TZID" not in one.params]
    return any("RRULE" in event or at.tzinfo is None for at in unplaced)


def _place_all(calendar: Any, zones: Mapping[str, tzinfo], of_all: tzinfo | None, called: str) -> None:
    """Put all times into their zones, and those that name none into that of the whole calendar.

    An event that comes again, with times in UTC, follows the clocks of UTC (RFC 5545, 3.3.10). Programs that
    write a zone of the whole calendar may mean its clocks. So such an event is there by both.
    """
    events = calendar.walk("VEVENT")
    for event in events:
        for key in _TIMES:
            for one in _said(event, key):
                _place(one, zones, event, called)
        _end_in_time(event)
    if of_all is None:
        return
    again = {_uid(event) for event in events if "RRULE" in event and _is_in_utc(event["DTSTART"])}
    for event in events:
        if _uid(event) not in again:
            _put(event, partial(_in_zone_of_all, of_all))
            continue
        other = deepcopy(event)
        other["UID"], other[_BY_ZONE_OF_ALL] = vText(f"{_uid(event)} {_BY_ZONE_OF_ALL}"), True
        calendar.add_component(other)
        _put(other, partial(_in_zone_of_all, of_all))
        _put(event, lambda said: said if _has_zone(said) else _in_zone_of_all(of_all, said))


def _put(event: Any, written: Callable[[date], date]) -> None:
    """Write the times of an event anew, but for those that have a zone of their own, which may be UTC."""
    if not isinstance(event["DTSTART"].dt, datetime):
        return
    for key in _PLACED:
        for said in _said(event, key):
            for one in said.dts if "TZID" not in said.params else ():
                one.dt = _each_end(one.dt, written)


def _is_in_utc(said: Any) -> bool:
    return "TZID" not in said.params and _has_zone(said.dt)


def _has_zone(at: date) -> bool:
    return isinstance(at, datetime) and at.tzinfo is not None


def _uid(event: Any) -> str:
    return str(event.get("UID", ""))


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
        defined = zones.get(str(name)) or zones.get(_unescaped(str(name)))
        if isinstance(at, datetime) and defined is not None and not _is_iana(at):
            one.dt = at.replace(tzinfo=defined)
        elif first.tzinfo is None:
            where = sentence(str(name), 80)
            raise BadInput(
                f"{called}: {_name(event)} is in the zone {where}, which is unknown here; "
                "write an IANA name such as Europe/Berlin, or define the zone by a VTIMEZONE"
            )


def _write_alike(event: Any, here: tzinfo | None, at: datetime, called: str) -> None:
    """Write all times of the event as its beginning is written; those that are left out go into a set.

    Raises:
        BadInput: Nothing says which time is meant; the sentence names the property.
    """
    writing = Writing(event["DTSTART"].dt, here)
    for key in ("DTEND", "RDATE", "EXDATE"):
        for one in _each(event, key):
            of_days = not isinstance(writing.begins, datetime) and isinstance(one.dt, tuple)
            one.dt = None if of_days else _each_end(one.dt, partial(_alike, key, writing))
            if one.dt is None or (isinstance(one.dt, tuple) and None in one.dt):
                raise BadInput(
                    f"{called}: the {key} of {_name(event)} is of another kind than its DTSTART (a day, a "
                    "local time, a time in UTC or in a zone); write both alike"
                )
    event[_LEFT_OUT] = frozenset(moment(one.dt) for one in _each(event, "EXDATE"))
    event.pop("EXDATE", None)
    for rule in _said(event, "RRULE"):
        _bound(rule, writing, at, event, called)


def _each(event: Any, key: str) -> Iterator[Any]:
    for said in _said(event, key):
        yield from said.dts


def _each_end(said: Any, written: Callable[[date], date | None]) -> Any:
    """Return the time as it is to be written; of a period both of its ends."""
    if isinstance(said, tuple):
        return tuple(one if isinstance(one, timedelta) else written(one) for one in said)
    return written(said)


def _in_zone_of_all(of_all: tzinfo, said: date) -> date:
    if not isinstance(said, datetime):
        return said
    if said.tzinfo is None:
        return said.replace(tzinfo=of_all)
    return said.astimezone(of_all) if said.tzname() == "UTC" else said


def _alike(key: str, writing: Writing, said: date) -> date | None:
    is_day = not isinstance(said, datetime)
    return None if key == "RDATE" and is_day and isinstance(writing.begins, datetime) else writing.of(said)


def _is_left_out(event: Any) -> bool:
    """Whether that time of an event is one of its EXDATE, by its moment or by its day.

    Compared here, since the library takes the hour in one zone for the same hour in another one. A time that
    was moved is an event of its own without EXDATE, so it counts wherever it was moved to.
    """
    begins = event["DTSTART"].dt
    days = {begins.date()} if isinstance(begins, datetime) else set()
    return bool(event.get(_LEFT_OUT, frozenset()) & {moment(begins), *days})


def _is_cancelled(event: Any) -> bool:
    return str(event.get("STATUS", "")).upper() == "CANCELLED"


def _is_iana(at: datetime) -> bool:
    return getattr(at.tzinfo, "key", None) is not None


def _end_in_time(event: Any) -> None:
    """Have an event that ends at a time begin at one, and one without an end worth mentioning end at last."""
    begins, ends = event["DTSTART"], event.get("DTEND")
    if ends is None:
        return
    if isinstance(ends.dt, datetime) and not isinstance(begins.dt, datetime):
        begins.dt = _shown(begins.dt)
    if ends.dt.year > LAST_YEAR:
        ends.dt = ends.dt.replace(year=LAST_YEAR, day=1)


def _refuse_too_much(events: Sequence[Any], called: str) -> None:
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
    return _shown(one) < _shown(other)


def _shown(at: date) -> datetime:
    """Return what clocks show then; a day begins at midnight."""
    return at.replace(tzinfo=None) if isinstance(at, datetime) else datetime.combine(at, time())


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
        raise BadInput(
            f"{called}: the RRULE of {what} has no FREQ, which RFC 5545 requires, so when it comes again is "
            "unknown; write one, or remove the RRULE of an event that happens once"
        )
    times_a_day = prod(len(rule.get(key, [0])) for key in _FINER)
    if str(rule["FREQ"][0]).upper() not in _RARE or times_a_day > 1:
        raise BadInput(f"{called}: {what} comes more often than daily; write one that does not")
    named = {key.upper() for key in rule}
    if {"BYMONTH", "BYMONTHDAY"} <= named and str(rule.get("FREQ", [""])[0]).upper() != "YEARLY":
        raise BadInput(f"{called}: {what} is on days of months; write it with FREQ=YEARLY")
    if not all(1 <= int(interval) < MOST_INTERVAL for interval in rule.get("INTERVAL", [1])):
        raise BadInput(f"{called}: {what} never comes to an end; write an INTERVAL from 1 to {MOST_INTERVAL}")
    first = FIRST_YEAR_OF_DAYS if str(rule["FREQ"][0]).upper() == "DAILY" else FIRST_YEAR
    if event["DTSTART"].dt.year < first:
        raise BadInput(f"{called}: {what} began before {first}; write a later beginning")


def _bound(rule: Any, writing: Writing, at: datetime, event: Any, called: str) -> None:
    """Let a rule end after what is asked about: days that no calendar has are looked for until its end."""
    said, far = rule.get("UNTIL", []), at + AHEAD + timedelta(days=2)
    if len(said) > 1 or not all(isinstance(one, date) for one in said):
        raise BadInput(f"{called}: the UNTIL of {_name(event)} cannot be read; write one day or time")
    if said and _shown(said[0]) < far.replace(tzinfo=None):
        rule["UNTIL"] = [writing.last(said[0])]
    elif said or "COUNT" not in rule:
        rule["UNTIL"] = [writing.last(far)]


def _frozen(event: Any, tz: str, called: str) -> Frozen | None:
    """Return when the event takes place; None for one that was cancelled.

    A day without an end is a whole day, and a time without one ends when it begins (RFC 5545, 3.6.1).

    Raises:
        BadInput: It ends when it begins, so that it would freeze nothing.
    """
    if _is_cancelled(event):
        return None
    begins, ends = event["DTSTART"].dt, event["DTEND"].dt
    if not isinstance(begins, datetime) and not isinstance(ends, datetime) and ends <= begins:
        ends = begins + timedelta(days=1)  # calendars of holidays write such days; all clients show one day
    (begin, place), (end, other) = _local(begins, tz), _local(ends, tz)
    if place != other:
        begin, end, place = _utc(begins), _utc(ends), "UTC"
    if end <= begin:
        raise BadInput(
            f"{called}: {_name(event)} at {begin} has no length, so it would freeze nothing; write its DTEND "
            "or DURATION, or remove the event"
        )
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
