"""Calendars as freezes: what they say is understood, and what is hostile is refused in one sentence."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recurring_ical_events import of as occurrences_of  # type: ignore[import-untyped]

from policies.model.errors import BadInput
from policies.planning import calendars
from policies.planning.calendars import LARGEST, read_calendar

AT = datetime(2026, 11, 1, tzinfo=UTC)


def calendar(*events: str) -> bytes:
    said = "\r\n".join(f"BEGIN:VEVENT\r\nUID:{n}\r\n{event}\r\nEND:VEVENT" for n, event in enumerate(events))
    return f"BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//test//EN\r\n{said}\r\nEND:VCALENDAR\r\n".encode()


def told(*events: str, tz: str = "Europe/Berlin") -> list[tuple[str, str, str, str]]:
    found = read_calendar(calendar(*events), "finance.ics", tz, AT)
    return [(one.begins.isoformat(), one.ends.isoformat(), one.tz, one.what) for one in found]


def test_a_whole_day_is_a_day_of_each_site() -> None:
    event = "DTSTART;VALUE=DATE:20261126\r\nDTEND;VALUE=DATE:20261201\r\nSUMMARY:black friday"
    assert told(event, tz="site") == [("2026-11-26T00:00:00", "2026-12-01T00:00:00", "site", "black friday")]


def test_an_event_with_a_zone_keeps_it_and_one_in_utc_stays_there() -> None:
    here = "DTSTART;TZID=America/New_York:20261126T090000\r\nDTEND;TZID=America/New_York:20261126T170000"
    there = "DTSTART:20261127T090000Z\r\nDTEND:20261127T170000Z"
    assert [one[:3] for one in told(here, there)] == [
        ("2026-11-26T09:00:00", "2026-11-26T17:00:00", "America/New_York"),
        ("2026-11-27T09:00:00", "2026-11-27T17:00:00", "UTC"),
    ]


def test_what_comes_again_comes_again_without_the_days_that_are_left_out() -> None:
    event = (
        "DTSTART;VALUE=DATE:20250131\r\nRRULE:FREQ=MONTHLY;BYMONTHDAY=-1;UNTIL=20270201\r\n"
        "EXDATE;VALUE=DATE:20261231\r\nSUMMARY:month's end"
    )
    assert [one[0][:10] for one in told(event)] == ["2026-09-30", "2026-10-31", "2026-11-30", "2027-01-31"]


def test_what_never_ends_is_followed_for_400_days() -> None:
    found = told("DTSTART;VALUE=DATE:20200106\r\nRRULE:FREQ=WEEKLY\r\nSUMMARY:mondays")
    assert found[0][0] == "2026-09-28T00:00:00"
    assert found[-1][0] == "2027-11-29T00:00:00"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is not a calendar|has no event"),
        (b"<html>sign in</html>", "is not a calendar \\(RFC 5545\\); export it again"),
        (b"\xff\xfe\x00", "is not a calendar"),
        (calendar(), "has no event; check that it is the calendar you mean"),
        (b"x" * (LARGEST + 1), "is larger than 1048576 bytes"),
        (calendar(*["DTSTART:20261101T000000Z"] * 2001), "has 2001 events, more than 2000"),
        (calendar(*["DTSTART:20261101T000000Z\r\nRRULE:FREQ=DAILY"] * 101), "101 events that come again"),
        (
            calendar("DTSTART:20261101T000000Z\r\nRRULE:FREQ=SECONDLY\r\nSUMMARY:x"),
            "x comes more often than daily",
        ),
        (
            calendar("DTSTART:20261101T000000Z\r\nRRULE:FREQ=DAILY;BYSECOND=1,2"),
            "comes more often than daily",
        ),
        (
            calendar("DTSTART:00010101T000000Z\r\nRRULE:FREQ=DAILY"),
            "began before 2000; write a later beginning",
        ),
        (
            calendar(*["DTSTART:20261101T000000Z\r\nDTEND:20261101T010000Z\r\nRRULE:FREQ=DAILY"] * 5),
            "has more than 1000 times within 400 days",
        ),
    ],
)
def test_what_is_hostile_or_huge_is_refused_in_one_sentence(content: bytes, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence) as refused:
        read_calendar(content, "finance.ics", "UTC", AT)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 400


@settings(max_examples=60)
@given(st.binary(max_size=300), st.integers(0, 200))
def test_a_calendar_that_was_spoiled_anywhere_is_read_or_refused_and_nothing_else(
    spoil: bytes, at: int
) -> None:
    good = calendar("DTSTART:20261101T000000Z\r\nDTEND:20261101T010000Z\r\nRRULE:FREQ=WEEKLY;COUNT=3")
    with suppress(BadInput):
        read_calendar(good[:at] + spoil + good[at:], "finance.ics", "UTC", AT)


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "rule",
    ["FREQ=DAILY;INTERVAL=0", "FREQ=WEEKLY;BYDAY=MO;INTERVAL=-1", "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30"],
)
def test_what_would_never_come_to_an_end_is_refused(rule: str) -> None:
    with pytest.raises(BadInput):
        told(f"DTSTART:20261101T090000Z\r\nDTEND:20261101T100000Z\r\nRRULE:{rule}")


@pytest.mark.timeout(60)
def test_a_day_that_no_calendar_has_is_not_looked_for_until_the_end_of_time() -> None:
    event = "DTSTART:20200101T090000Z\r\nDTEND:20200101T100000Z\r\nRRULE:FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30"
    assert told(*[event] * 3) == []


def in_a_zone_of_its_own(offset: str, *, zone_first: bool = True) -> bytes:
    """Return a calendar as Outlook exports it: the zone has a common name and is defined in the file."""
    rules = "\r\n".join(
        f"BEGIN:{part}\r\nDTSTART:16010101T030000\r\nTZOFFSETFROM:{offset}\r\nTZOFFSETTO:{offset}\r\nEND:{part}"
        for part in ("STANDARD", "DAYLIGHT")
    )
    name = "Customized Time Zone"
    zone = f"BEGIN:VTIMEZONE\r\nTZID:{name}\r\n{rules}\r\nEND:VTIMEZONE"
    event = (
        f"BEGIN:VEVENT\r\nUID:1\r\nDTSTART;TZID={name}:20261210T080000\r\nDTEND;TZID={name}:20261210T100000\r\n"
        "END:VEVENT"
    )
    parts = [zone, event] if zone_first else [event, zone]
    return "\r\n".join(["BEGIN:VCALENDAR", "VERSION:2.0", *parts, "END:VCALENDAR", ""]).encode()


def begins(content: bytes) -> list[str]:
    return [f"{one.begins:%d %H:%M} {one.tz}" for one in read_calendar(content, "f.ics", "Europe/Berlin", AT)]


@pytest.mark.parametrize("zone_first", [True, False])
def test_a_zone_that_a_file_defines_is_that_file_s_alone(*, zone_first: bool) -> None:
    """Case 30: the first file's definition was used for all later files of the process."""
    west, east = (in_a_zone_of_its_own(offset, zone_first=zone_first) for offset in ("-0700", "+0900"))
    for _ in range(2):
        assert begins(west) == ["10 15:00 UTC"]
        assert begins(east) == ["09 23:00 UTC"]
    without = calendar("DTSTART;TZID=Customized Time Zone:20261210T080000\r\nDURATION:PT1H")
    with pytest.raises(BadInput, match="in the zone Customized Time Zone, which is unknown"):
        begins(without)


