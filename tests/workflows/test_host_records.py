"""What a host refused or was done on it by hand comes into the fleet's audit record by itself, verified."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from activities.drivers.runtime.host.audit import HostAudit
from activities.host_record import LONGEST_PAGE
from tests.workflows.world import World, reconcile


@dataclass
class Signed:
    serial: str
    expires: datetime


@pytest.fixture
def record(world: World, tmp_path: Path) -> HostAudit:
    made = HostAudit(tmp_path / "audit.jsonl", tmp_path / "audit.key")
    world.gateways["gw-2"].record = made
    return made


def told(world: World) -> list[tuple[str, str]]:
    entries = world.book.audit_entries(fleets=[world.fleet.name])
    return [(one.person, one.action) for one in entries if "host" in one.action]


async def test_what_a_host_recorded_is_in_the_fleets_record_once(world: World, record: HostAudit) -> None:
    record.record("break-glass", "reset the fence: the engine is not ours", "root")
    record.record_refusal("refused: ForeignOrder", "step start of evil is for gw-9, and this host is gw-2")
    for _ in range(2):
        await reconcile(world)
    assert told(world) == [
        ("gw-2: root", "on the host: break-glass"),
        ("gw-2: the engine", "on the host: refused: ForeignOrder"),
    ]
    record.record("break-glass", "once more", "root")
    await reconcile(world)
    assert len(told(world)) == 3
    assert world.book.verify_audit() is None


@pytest.mark.sweep
async def test_a_long_record_is_collected_a_page_at_a_look(
    world: World, record: HostAudit, tmp_path: Path
) -> None:
    record.record("break-glass", "reset", "root")
    lines = LONGEST_PAGE // (tmp_path / "audit.jsonl").stat().st_size + 3
    for _ in range(1, lines):
        record.record("break-glass", "reset", "root")
    await reconcile(world)
    assert lines - 20 < len(told(world)) < lines
    await reconcile(world)
    assert len(told(world)) == lines


@pytest.mark.sweep
async def test_a_record_that_was_cut_altered_or_signed_by_another_key_is_named(
    world: World, record: HostAudit, tmp_path: Path
) -> None:
    for number in range(3):
        record.record("break-glass", f"reset {number}", "root")
    await reconcile(world)
    path = tmp_path / "audit.jsonl"
    whole = path.read_text()
    path.write_text("".join(whole.splitlines(keepends=True)[:2]))
    await reconcile(world)
    record.record("break-glass", "another third", "root")
    record.record("break-glass", "a fourth", "root")
    for _ in range(2):
        await reconcile(world)
    faults = [
        json.loads(one.body)["fault"]
        for one in world.book.audit_entries()
        if one.action == "host record broken"
    ]
    assert faults == ["it has 2 lines, and 3 were collected", "line 4 does not follow the one before it"]
    (tmp_path / "audit.key").unlink()
    path.write_text(whole)
    record.record("break-glass", "with another key", "root")
    await reconcile(world)
    assert [one for one in told(world) if one[1] == "host record broken"] == [
        ("penstock", "host record broken")
    ] * 3


async def test_a_record_that_was_taken_away_as_a_whole_is_named(
    world: World, record: HostAudit, tmp_path: Path
) -> None:
    record.record("break-glass", "reset", "root")
    await reconcile(world)
    (tmp_path / "audit.jsonl").unlink()
    for _ in range(2):
        await reconcile(world)
    assert told(world) == [("gw-2: root", "on the host: break-glass"), ("penstock", "host record broken")]


async def test_a_host_that_was_set_up_anew_begins_a_new_record(world: World, record: HostAudit) -> None:
    record.record("break-glass", "before", "root")
    await reconcile(world)
    world.gateways["gw-2"].record = HostAudit(
        record._path.with_name("new.jsonl"), record._path.with_name("new.key")
    )
    token, _ = world.book.make_enrolment(world.fleet.name, "gw-2", "ada")
    world.book.use_enrolment(token, lambda *_: Signed("1f", datetime.now(UTC)), "192.0.2.1")
    world.gateways["gw-2"].record.record("break-glass", "after", "root")
    await reconcile(world)
    assert [action for _, action in told(world)] == ["on the host: break-glass"] * 2
