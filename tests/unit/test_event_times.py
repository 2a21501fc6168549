"""Every time of a freeze is frozen, however a calendar writes its last one and those that it leaves out."""

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest

from policies.model.errors import BadInput
from policies.model.windows import PatchWindow
from policies.planning.calendars import read_calendar
from policies.planning.windows import standing
from tests.workflows.world import fleet_of

AT = datetime(2026, 11, 29, 12, tzinfo=UTC)
NEW_YORK = ";TZID=America/New_York"
THREE = [14, 15, 16]


def calendar(*events: str, head: str = "") -> bytes:
    said = "\r\n".join(f"BEGIN:VEVENT\r\nUID:1\r\nSUMMARY:close\r\n{event}\r\nEND:VEVENT" for event in events)
    return f"BEGIN:VCALENDAR\r\nVERSION:2.0\r\n{head}{said}\r\nEND:VCALENDAR\r\n".encode()


def evening(kind: str, *more: str, z: str = "") -> str:
    """Return an event of 20:00 to 23:59 from December 14th on."""
    times = (f"DTSTART{kind}:20261214T200000{z}", f"DTEND{kind}:20261214T235900{z}")
    return "\r\n".join((*times, *more))


def until(last: str) -> str:
    return f"RRULE:FREQ=DAILY;UNTIL={last}"


FIVE = "RRULE:FREQ=DAILY;COUNT=5"


def found(*events: str, tz: str = "site", head: str = "") -> list[str]:
    read = read_calendar(calendar(*events, head=head), "freezes.ics", tz, AT)
    return [f"{one.begins:%d %H:%M} {one.tz}" for one in read]


def days(*events: str, tz: str = "site", head: str = "") -> list[int]:
    return [int(one[:2]) for one in found(*events, tz=tz, head=head)]


@pytest.mark.parametrize(
    ("zone", "last"),
    [
        ("Europe/Berlin", "20261216"),
        ("America/New_York", "20261216"),
        ("America/New_York", "20261216T200000"),
        ("America/New_York", "20261216T235959"),
        ("America/Los_Angeles", "20261216T200000"),
        ("America/New_York", "20261217T010000Z"),
    ],
)
def test_no_wave_starts_in_the_last_evening_of_a_freeze_however_its_end_is_written(
    zone: str, last: str
) -> None:
    """Synology and rrule.js write a day alone, or a local time, beside a DTSTART in a zone."""
    spans = read_calendar(calendar(evening(f";TZID={zone}", until(last))), "freezes.ics", "site", AT)
    assert [one.begins.day for one in spans] == THREE
    window = PatchWindow(name="w", tz=zone, rrule="FREQ=DAILY", start=time(19), duration=timedelta(hours=5))
    fleet = fleet_of("edge").model_copy(update={"windows": (window,)})
    hours = {"Europe/Berlin": 20, "America/New_York": 26, "America/Los_Angeles": 29}[zone]  # 21:00 there
    last_evening = datetime(2026, 12, 16, tzinfo=UTC) + timedelta(hours=hours)
    answer = standing(fleet, spans, last_evening)
    assert (answer.is_open, answer.freeze) == (False, "close")
    assert standing(fleet, spans, last_evening + timedelta(days=1)).is_open


@pytest.mark.parametrize(
    ("event", "tz", "last"),
    [
        (evening("", until("20261216")), "site", 16),
        (evening("", until("20261216T200000")), "site", 16),
        (evening("", until("20261216T200000Z")), "America/Los_Angeles", 16),
        (evening("", until("20261217T040000Z")), "America/Los_Angeles", 16),
        (evening("", until("20261216T190000Z")), "Europe/Berlin", 16),
        (evening("", until("20261216T060000Z")), "site", 16),
        (evening("", until("20261216T200000"), z="Z"), "site", 16),
        (evening("", until("20261216"), z="Z"), "site", 16),
        ("DTSTART;VALUE=DATE:20261214\r\n" + until("20261216"), "site", 16),
        ("DTSTART;VALUE=DATE:20261214\r\n" + until("20261216T000000"), "site", 16),
        ("DTSTART;VALUE=DATE:20261214\r\n" + until("20261216T000000Z"), "America/New_York", 16),
        ("DTSTART;VALUE=DATE:20261214\r\n" + until("20261216T235959Z"), "Europe/Berlin", 16),
        ("DTSTART;VALUE=DATE:20261214\r\n" + until("20261215T230000Z"), "Europe/Berlin", 16),
        ("DTSTART;VALUE=DATE:20261214\r\n" + until("20261217T045959Z"), "America/New_York", 16),
        ("DTSTART;VALUE=DATE:20261214\r\n" + until("20261215T230000Z"), "site", 16),
    ],
)
def test_the_last_day_of_a_rule_counts_whatever_kind_of_time_names_it(event: str, tz: str, last: int) -> None:
    assert days(event, tz=tz) == list(range(14, last + 1))