def test_calendars_that_are_read_at_the_same_time_keep_their_own_zones() -> None:
    """Case 30, by threads: the worker reads the calendars of many fleets side by side."""
    west, east = in_a_zone_of_its_own("-0700"), in_a_zone_of_its_own("+0900")
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(begins, [west, east] * 40))
    assert found == [["10 15:00 UTC"], ["09 23:00 UTC"]] * 40


@pytest.mark.parametrize(
    "event",
    [
        'DTSTART;TZID="(UTC-08:00) Pacific Time (US & Canada)":20261210T080000\r\nDURATION:PT1H',
        "DTSTART:20261210T080000Z\r\nDTEND;TZID=Mars:20261210T090000",
        "DTSTART:20261210T080000Z\r\nDURATION:PT1H\r\nRRULE:FREQ=DAILY;COUNT=3\r\nEXDATE;TZID=Mars:20261211T080000",
        "DTSTART:20261210T080000Z\r\nDURATION:PT1H\r\nRDATE;TZID=Mars:20261211T080000",
    ],
)
def test_an_unknown_zone_is_refused_by_its_name_and_never_read_as_local_time(event: str) -> None:
    """Case 32."""
    with pytest.raises(
        BadInput, match=r"close is in the zone (\(UTC-08:00\) Pacific|Mars).*which is unknown"
    ):
        told(event + "\r\nSUMMARY:close")


