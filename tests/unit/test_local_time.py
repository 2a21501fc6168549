"""What clocks show is one moment, in every zone and on every day on which clocks are changed."""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest

from policies.model.windows import PatchWindow
from policies.model.zones import zone, zone_names
from policies.planning.local_time import instant, shown
from policies.planning.windows import openings_of

SINCE, UNTIL = datetime(2026, 1, 1, tzinfo=UTC), datetime(2028, 1, 1, tzinfo=UTC)
SOME = (
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Africa/Casablanca",
    "America/Havana",
    "Asia/Kathmandu",
    "Pacific/Chatham",
    "Antarctica/Troll",
    "America/Nuuk",
    "UTC",
)


EARLIER = (timedelta(minutes=30), timedelta(hours=1), timedelta(hours=2))
"""By how much clocks are put back anywhere."""

local = datetime.fromisoformat


def asked_for(at: datetime, here: ZoneInfo, start: time) -> date | None:
    """Return the day that was meant, None for none: a gap at midnight moves an opening into the day after."""
    clock, before = shown(at, here), shown(at - timedelta(seconds=1), here)
    days = (clock.date(), before.date())
    return next((day for day in days if before < datetime.combine(day, start) <= clock), None)


def wrong_in(name: str, start: time) -> list[str]:
    """Return what is lost, doubled, too early or of another length in two years of a daily window."""
    here, length = zone(name), timedelta(hours=4)
    window = PatchWindow(name="w", tz=name, rrule="FREQ=DAILY", start=start, duration=length)
    found = openings_of(window, here, SINCE, UNTIL)
    wrong = [
        f"{name}: {one.opens} is {one.closes - one.opens}"
        for one in found
        if one.closes - one.opens != length
    ]
    days = [asked_for(one.opens, here, start) for one in found]
    first = days[0] or SINCE.date()
    expected = [first + timedelta(days=n) for n in range(len(days))]
    if days != expected:  # lost, doubled, or neither the time asked for nor the first moment after a gap
        wrong.append(
            f"{name}: days {[day for day, meant in zip(days, expected, strict=True) if day != meant][:3]}"
        )
    if not 729 <= len(found) <= 732:
        wrong.append(f"{name}: {len(found)} openings")
    for one in found:
        clock = shown(one.opens, here)
        if clock.time() == start and clock in {shown(one.opens - early, here) for early in EARLIER}:
            wrong.append(f"{name}: {one.opens} is the second of two")
    return wrong


def test_a_time_that_no_clock_shows_is_the_first_moment_after_it() -> None:
    berlin = zone("Europe/Berlin")
    assert instant(local("2026-03-29T02:30"), berlin) == datetime(2026, 3, 29, 1, tzinfo=UTC)
    assert instant(local("2026-03-29T02:00"), berlin) == datetime(2026, 3, 29, 1, tzinfo=UTC)
    assert instant(local("2026-03-29T03:00"), berlin) == datetime(2026, 3, 29, 1, tzinfo=UTC)
    assert instant(local("2026-03-29T01:59"), berlin) == datetime(2026, 3, 29, 0, 59, tzinfo=UTC)


def test_a_time_that_clocks_show_twice_is_the_first_of_the_two() -> None:
    berlin = zone("Europe/Berlin")
    assert instant(local("2026-10-25T02:30"), berlin) == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)


def test_a_whole_day_that_was_left_out_is_the_first_moment_of_the_next() -> None:
    apia = zone("Pacific/Apia")
    assert instant(local("2011-12-30T12:00"), apia) == datetime(2011, 12, 30, 10, tzinfo=UTC)


def test_a_window_over_a_change_of_clocks_lasts_exactly_as_long_as_declared() -> None:
    window = PatchWindow(
        name="night", tz="Europe/Berlin", rrule="FREQ=DAILY", start=time(1), duration=timedelta(hours=3)
    )
    for day, closes in ((datetime(2026, 3, 29, tzinfo=UTC), 3), (datetime(2026, 10, 25, tzinfo=UTC), 2)):
        found = openings_of(window, zone("Europe/Berlin"), day, day + timedelta(hours=20))
        assert [one.closes - one.opens for one in found] == [timedelta(hours=3)]
        assert found[0].closes == day.replace(hour=closes)


@pytest.mark.parametrize("start", [time(0), time(2, 30), time(23, 45)])
def test_in_a_few_zones_of_every_kind_no_opening_is_lost_or_doubled_or_of_another_length(start: time) -> None:
    assert [wrong for name in SOME for wrong in wrong_in(name, start)] == []


@pytest.mark.sweep
@pytest.mark.parametrize(
    "start", [time(0), time(0, 30), time(1, 30), time(2), time(2, 30), time(3), time(23, 45)]
)
def test_in_every_zone_of_two_years_no_opening_is_lost_or_doubled_or_of_another_length(start: time) -> None:
    names = zone_names()
    assert len(names) > 400
    assert [wrong for name in names for wrong in wrong_in(name, start)] == []


@pytest.mark.parametrize(
    "name", ["Mars/Olympus", "../../etc/passwd", "/etc/localtime", "", "Europe", "zone.tab"]
)
def test_what_is_no_zone_is_refused_in_a_sentence(name: str) -> None:
    with pytest.raises(ValueError, match="is no time zone; write one like Europe/Berlin"):
        zone(name)
