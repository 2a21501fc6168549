"""Whether waves may start: one function, one sentence, whoever asks."""

import json
from datetime import UTC, datetime, time, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.model.fleet import Fleet
from policies.model.length import length
from policies.model.windows import Freeze, Frozen, PatchWindow
from policies.planning.fitting import needed_for
from policies.planning.windows import free, standing, zones_of
from tests.unit.fleets import OLD, facts_of, planned
from tests.workflows.world import fleet_of

NIGHT = PatchWindow(
    name="night",
    tz="Europe/Berlin",
    rrule="FREQ=WEEKLY;BYDAY=TU,WE,TH",
    start=time(2),
    duration=timedelta(hours=4),
)
HOUR = timedelta(hours=1)


def fleet(**said: Any) -> Fleet:
    return fleet_of("edge").model_copy(update={"windows": (NIGHT,), **said})


def frozen(begins: str, ends: str, tz: str = "Europe/Berlin") -> Frozen:
    return Frozen(
        begins=datetime.fromisoformat(begins), ends=datetime.fromisoformat(ends), tz=tz, what="black friday"
    )


def test_outside_of_every_window_the_sentence_names_the_next_opening_there_and_in_utc() -> None:
    found = standing(fleet(), (), datetime(2026, 11, 23, 15, 48, tzinfo=UTC))
    assert not found.is_open
    assert found.sentence == ("closed: next opening Tue 2026-11-24 02:00 Europe/Berlin (01:00Z), in 9 h 12 m")
    assert found.until == datetime(2026, 11, 24, 1, tzinfo=UTC)


def test_inside_a_window_the_sentence_names_the_closing() -> None:
    found = standing(fleet(), (), datetime(2026, 11, 24, 1, tzinfo=UTC))
    assert found.fits
    assert found.sentence == "open: closes Tue 2026-11-24 06:00 Europe/Berlin (05:00Z), in 4 h 0 m"


def test_a_wave_that_is_not_over_before_the_closing_waits_for_the_next_opening_and_says_so() -> None:
    found = standing(fleet(), (), datetime(2026, 11, 24, 4, tzinfo=UTC), needs=HOUR)
    assert found.is_open
    assert not found.fits
    assert found.sentence == (
        "open, but only for 1 h 0 m more and 1 h 15 m are needed: "
        "next opening Wed 2026-11-25 02:00 Europe/Berlin (01:00Z), in 21 h 0 m"
    )


def test_a_wave_longer_than_every_window_never_starts_and_says_why() -> None:
    found = standing(fleet(), (), datetime(2026, 11, 24, 1, tzinfo=UTC), needs=5 * HOUR)
    assert not found.fits
    assert found.until is None
    assert found.sentence == "closed: no opening within 400 days is 5 h 15 m long"


def test_a_freeze_closes_what_a_window_opens_and_is_named() -> None:
    freeze = frozen("2026-11-24T00:00", "2026-12-01T00:00")
    found = standing(fleet(), (freeze,), datetime(2026, 11, 24, 1, 30, tzinfo=UTC))
    assert found.freeze == "black friday"
    assert found.sentence.startswith("closed by the freeze black friday: next opening Tue 2026-12-01 02:00")


def test_without_windows_it_is_open_but_for_freezes() -> None:
    always = fleet_of("edge")
    at = datetime(2026, 11, 24, 1, 30, tzinfo=UTC)
    assert standing(always, (), at).sentence == "open: no windows are declared, so it is always open"
    freeze = frozen("2026-11-24T00:00", "2026-12-01T00:00")
    assert standing(always, (freeze,), at).until == datetime(2026, 11, 30, 23, tzinfo=UTC)


def test_gateways_of_several_sites_start_together_only_where_it_is_open_in_each_of_their_zones() -> None:
    site = NIGHT.model_copy(update={"tz": "site"})
    here = fleet(tz="Europe/Berlin", windows=(site,))
    there = here.gateways[0].model_copy(update={"tz": "Europe/London"})
    both = here.model_copy(update={"gateways": (there, *here.gateways[1:])})
    assert zones_of(both) == ("Europe/Berlin", "Europe/London")
    found = standing(both, (), datetime(2026, 11, 24, 1, 30, tzinfo=UTC))
    assert found.until == datetime(2026, 11, 24, 2, tzinfo=UTC)
    assert standing(both, (), datetime(2026, 11, 24, 1, 30, tzinfo=UTC), zones=("Europe/Berlin",)).fits


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"rrule": "FREQ=HOURLY"}, "has no FREQ of DAILY, MONTHLY, WEEKLY, YEARLY"),
        ({"rrule": "FREQ=DAILY;BYHOUR=3"}, "BYHOUR is not understood here"),
        ({"rrule": "FREQ=MONTHLY;BYMONTHDAY=31;BYMONTH=2"}, "names no day"),
        ({"rrule": "whenever"}, "is no rule"),
        ({"rrule": "RRULE:FREQ=WEEKLY;BYDAY=TU"}, "leave RRULE: out"),  # case 55: as calendars write it
        ({"tz": "Mars/Olympus"}, "is no time zone"),
        ({"duration": "8d"}, "is no window; write one from 1m to 7d"),
        ({"start": "02:00+01:00"}, "is no local time"),
    ],
)
def test_what_is_no_window_is_refused_in_a_sentence(said: dict[str, Any], sentence: str) -> None:
    good = {"name": "w", "tz": "UTC", "rrule": "FREQ=DAILY", "start": "02:00", "duration": "4h"}
    with pytest.raises(ValueError, match=sentence):
        PatchWindow.model_validate(good | said)