def of_one_zone(name: str) -> bytes:
    event = calendar("DTSTART:20261210T080000\r\nDURATION:PT1H")
    return event.replace(b"VERSION:2.0", b"VERSION:2.0\r\nX-WR-TIMEZONE:" + name.encode())


@pytest.mark.parametrize(
    ("name", "place"),
    [("America/New_York", "America/New_York"), ("W. Europe Standard Time", "Europe/Berlin")],
)
def test_the_zone_of_a_whole_calendar_is_that_of_its_events(name: str, place: str) -> None:
    assert begins(of_one_zone(name)) == [f"10 08:00 {place}"]


def test_a_whole_calendar_in_an_unknown_zone_is_refused_by_the_zone_s_name() -> None:
    """Case 32."""
    with pytest.raises(BadInput, match="its X-WR-TIMEZONE is Mars, which is unknown here"):
        begins(of_one_zone("Mars"))


def test_a_windows_zone_is_known_without_a_definition() -> None:
    event = "DTSTART;TZID=W. Europe Standard Time:20261210T080000\r\nDURATION:PT1H"
    assert told(event)[0][:3] == ("2026-12-10T08:00:00", "2026-12-10T09:00:00", "Europe/Berlin")


@pytest.mark.parametrize("written", ["tzone://Microsoft/Utc", '"tzone://Microsoft/Utc"'])
def test_the_utc_of_exchange_is_utc_however_it_is_quoted(written: str) -> None:
    """Its colon needs quotation marks, which Exchange leaves out; the whole feed was refused."""
    event = (
        f"DTSTART;TZID={written}:20261210T080000\r\nDTEND;TZID={written};X-A=1:20261210T090000\r\n"
        f"RRULE:FREQ=DAILY;COUNT=3\r\nEXDATE;TZID={written}:20261211T080000,20261219T080000"
    )
    assert [one[:3] for one in told(event)] == [
        (f"2026-12-{day}T08:00:00", f"2026-12-{day}T09:00:00", "UTC") for day in (10, 12)
    ]


@pytest.mark.parametrize("written", ["tzone://Microsoft/Custom", '"tzone://Microsoft/Custom"'])
def test_another_zone_of_exchange_is_refused_by_its_name_unless_the_file_defines_it(written: str) -> None:
    event = f"DTSTART;TZID={written}:20261210T080000\r\nDURATION:PT1H\r\nSUMMARY:close"
    with pytest.raises(
        BadInput, match="close is in the zone tzone://Microsoft/Custom, which is unknown here"
    ):
        told(event)
    zone = (
        "BEGIN:VTIMEZONE\r\nTZID:tzone://Microsoft/Custom\r\nBEGIN:STANDARD\r\nDTSTART:16010101T000000\r\n"
        "TZOFFSETFROM:+0300\r\nTZOFFSETTO:+0300\r\nEND:STANDARD\r\nEND:VTIMEZONE\r\nBEGIN:VEVENT"
    )
    content = calendar(event).replace(b"BEGIN:VEVENT", zone.encode(), 1)
    assert begins(content) == ["10 05:00 UTC"]


WEEKDAYS = (
    "DTSTART;TZID=Europe/Berlin:20050103T080000\r\nDURATION:PT1H\r\nRRULE:FREQ=WEEKLY;BYDAY=MO,TU,WE,TH,FR"
)


