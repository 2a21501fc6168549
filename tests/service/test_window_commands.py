"""`penstock window`: what is asked and frozen on the command line."""

import json
from pathlib import Path

import pytest

from tests.service.command_line import CommandLine
from tests.service.conftest import FLEETS

WHY = ("--reason", "nobody is at work")
SPAN = ("--from", "2020-01-01T00:00", "--to", "2090-01-01T00:00", "--tz", "Europe/Berlin")
ADD = ("freeze", "add", "--name", "x", *WHY)
CALENDAR = """BEGIN:VCALENDAR
VERSION:2.0
PRODID:-//edge//EN
BEGIN:VEVENT
UID:1@example.org
SUMMARY:quarter end
DTSTART;VALUE=DATE:20200101
RRULE:FREQ=DAILY
END:VEVENT
END:VCALENDAR
"""
ALWAYS = "open: no windows are declared, so it is always open"


async def test_a_fleet_without_windows_is_always_open(penstock: CommandLine) -> None:
    for asked in ("list", "next", "check"):
        said = await penstock("window", asked, "edge")
        assert (said.code, ALWAYS in " ".join(said.out.split())) == (0, True), said


async def test_a_freeze_closes_the_fleet_until_it_is_removed(penstock: CommandLine) -> None:
    added = await penstock("window", "freeze", "add", "edge", "--name", "audit", *SPAN, *WHY)
    assert added.code == 0, added.err
    closed = await penstock("window", "check", "edge")
    assert closed.code == 5
    assert "closed by the freeze audit" in closed.out
    (listed,) = json.loads((await penstock("window", "freeze", "list", "edge", "-o", "json")).out)["data"]
    assert listed["name"] == "audit"
    removed = await penstock("window", "freeze", "remove", "edge", "--name", "audit", *WHY)
    assert removed.code == 0, removed.err
    assert (await penstock("window", "check", "edge")).code == 0
    again = await penstock("window", "freeze", "remove", "edge", "--name", "audit", *WHY)
    assert again.code != 0
    assert "audit" in again.err


async def test_the_events_of_a_calendar_are_frozen(penstock: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "finance.ics"
    file.write_text(CALENDAR.replace("\n", "\r\n"))
    where = ("--name", "finance", "--tz", "Europe/Berlin", "--fleet", "edge")
    imported = await penstock("window", "freeze", "import", str(file), *where, *WHY)
    assert imported.code == 0, imported.err
    assert (await penstock("window", "check", "edge")).code == 5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("check", "edge", "--at", "tomorrow"), "tomorrow"),
        ((*ADD, *SPAN[:4], "--tz", "Europe/Atlantis"), "Atlantis"),
        ((*ADD, *SPAN[2:4], "--from", "2091-01-01T00:00", "--tz", "UTC"), "write the later time last"),
        (("freeze", "import", "/nowhere.ics", *ADD[2:], "--tz", "UTC"), "/nowhere.ics"),
    ],
)
async def test_what_makes_no_sense_is_refused_and_freezes_nothing(
    penstock: CommandLine, words: tuple[str, ...], said: str
) -> None:
    refused = await penstock("window", *words)
    assert refused.code == 2, refused
    assert said in refused.err
    assert json.loads((await penstock("window", "freeze", "list", "edge", "-o", "json")).out)["data"] == []


def test_the_fleets_of_these_tests_declare_no_windows() -> None:
    assert "windows:" not in FLEETS
