"""Calendars as freezes: what they say is understood, and what is hostile is refused in one sentence."""

from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.model.errors import BadInput
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
        (b"", "no calendar that is understood|has no event"),
        (b"<html>sign in</html>", "no calendar that is understood"),
        (b"\xff\xfe\x00", "no calendar that is understood"),
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