def followed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return a list that grows by each event whose rule the library follows."""
    seen: list[Any] = []

    def counted(part: Any) -> Any:
        seen.extend(part.subcomponents)
        return occurrences_of(part)

    monkeypatch.setattr(calendars, "occurrences_of", counted)
    return seen


def test_no_more_events_are_followed_than_make_too_many_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """17 KB of 100 events on weekdays took 7 s of a processor before they were refused."""
    seen = followed(monkeypatch)
    with pytest.raises(BadInput, match="has more than 1000 times within 400 days"):
        told(*[WEEKDAYS] * 100)
    assert len(seen) == 4


def test_an_event_that_is_long_over_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = followed(monkeypatch)
    over = f"{WEEKDAYS};UNTIL=20260101T000000Z"
    assert told(*[over] * 99, "DTSTART:20261210T080000Z\r\nDURATION:PT1H")[0][0] == "2026-12-10T08:00:00"
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("event", "first"),
    [
        (f"{WEEKDAYS};UNTIL=20260923T000000Z", "2026-09-22T08:00:00"),
        (f"{WEEKDAYS};UNTIL=20260101T000000Z".replace("PT1H", "P400D"), "2025-08-18T08:00:00"),
        (
            f"{WEEKDAYS};UNTIL=20260101T000000Z\r\nRDATE;TZID=Europe/Berlin:20261210T080000",
            "2026-12-10T08:00:00",
        ),
        (f"{WEEKDAYS};COUNT=5700", "2026-09-22T08:00:00"),
    ],
    ids=["until lately", "long", "with another time", "counted"],
)
def test_an_old_event_that_lasts_or_comes_again_is_followed(event: str, first: str) -> None:
    assert told(event)[0][0] == first


def test_a_cancelled_event_freezes_nothing() -> None:
    """Case 34: one event, and one day of an event that comes again."""
    off = "DTSTART:20261210T080000Z\r\nDTEND:20261210T100000Z\r\nSTATUS:CANCELLED"
    kept = "DTSTART:20261211T080000Z\r\nDTEND:20261211T100000Z\r\nSTATUS:CONFIRMED"
    assert [one[0] for one in told(off, kept)] == ["2026-12-11T08:00:00"]
    daily = "UID:d\r\nDTSTART:20261201T080000Z\r\nDTEND:20261201T100000Z\r\nRRULE:FREQ=DAILY;COUNT=3"
    day_off = (
        "UID:d\r\nRECURRENCE-ID:20261202T080000Z\r\nDTSTART:20261202T080000Z\r\nDTEND:20261202T100000Z\r\n"
        "STATUS:CANCELLED"
    )
    content = calendar(daily, day_off).replace(b"UID:0\r\n", b"").replace(b"UID:1\r\n", b"")
    assert begins(content) == ["01 08:00 UTC", "03 08:00 UTC"]


@pytest.mark.parametrize("end", ["DTEND;VALUE=DATE:20261225", "DURATION:P1D", "DTEND;VALUE=DATE:20261226"])
def test_a_whole_day_is_frozen_however_its_end_is_written(end: str) -> None:
    """Case 36: calendars of holidays write an end that equals the beginning."""
    event = f"DTSTART;VALUE=DATE:20261225\r\n{end}\r\nSUMMARY:Christmas"
    assert [one[:2] for one in told(event)] == [("2026-12-25T00:00:00", "2026-12-26T00:00:00")]


@pytest.mark.parametrize(
    ("event", "why"),
    [
        ("SUMMARY:Broken", "Broken has no beginning; add a DTSTART or remove the event"),
        (
            "SUMMARY:Broken\r\nDTSTART:20261210T080000Z\r\nDTEND:tomorrow",
            "the DTEND of Broken cannot be read; correct it",
        ),
        (
            "SUMMARY:Broken\r\nDTSTART:20261210T080000Z\r\nDTEND:20261210T070000Z",
            "Broken ends before it begins; correct its DTEND",
        ),
    ],
)
def test_an_event_without_a_usable_time_is_refused_by_its_name(event: str, why: str) -> None:
    """Case 37."""
    with pytest.raises(BadInput, match=f"^finance.ics: {why}$"):
        told(event, "DTSTART:20261211T080000Z\r\nDTEND:20261211T100000Z")


@pytest.mark.parametrize("end", ["", "\r\nDTEND:20261210T180000Z", "\r\nDURATION:PT0S"])
def test_an_event_that_would_freeze_nothing_is_refused_by_its_name(end: str) -> None:
    """RFC 5545, 3.6.1: an event at a time and without an end takes no time; it froze nothing in silence."""
    why = (
        "^finance.ics: close of books at 2026-12-10 18:00:00 has no length, so it would freeze nothing; write"
    )
    with pytest.raises(BadInput, match=why):
        told(f"SUMMARY:close of books\r\nDTSTART:20261210T180000Z{end}")
    assert told("DTSTART:20261211T080000Z\r\nDURATION:PT1H", "DTSTART:20261210T180000Z\r\nSTATUS:CANCELLED")


def test_a_day_without_an_end_is_frozen_whole() -> None:
    """RFC 5545, 3.6.1."""
    assert [one[:2] for one in told("DTSTART;VALUE=DATE:20261225")] == [
        ("2026-12-25T00:00:00", "2026-12-26T00:00:00")
    ]


def test_a_weekly_event_that_names_its_hour_is_weekly() -> None:
    """Case 38."""
    event = (
        "DTSTART;TZID=Europe/Berlin:20261207T080000\r\nDURATION:PT2H\r\n"
        "RRULE:FREQ=WEEKLY;BYDAY=MO;BYHOUR=8;BYMINUTE=0;BYSECOND=0;COUNT=2"
    )
    assert [one[0] for one in told(event)] == ["2026-12-07T08:00:00", "2026-12-14T08:00:00"]
    with pytest.raises(BadInput, match="comes more often than daily"):
        told(event.replace("BYHOUR=8", "BYHOUR=8,20"))


def test_an_empty_rule_is_refused_as_empty() -> None:
    """Case 38."""
    with pytest.raises(BadInput, match=r"RRULE of close (has no FREQ|cannot be read)"):
        told("DTSTART:20261207T080000Z\r\nDURATION:PT2H\r\nSUMMARY:close\r\nRRULE:")


def sharing(*events: str, uid: str = "UID:1") -> list[str]:
    said = "\r\n".join(f"BEGIN:VEVENT\r\n{uid}\r\n{event}\r\nEND:VEVENT" for event in events)
    content = f"BEGIN:VCALENDAR\r\nVERSION:2.0\r\n{said}\r\nEND:VCALENDAR\r\n".encode()
    return begins(content)


ONE, OTHER = (f"DTSTART:2026121{day}T080000Z\r\nDTEND:2026121{day}T100000Z" for day in "13")


@pytest.mark.parametrize("uid", ["UID:1", "UID:", "X-NONE:1", "UID:1\r\nSEQUENCE:4"])
def test_events_that_share_a_uid_all_count(uid: str) -> None:
    """R11, a fresh reader's F8: of two freezes with one UID the second was lost without a word."""
    assert sharing(ONE, OTHER, uid=uid) == ["11 08:00 UTC", "13 08:00 UTC"]
    weekly = "DTSTART:20261210T080000Z\r\nDTEND:20261210T100000Z\r\nRRULE:FREQ=WEEKLY;COUNT=2"
    assert sharing(weekly, OTHER, uid=uid) == ["10 08:00 UTC", "13 08:00 UTC", "17 08:00 UTC"]


