"""Calendars beside fleets' files: read once for all fleets, and anew when anything about them is another."""

import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from activities import calendars
from activities.calendars import Calendars, ReadCalendars
from policies.model.errors import BadInput
from policies.model.fleet import Fleet
from policies.model.windows import Freeze, Frozen
from policies.planning.calendars import read_calendar
from tests.unit.test_calendars import calendar
from tests.workflows.world import fleet_of

AT = datetime(2026, 11, 1, 12, tzinfo=UTC)
DAY = "DTSTART:{}T090000Z\r\nDTEND:{}T170000Z\r\nSUMMARY:close"
LONG_AGO = 1_700_000_000
FINANCE = Freeze.model_validate({"name": "finance", "ics": "finance.ics", "tz": "UTC"})


class Folder:
    """Every fleet's file lies in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def fleet(self, name: str) -> Fleet:
        raise BadInput(f"no fleet {name}")

    def place_of(self, name: str) -> Path:
        return self._folder / f"{name}.yaml"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the calendars that were read, one entry for each time."""
    found: list[str] = []

    def read(content: bytes, called: str, tz: str, at: datetime) -> tuple[Frozen, ...]:
        found.append(called)
        return read_calendar(content, called, tz, at)

    monkeypatch.setattr(calendars, "read_calendar", read)
    return found


def write(path: Path, *days: str, written: int = LONG_AGO) -> None:
    path.write_bytes(calendar(*(DAY.format(day, day) for day in days)))
    os.utime(path, (written, written))


def begins(found: tuple[Frozen, ...]) -> list[str]:
    return [f"{one.begins:%Y%m%d}" for one in found]


def test_a_calendar_is_read_once_for_all_fleets_that_name_it_and_each_calls_it_its_own_way(
    tmp_path: Path, reads: list[str]
) -> None:
    write(tmp_path / "finance.ics", "20261126")
    folder = Calendars(Folder(tmp_path))
    for number in range(30):
        name = f"close-{number}"
        freeze = Freeze.model_validate({"name": name, "ics": "finance.ics", "tz": "UTC"})
        fleet = fleet_of(f"edge-{number}").model_copy(update={"freezes": (freeze,)})
        assert [one.what for one in folder.frozen(fleet, AT)] == [f"{name}: close"]
    assert len(reads) == 1


def test_many_who_ask_at_the_same_moment_have_it_read_once(tmp_path: Path, reads: list[str]) -> None:
    path, known = tmp_path / "finance.ics", ReadCalendars()
    write(path, "20261126")
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: begins(known.spans(path, FINANCE, AT)), range(40)))
    assert found == [["20261126"]] * 40
    assert len(reads) == 1


def test_a_calendar_that_is_changed_replaced_or_taken_away_is_heard_of_at_the_next_question(
    tmp_path: Path, reads: list[str]
) -> None:
    path, known = tmp_path / "finance.ics", ReadCalendars()
    write(path, "20261126")
    assert begins(known.spans(path, FINANCE, AT)) == ["20261126"]
    write(path, "20261127", written=LONG_AGO + 1)  # of the same size
    assert begins(known.spans(path, FINANCE, AT)) == ["20261127"]
    write(tmp_path / "new", "20261128", written=LONG_AGO + 1)  # of the same size and time
    (tmp_path / "new").replace(path)
    assert begins(known.spans(path, FINANCE, AT)) == ["20261128"]
    assert len(reads) == 3
    path.unlink()
    with pytest.raises(BadInput, match="cannot be read: No such file or directory; put the file there"):
        known.spans(path, FINANCE, AT)


def test_a_calendar_that_was_just_written_is_not_taken_for_settled(tmp_path: Path, reads: list[str]) -> None:
    path, known = tmp_path / "finance.ics", ReadCalendars()
    now = int(datetime.now(UTC).timestamp())
    write(path, "20261126", written=now)
    assert begins(known.spans(path, FINANCE, AT)) == ["20261126"]
    write(path, "20261127", written=now)  # within the same tick of the clock of files
    assert begins(known.spans(path, FINANCE, AT)) == ["20261127"]
    assert len(reads) == 2


def test_what_is_no_calendar_is_refused_each_time_read_once_and_mended_by_its_file(
    tmp_path: Path, reads: list[str]
) -> None:
    path, known = tmp_path / "finance.ics", ReadCalendars()
    path.write_bytes(b"<html>")
    os.utime(path, (LONG_AGO, LONG_AGO))
    for _ in range(3):
        with pytest.raises(BadInput, match=r"finance\.ics is not a calendar"):
            known.spans(path, FINANCE, AT)
    assert len(reads) == 1
    write(path, "20261126")
    assert begins(known.spans(path, FINANCE, AT)) == ["20261126"]


def test_the_times_ahead_are_looked_for_anew_each_day_and_for_each_zone(
    tmp_path: Path, reads: list[str]
) -> None:
    path, known = tmp_path / "finance.ics", ReadCalendars()
    path.write_bytes(calendar("DTSTART;VALUE=DATE:20261126\r\nRRULE:FREQ=MONTHLY\r\nSUMMARY:close"))
    os.utime(path, (LONG_AGO, LONG_AGO))
    for hours in range(24):
        last = known.spans(path, FINANCE, AT.replace(hour=hours))[-1]
        assert last.begins <= AT.replace(tzinfo=None) + timedelta(days=402)
    assert len(reads) == 1
    later = known.spans(path, FINANCE, AT + timedelta(days=60))[-1]
    assert later.begins > last.begins
    in_berlin = FINANCE.model_copy(update={"tz": "Europe/Berlin"})
    assert {one.tz for one in known.spans(path, in_berlin, AT)} == {"Europe/Berlin"}
    assert len(reads) == 3


def test_only_so_much_is_remembered(
    tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calendars, "MOST_SPANS_KEPT", 3)
    known = ReadCalendars()
    for number in range(3):
        write(tmp_path / f"{number}.ics", "20261126", "20261127")
        known.spans(tmp_path / f"{number}.ics", FINANCE, AT)
    known.spans(tmp_path / "2.ics", FINANCE, AT)
    assert len(reads) == 3
    known.spans(tmp_path / "0.ics", FINANCE, AT)
    assert len(reads) == 4


@pytest.mark.parametrize(
    "said",
    [
        {"begins": None, "ends": None, "ics": None},
        {"begins": None, "ends": datetime(2026, 11, 2), "ics": None},  # noqa: DTZ001 - local, as files have it
        {"begins": datetime(2026, 11, 1), "ends": None, "ics": None},  # noqa: DTZ001
    ],
)
def test_a_freeze_of_a_kind_that_is_not_understood_keeps_everything_closed(
    said: dict[str, Any], tmp_path: Path
) -> None:
    """Whatever lets one through: of a kind that is added, one reader may not have a case yet."""
    strange = Freeze.model_construct(name="moon", tz="UTC", **said)
    fleet = fleet_of("edge").model_copy(update={"freezes": (strange,)})
    with pytest.raises(BadInput, match="the freeze moon has neither a time nor a calendar"):
        Calendars(Folder(tmp_path)).frozen(fleet, AT)


def test_a_time_freezes_itself_whatever_lies_beside_the_fleets_file(tmp_path: Path) -> None:
    freeze = Freeze.model_validate(
        {"name": "close", "from": "2026-11-01T00:00", "to": "2026-11-03T00:00", "tz": "UTC"}
    )
    (found,) = Calendars(Folder(tmp_path)).frozen_by(fleet_of("edge"), freeze, AT)
    assert (found.what, begins((found,))) == ("close", ["20261101"])