def test_the_end_of_a_rule_is_read_in_the_zone_of_the_whole_calendar() -> None:
    head = "X-WR-TIMEZONE:America/New_York\r\n"
    assert days(evening("", until("20261216")), head=head) == THREE
    assert days("DTSTART;VALUE=DATE:20261214\r\n" + until("20261216T050000Z"), head=head) == THREE


MADRID = "X-WR-TIMEZONE:Europe/Madrid\r\n"
JUNE, DECEMBER = datetime(2026, 6, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)


def nights(month: datetime, kind: str, *more: str, z: str = "", first: str = "0102") -> list[str]:
    """Return when a night that comes each Friday begins in the first week of a month, in UTC."""
    event = f"DTSTART{kind}:2026{first}T200000{z}\r\nDURATION:PT8H\r\nRRULE:FREQ=WEEKLY;BYDAY=FR"
    read = read_calendar(calendar(event, *more, head=MADRID), "freezes.ics", "Europe/Madrid", month)
    begun = sorted(one.begins.replace(tzinfo=ZoneInfo(one.tz)).astimezone(UTC) for one in read)
    return [f"{at:%a %H:%M}" for at in begun if month <= at < month + timedelta(days=7)]


@pytest.mark.parametrize("name", ["Etc/UTC", "UTC", "tzone://Microsoft/Utc", "Africa/Abidjan"])
def test_an_event_with_a_zone_keeps_it_beside_one_of_the_whole_calendar_though_it_is_utc(name: str) -> None:
    """Google writes TZID=Etc/UTC beside its owner's zone: the freeze was an hour early in summer."""
    assert nights(JUNE, f";TZID={name}") == ["Fri 20:00"]
    assert nights(DECEMBER, f";TZID={name}", first="0703") == ["Fri 20:00"]


def test_an_event_that_comes_again_in_utc_is_frozen_by_both_clocks_where_all_have_a_zone() -> None:
    """RFC 5545 has it follow UTC, the zone beside it may mean other clocks: no freeze is too narrow."""
    assert nights(JUNE, "", z="Z") == ["Fri 19:00", "Fri 20:00"]
    assert nights(DECEMBER, "", z="Z") == ["Fri 20:00"]


def test_a_time_in_utc_that_was_moved_or_left_out_is_so_by_both_clocks() -> None:
    moved = "RECURRENCE-ID:20261204T200000Z\r\nDTSTART:20261205T100000Z\r\nDURATION:PT1H"
    assert nights(DECEMBER, "", moved, z="Z") == ["Sat 10:00"]
    assert nights(DECEMBER, "", moved + "\r\nSTATUS:CANCELLED", z="Z") == []
    assert nights(DECEMBER, "", z="Z\r\nEXDATE:20261204T200000Z") == []


@pytest.mark.parametrize("last", ["99991231", "99991231T235959", "99991231T235959Z"])
@pytest.mark.parametrize("kind", [NEW_YORK, ""])
def test_a_rule_until_the_end_of_time_is_followed_for_400_days(kind: str, last: str) -> None:
    assert len(days(evening(kind, f"RRULE:FREQ=WEEKLY;UNTIL={last}"))) == 55


@pytest.mark.parametrize("last", ["20261216,20261217", "200000", "P1D"])
def test_an_end_that_is_no_day_and_no_time_is_refused(last: str) -> None:
    with pytest.raises(BadInput, match=r"^freezes.ics: the (UNTIL|RRULE) of close cannot be read"):
        days(evening(NEW_YORK, until(last)))


@pytest.mark.parametrize("key", ["EXDATE", "RDATE"])
def test_a_time_in_utc_leaves_an_event_without_a_zone_where_it_is(key: str) -> None:
    event = evening("", FIVE, f"{key}:20261216T040000Z")  # 20:00 of the 15th there
    read = found(event, tz="America/Los_Angeles")
    assert {one[3:] for one in read} == {"20:00 America/Los_Angeles"}
    assert [int(one[:2]) for one in read] == ([14, 16, 17, 18] if key == "EXDATE" else [14, 15, 16, 17, 18])
    with pytest.raises(BadInput, match=f"the {key} of close is of another kind than its DTSTART"):
        found(event, tz="site")


def test_an_end_in_utc_leaves_an_event_without_a_zone_where_it_is() -> None:
    event = "DTSTART:20261214T200000\r\nDTEND:20261215T075900Z"
    assert found(event, tz="America/Los_Angeles") == ["14 20:00 America/Los_Angeles"]
    with pytest.raises(BadInput, match="the DTEND of close is of another kind than its DTSTART"):
        found(event, tz="site")