def test_a_day_that_was_moved_twice_is_frozen_on_both_days() -> None:
    """R11, a fresh reader's F8."""
    weekly = "DTSTART:20261210T080000Z\r\nDTEND:20261210T100000Z\r\nRRULE:FREQ=WEEKLY;COUNT=2"
    moved = "RECURRENCE-ID:20261217T080000Z\r\n"
    assert sharing(weekly, moved + ONE, moved + OTHER) == ["10 08:00 UTC", "11 08:00 UTC", "13 08:00 UTC"]


def test_of_versions_of_one_event_the_last_counts() -> None:
    assert sharing(f"SEQUENCE:2\r\n{OTHER}", f"SEQUENCE:1\r\n{ONE}") == ["13 08:00 UTC"]
    assert sharing(ONE, f"SEQUENCE:1\r\n{OTHER}") == ["13 08:00 UTC"]


@pytest.mark.parametrize(
    ("event", "key"),
    [
        ("DTSTART;VALUE=DATE:20261225\r\nDTEND;VALUE=DATE:20261224", "DTEND"),
        ("DTSTART:20261225T080000Z\r\nDTEND;VALUE=DATE:20261224", "DTEND"),
        ("DTSTART:20261225T080000Z\r\nDTEND;VALUE=DATE:20261225", "DTEND"),
        ("DTSTART:20261225T080000Z\r\nDURATION:-PT1H", "DURATION"),
        ("DTSTART;VALUE=DATE:20261225\r\nDURATION:-P2D", "DURATION"),
    ],
)
def test_an_end_before_the_beginning_is_refused_however_both_are_written(event: str, key: str) -> None:
    """R11, a fresh reader's F8: whole days with a reversed end froze another day."""
    with pytest.raises(BadInput, match=f"^finance.ics: close ends before it begins; correct its {key}$"):
        told(event + "\r\nSUMMARY:close")


CLOSE = "DTSTART:20261210T080000Z\r\nDTEND:20261210T100000Z\r\nSUMMARY:close"


