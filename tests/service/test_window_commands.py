"""The commands of windows and freezes: what they print, and with which code they end."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestrator.service.service import Service
from orchestrator.store.ledger import Ledger
from tests.service.command_line import CommandLine, Ended
from tests.service.conftest import FLEETS

NIGHTS = """\
windows:
  - {name: night, tz: Europe/Berlin, rrule: "FREQ=WEEKLY;BYDAY=TU", start: "02:00", duration: 4h}
"""
INSIDE, OUTSIDE = "2030-01-08T03:00+01:00", "2030-01-09T03:00+01:00"
"""On a Tuesday, and on a Wednesday."""

WHY = ("--reason", "the resolvers move")


def declare(folder: Path) -> None:
    (folder / "fleets" / "edge.yaml").write_text(FLEETS.format(name="edge") + NIGHTS)


def read(said: Ended) -> object:
    assert said.code == 0, said.err
    return json.loads(said.out)["data"]


async def test_check_ends_with_0_inside_of_a_window_and_with_5_outside(
    penstock: CommandLine, service: Service, tmp_path: Path
) -> None:
    del service  # its files are there
    declare(tmp_path)
    said = await penstock("window", "check", "edge", "--at", INSIDE)
    assert (said.code, said.out.strip()) == (
        0,
        "open: closes Tue 2030-01-08 06:00 Europe/Berlin (05:00Z), in 3 h 0 m",
    )
    said = await penstock("window", "check", "edge", "--at", OUTSIDE)
    assert said.code == 5
    assert said.out.strip() == "closed: next opening Tue 2030-01-15 02:00 Europe/Berlin (01:00Z), in 5 d 23 h"
    said = await penstock("window", "check", "edge", "--at", OUTSIDE, "-o", "json")
    assert (said.code, json.loads(said.out)["data"]["open"]) == (5, False)
    said = await penstock("window", "check", "edge", "--at", "tomorrow")
    assert (said.code, said.out) == (2, "")


async def test_list_and_next_show_windows_and_their_openings(
    penstock: CommandLine, service: Service, tmp_path: Path
) -> None:
    del service
    declare(tmp_path)
    said = await penstock("window", "list", "edge")
    assert said.code == 0, said.err
    assert "FREQ=WEEKLY;BYDAY=TU" in said.out
    assert "02:00 Europe/Berlin" in said.out
    assert "Nothing is frozen." in said.out
    said = await penstock("window", "next", "edge")
    assert said.code == 0, said.err
    rows = [line for line in said.out.splitlines() if "Europe/Berlin" in line]
    assert len(rows) >= 8
    assert all(line.lstrip().startswith("Tue ") for line in rows)
    found = read(await penstock("window", "next", "edge", "-o", "json"))
    assert isinstance(found, list)
    first = datetime.fromisoformat(found[0]["closes"]) - datetime.fromisoformat(found[0]["opens"])
    assert timedelta(0) < first <= timedelta(hours=4)
    assert (await penstock("window", "list", "edge", "-o", "name")).out.split() == ["night"]


async def test_a_freeze_is_added_listed_and_removed_with_a_reason(
    penstock: CommandLine, service: Service, ledger: Ledger
) -> None:
    del service
    words = ("--name", "dns-move", "--from", "2030-01-08T00:00", "--to", "2030-01-09T00:00", "--tz", "UTC")
    said = await penstock("window", "freeze", "add", "edge", *words)
    assert said.code == 2
    assert ledger.freezes("edge") == ()
    said = await penstock("window", "freeze", "add", "edge", *words, *WHY)
    assert said.code == 0, said.err
    assert (await penstock("window", "freeze", "list", "edge", "-o", "name")).out.split() == ["dns-move"]
    said = await penstock("window", "freeze", "list", "edge")
    assert "root: the resolvers move" in said.out
    said = await penstock("window", "check", "edge", "--at", INSIDE)
    assert said.code == 5
    assert said.out.startswith("closed by the freeze dns-move: next opening Wed 2030-01-09 00:00 UTC")
    said = await penstock("window", "freeze", "remove", "edge", "--name", "dns-move", *WHY)
    assert (said.code, said.out.strip()) == (0, "dns-move is removed.")
    said = await penstock("window", "freeze", "remove", "edge", "--name", "dns-move", *WHY)
    assert said.code == 2
    assert "edge has no freeze dns-move" in said.err
    assert (await penstock("window", "check", "edge", "--at", INSIDE)).code == 0


async def test_a_calendar_is_imported_and_one_that_is_none_freezes_nothing(
    penstock: CommandLine, service: Service, ledger: Ledger, tmp_path: Path
) -> None:
    del service
    now = datetime.now(UTC)
    span = (
        f"DTSTART:{now - timedelta(days=1):%Y%m%dT%H%M%SZ}\r\nDTEND:{now + timedelta(days=2):%Y%m%dT%H%M%SZ}"
    )
    file = tmp_path / "finance.ics"
    file.write_text(
        "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:x\r\nBEGIN:VEVENT\r\nUID:1\r\n"
        f"{span}\r\nSUMMARY:close\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
    )
    words = ("--fleet", "edge", "--name", "finance", "--tz", "UTC", *WHY)
    said = await penstock("window", "freeze", "import", str(tmp_path / "none.ics"), *words)
    assert said.code == 2
    assert "cannot be read" in said.err
    (tmp_path / "page.ics").write_text("<html>")
    assert (await penstock("window", "freeze", "import", str(tmp_path / "page.ics"), *words)).code == 2
    assert ledger.freezes("edge") == ()
    said = await penstock("window", "freeze", "import", str(file), *words)
    assert said.code == 0, said.err
    assert [kept.name for kept in ledger.freezes("edge")] == ["finance"]
    said = await penstock("window", "check", "edge")
    assert said.code == 5
    assert said.out.startswith("closed by the freeze finance")


SPAN = ("--from", "2020-01-01T00:00", "--to", "2090-01-01T00:00")
ADD = ("freeze", "add", "edge", "--name", "x", *WHY)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((*ADD, *SPAN, "--tz", "Europe/Atlantis"), "Atlantis"),
        ((*ADD, *SPAN[2:], "--from", "2091-01-01T00:00", "--tz", "UTC"), "write the later time last"),
    ],
)
async def test_a_freeze_that_makes_no_sense_is_refused_and_freezes_nothing(
    penstock: CommandLine, words: tuple[str, ...], said: str
) -> None:
    refused = await penstock("window", *words)
    assert refused.code == 2, refused
    assert said in refused.err
    assert read(await penstock("window", "freeze", "list", "edge", "-o", "json")) == []