@pytest.mark.parametrize(
    ("kind", "left_out", "gone"),
    [
        (NEW_YORK, "EXDATE:20261216T010000Z", {15}),
        (NEW_YORK, "EXDATE:20261215T200000", {15}),
        (NEW_YORK, "EXDATE;VALUE=DATE:20261215", {15}),
        (NEW_YORK, "EXDATE;TZID=Europe/Berlin:20261216T020000", {15}),
        (NEW_YORK, "EXDATE;TZID=America/New_York:20261216T010000Z", {15}),
        (NEW_YORK, "EXDATE:20261215T200000Z", set()),
        ("", "EXDATE;VALUE=DATE:20261215", {15}),
    ],
)
def test_only_the_times_that_are_left_out_are_not_frozen(kind: str, left_out: str, gone: set[int]) -> None:
    """A time that shows the same hour in another zone is another time, and leaves out nothing."""
    assert set(days(evening(kind, FIVE, left_out))) == set(range(14, 19)) - gone


@pytest.mark.parametrize("zone", ["", "Z"])
def test_the_evening_before_a_day_that_is_left_out_is_frozen(zone: str) -> None:
    """19:00 in New York is midnight in UTC, and is not of the day that begins there."""
    event = "DTSTART;TZID=America/New_York:20261214T190000\r\nDURATION:PT1H\r\n" + FIVE
    assert days(event + "\r\nEXDATE;VALUE=DATE:20261216") == [14, 15, 17, 18]
    assert days(event + f"\r\nEXDATE:20261216T000000{zone}") == (
        [14, 16, 17, 18] if zone else [*THREE, 17, 18]
    )


@pytest.mark.parametrize(
    ("left_out", "tz"),
    [
        ("EXDATE:20261215T000000", "site"),
        ("EXDATE:20261215T000000Z", "America/New_York"),
        ("EXDATE;TZID=Europe/Berlin:20261215T000000", "site"),
        ("EXDATE:20261214T230000Z", "Europe/Berlin"),
    ],
)
def test_a_whole_day_is_left_out_however_it_is_written(left_out: str, tz: str) -> None:
    event = f"DTSTART;VALUE=DATE:20261214\r\n{FIVE}\r\n{left_out}"
    assert found(event, tz=tz) == [f"{day} 00:00 {tz}" for day in (14, 16, 17, 18)]


@pytest.mark.parametrize(
    "event",
    [
        "DTSTART;VALUE=DATE:20261214\r\nRDATE:20261220T200000Z",
        "DTSTART;VALUE=DATE:20261214\r\nRDATE;VALUE=PERIOD:20261220T200000Z/PT8H",
        evening(NEW_YORK, "RDATE;VALUE=DATE:20261220"),
        evening("", "RDATE;VALUE=PERIOD:20261220T200000Z/PT8H"),
    ],
)
def test_a_further_time_that_nothing_places_is_refused_by_its_name(event: str) -> None:
    with pytest.raises(
        BadInput, match=r"^freezes.ics: the RDATE of close is of another kind than its DTSTART"
    ):
        found(event)


def test_a_further_time_is_frozen_in_the_zone_of_its_event() -> None:
    more = ("RDATE:20261220T200000", "RDATE;VALUE=PERIOD:20261222T010000Z/PT2H")
    read = read_calendar(calendar(evening(NEW_YORK, *more)), "freezes.ics", "site", AT)
    assert [f"{one.begins:%d %H:%M} {one.ends:%d %H:%M} {one.tz}" for one in read[:2]] == [
        "14 20:00 14 23:59 America/New_York",
        "20 20:00 20 23:59 America/New_York",
    ]
    assert read[2].ends - read[2].begins == timedelta(hours=2)


def test_a_time_in_utc_stays_in_utc_beside_the_name_of_a_zone() -> None:
    """RFC 5545, 3.3.5: a zone must not be applied to times in UTC; it moved the freeze by five hours."""
    both = "DTSTART;TZID=America/New_York:20261215T010000Z\r\nDTEND;TZID=America/New_York:20261215T050000Z"
    assert found(both) == ["15 01:00 UTC"]
    with pytest.raises(BadInput, match=r"^freezes.ics: the line EXDATE;TZID=.* has times of two zones"):
        found(evening(NEW_YORK, FIVE, "EXDATE;TZID=America/New_York:20261215T200000,20261217T010000Z"))


def test_a_time_that_was_moved_is_frozen_though_it_is_left_out_as_well() -> None:
    moved = "RECURRENCE-ID;TZID=America/New_York:20261215T200000\r\n" + evening(NEW_YORK).replace(
        "1214T", "1220T"
    )
    weekly = evening(NEW_YORK, FIVE, "EXDATE;TZID=America/New_York:20261215T200000")
    assert days(weekly, moved) == [14, 16, 17, 18, 20]
    assert days(weekly, moved + "\r\nSTATUS:CANCELLED") == [14, 16, 17, 18]