@pytest.mark.parametrize(
    "more",
    [
        "SEQUENCE:abc",
        'ATTENDEE;CN=Max "Moritz" M:mailto:m@corp.example',
        "X-ALT-DESC;FMTTYPE=text/html:<p>we\r\n<b>close</b>: all\r\n</p>",
        'X-NOTE;X-BY=a"b:text',
        "BEGIN:VALARM\r\nTRIGGER:soon\r\nDTSTART:never\r\nEND:VALARM",
        "CREATED:yesterday",
        (
            "END:VEVENT\r\nBEGIN:VFREEBUSY\r\nFREEBUSY:always\r\nEND:VFREEBUSY\r\nBEGIN:VEVENT\r\n"
            "DTSTART:20261209T080000Z\r\nDURATION:PT1H"
        ),
    ],
)
def test_what_concerns_no_events_time_may_be_odd(more: str) -> None:
    """R11, a fresh reader's F9: no client of calendars refuses these."""
    assert told(f"{CLOSE}\r\n{more}")[-1] == ("2026-12-10T08:00:00", "2026-12-10T10:00:00", "UTC", "close")


@pytest.mark.parametrize(
    "event",
    [
        "DTSTART:20261210T080000Z\r\nDTEND 20261210T100000Z",
        "DTSTART:20261210T080000Z\r\nDTEND:20261210T100000Z\r\nRRULE:FREQ=DAILY\r\n;COUNT=3",
    ],
)
def test_a_broken_line_that_may_be_a_time_is_refused_by_the_line(event: str) -> None:
    with pytest.raises(BadInput, match=r"^finance.ics: the line (DTEND 2026|;COUNT=3).* cannot be read"):
        told(event)


def test_a_file_that_was_cut_off_is_refused() -> None:
    for end in (b"END:VCALENDAR\r\n", b"END:VEVENT\r\nEND:VCALENDAR\r\n"):
        with pytest.raises(BadInput, match="is not a calendar"):
            begins(calendar(CLOSE).removesuffix(end))


def test_every_calendar_of_a_file_counts() -> None:
    """R11, a fresh reader's F9."""
    assert begins(calendar(ONE) + calendar(OTHER)) == ["11 08:00 UTC", "13 08:00 UTC"]


@pytest.mark.parametrize(
    ("defined", "named"),
    [
        (r"TZID:(UTC-07:00) Denver\, Phoenix", '"(UTC-07:00) Denver, Phoenix"'),
        ("TZID;X-RICAL-TZSOURCE=TZINFO:My Zone", "My Zone"),
    ],
)
def test_the_name_of_a_zone_is_read_as_the_text_that_it_is(defined: str, named: str) -> None:
    """R11, a fresh reader's F9: escapes and parameters of the definition."""
    content = in_a_zone_of_its_own("-0700").decode().replace("TZID:Customized Time Zone", defined, 1)
    content = content.replace("TZID=Customized Time Zone", f"TZID={named}")
    assert begins(content.encode()) == ["10 15:00 UTC"]


def test_an_event_until_the_end_of_time_freezes_from_its_beginning() -> None:
    """R11, a fresh reader's F9."""
    for end in ("DTEND;VALUE=DATE:99991231", "DTEND;VALUE=DATE:80000229"):
        assert told(f"DTSTART;VALUE=DATE:20261201\r\n{end}")[0][0] == "2026-12-01T00:00:00"
    assert told("DTSTART:20261201T080000Z\r\nDTEND:99991231T235959Z")[0][0] == "2026-12-01T08:00:00"


def test_a_holiday_that_is_older_than_the_century_comes_again() -> None:
    """R11, a fresh reader's F9."""
    event = "DTSTART;VALUE=DATE:19971225\r\nRRULE:FREQ=YEARLY"
    assert [one[0][:10] for one in told(event)] == ["2026-12-25"]


@pytest.mark.parametrize("name", ["GMT+0100", "", "Mars"])
def test_a_zone_of_the_whole_calendar_that_no_event_needs_may_be_unknown(name: str) -> None:
    """R11, a fresh reader's F9."""
    said = b"VERSION:2.0\r\nX-WR-TIMEZONE:" + name.encode()
    own = "DTSTART;TZID=Europe/Berlin:20261210T080000\r\nDURATION:PT1H"
    assert begins(calendar(own, ONE).replace(b"VERSION:2.0", said)) == [
        "10 08:00 Europe/Berlin",
        "11 08:00 UTC",
    ]