def test_a_window_of_sites_without_any_zone_is_refused() -> None:
    site = NIGHT.model_copy(update={"tz": "site"})
    said = fleet_of("edge").model_dump(mode="json", by_alias=True) | {
        "windows": [site.model_dump(mode="json")]
    }
    with pytest.raises(ValueError, match="nothing says which that is of gw-1; write tz: Europe/Berlin"):
        Fleet.model_validate_json(json.dumps(said))


@pytest.mark.parametrize(("length", "could"), [("15m", False), ("16m", True)])
def test_a_window_in_which_no_wave_could_ever_start_is_refused(length: str, could: bool) -> None:
    short = NIGHT.model_dump(mode="json") | {"tz": "UTC", "duration": length}
    said = json.dumps(fleet_of("edge").model_dump(mode="json", by_alias=True) | {"windows": [short]})
    if could:
        assert Fleet.model_validate_json(said).windows
        return
    with pytest.raises(ValueError, match="none could ever start; write a longer duration"):
        Fleet.model_validate_json(said)


@pytest.mark.parametrize("said", ["2026-11-26T00:00+01:00", "2026-11-26T00:00Z", "2026-11-26T00:00:00-0500"])
def test_a_time_with_an_offset_is_refused_with_what_to_write_instead(said: str) -> None:
    freeze = {"name": "f", "tz": "UTC", "from": said, "to": "2026-12-01T00:00"}
    with pytest.raises(
        ValueError, match=r"has an offset; write what clocks there show, like 2026-11-26T00:00"
    ):
        Freeze.model_validate(freeze)


@pytest.mark.parametrize("path", ["../finance.ics", "/etc/finance.ics", "a/../../b.ics"])
def test_a_calendar_elsewhere_than_beside_the_fleets_file_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=r"ics|folder"):
        Freeze.model_validate({"name": "f", "tz": "UTC", "ics": path})


def test_a_fleet_that_declares_none_of_it_has_the_plan_that_it_always_had() -> None:
    said = fleet_of("edge").model_dump_json()
    assert not any(
        key in said for key in ('"tz"', "windows", "freezes", "on_window_close", "min_tail", "jitter")
    )


def test_jitter_opens_a_fleet_later_by_always_the_same_time_and_closes_it_as_declared() -> None:
    at = datetime(2026, 11, 23, 12, tzinfo=UTC)
    late = [standing(fleet(name=f"edge-{n}", jitter=HOUR), (), at).until for n in range(20)]
    assert late == [standing(fleet(name=f"edge-{n}", jitter=HOUR), (), at).until for n in range(20)]
    opening = datetime(2026, 11, 24, 1, tzinfo=UTC)
    assert all(one is not None and opening <= one < opening + HOUR for one in late)
    assert len(set(late)) > 10


@given(
    st.integers(0, 60 * 24 * 60),
    st.lists(st.tuples(st.integers(0, 60 * 24 * 60), st.integers(1, 60 * 24 * 3)), max_size=4),
)
def test_what_is_answered_for_one_moment_agrees_with_the_list_of_openings(
    minutes: int, spans: list[tuple[int, int]]
) -> None:
    begin = datetime(2026, 10, 1, tzinfo=UTC)
    naive = begin.replace(tzinfo=None)
    freezes = [
        Frozen(begins=naive + timedelta(minutes=a), ends=naive + timedelta(minutes=a + b), tz="UTC", what="f")
        for a, b in spans
    ]
    at = begin + timedelta(minutes=minutes)
    openings = free(fleet(), freezes, ["Europe/Berlin"], at, at + timedelta(days=35))
    found = standing(fleet(min_tail=timedelta(0)), freezes, at)
    assert found.is_open == any(one.opens <= at < one.closes for one in openings)
    assert all(one.closes <= other.opens for one, other in pairwise(openings))
    if not found.is_open and found.until is not None:
        assert found.until in [one.opens for one in openings]


@pytest.mark.parametrize(
    ("time_", "said"), [(40, "40 s"), (720, "12 m"), (33120, "9 h 12 m"), (266400, "3 d 2 h")]
)
def test_a_length_of_time_is_said_in_the_two_units_that_matter(time_: int, said: str) -> None:
    assert length(timedelta(seconds=time_)) == said


@pytest.mark.sweep
@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "rule", ["FREQ=DAILY;INTERVAL=0", "FREQ=WEEKLY;BYDAY=MO;INTERVAL=0", "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30"]
)
def test_a_window_that_is_never_found_or_never_ends_is_refused_at_once(rule: str) -> None:
    with pytest.raises(ValueError, match=r"INTERVAL|names no day"):
        PatchWindow(name="n", tz="UTC", rrule=rule, start=time(2), duration=timedelta(hours=4))


def test_a_plan_that_changes_nothing_takes_no_time() -> None:
    assert needed_for(planned(facts_of(2), to=OLD), 1) == timedelta(0)
    assert needed_for(planned(facts_of(2)), 1) > timedelta(0)
