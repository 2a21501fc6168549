"""The audit record, with the database's owner as attacker."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from orchestrator.service.checkpoints import Checkpoints, signing_key
from orchestrator.store import verifier
from orchestrator.store.chain import chain
from orchestrator.store.ledger import Ledger
from policies.model.audit import AuditHead
from policies.model.errors import BadInput, Unavailable
from policies.model.people import Role
from tests.service.command_line import CommandLine
from tests.service.test_api import token


@pytest.fixture
def points(tmp_path: Path, ledger: Ledger) -> Checkpoints:
    """Checkpoints after ten entries, after twenty, and five entries without one."""
    found = Checkpoints(ledger, tmp_path / "audit.key", tmp_path / "checkpoints.jsonl")
    for number in range(25):
        ledger.audit("ana", "cli", "looked", "edge", {"n": number}, fleet="edge" if number % 2 else None)
        if number in {9, 19}:
            found.note(now=True)
    return found


def owner(tmp_path: Path) -> sqlite3.Connection:
    """The database as its owner has it: without the triggers that keep others from it."""
    opened = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    for trigger in ("audit_no_update", "audit_no_delete"):
        opened.execute(f"DROP TRIGGER {trigger}")
    return opened


def write_anew(database: sqlite3.Connection, first: int) -> None:
    """Chain every entry from that one on again, with somebody else's name."""
    previous = database.execute("SELECT hash FROM audit WHERE seq = ?", (first - 1,)).fetchone()
    head = AuditHead(seq=first - 1, hash=previous[0]) if previous else AuditHead(seq=0)
    columns = "seq, at, via, action, subject, body, fleet"
    rows = database.execute(f"SELECT {columns} FROM audit WHERE seq >= ? ORDER BY seq", (first,)).fetchall()
    for seq, at, via, action, subject, body, fleet in rows:
        entry = chain(head, at, "eve", via, action, subject, body, fleet)
        database.execute(
            "UPDATE audit SET person = 'eve', previous = ?, hash = ? WHERE seq = ?",
            (entry.previous, entry.hash, seq),
        )
        head = AuditHead(seq=seq, hash=entry.hash)


def edit(database: sqlite3.Connection) -> None:
    database.execute("UPDATE audit SET person = 'eve' WHERE seq = 7")


def edit_the_fleet(database: sqlite3.Connection) -> None:
    database.execute("UPDATE audit SET fleet = NULL WHERE seq = 8")


def delete(database: sqlite3.Connection) -> None:
    database.execute("DELETE FROM audit WHERE seq = 7")


def rechain(database: sqlite3.Connection) -> None:
    write_anew(database, 12)


def rechain_all(database: sqlite3.Connection) -> None:
    write_anew(database, 1)


def cut(database: sqlite3.Connection) -> None:
    database.execute("DELETE FROM audit WHERE seq > 17")


def empty(database: sqlite3.Connection) -> None:
    database.execute("DELETE FROM audit")


ATTACKS: list[tuple[Callable[[sqlite3.Connection], None], str]] = [
    (edit, "audit entry 7 was changed"),
    (edit_the_fleet, "audit entry 8 was changed"),
    (delete, "audit entry 7 is missing"),
    (rechain, "audit entry 20 is not the one noted elsewhere; 11 to 20 were written anew"),
    (rechain_all, "audit entry 10 is not the one noted elsewhere; 1 to 10 were written anew"),
    (cut, "audit entries 18 to 20 are missing at the end"),
    (empty, "audit entries 1 to 20 are missing at the end"),
]


def test_a_record_that_nobody_touched_is_whole(points: Checkpoints) -> None:
    found = points.verify()
    assert (found.entries, found.checkpoints, found.fault) == (25, 2, None)


@pytest.mark.parametrize(("attack", "named"), ATTACKS, ids=[attack.__name__ for attack, _ in ATTACKS])
def test_whatever_the_databases_owner_does_to_it_is_named(
    points: Checkpoints, tmp_path: Path, attack: Callable[[sqlite3.Connection], None], named: str
) -> None:
    attack(owner(tmp_path))
    assert points.verify().fault == named


@pytest.mark.parametrize(("attack", "named"), ATTACKS, ids=[attack.__name__ for attack, _ in ATTACKS])
def test_an_auditor_finds_the_same_in_an_exported_file_with_a_program_that_stands_alone(
    points: Checkpoints,
    ledger: Ledger,
    tmp_path: Path,
    attack: Callable[[sqlite3.Connection], None],
    named: str,
) -> None:
    attack(owner(tmp_path))
    record = tmp_path / "record.jsonl"
    record.write_text("".join(e.model_dump_json(exclude_none=True) + "\n" for e in ledger.audit_entries()))
    said = subprocess.run(
        [sys.executable, verifier.__file__, record, tmp_path / "checkpoints.jsonl", points.public_key],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (said.returncode, said.stderr.strip()) == (1, named)


def test_the_program_for_auditors_can_be_read_in_a_minute() -> None:
    assert len(Path(verifier.__file__).read_text().splitlines()) <= 60


def test_a_checkpoint_that_somebody_else_signed_is_none(points: Checkpoints, tmp_path: Path) -> None:
    kept = tmp_path / "checkpoints.jsonl"
    lines = [json.loads(line) for line in kept.read_text().splitlines()]
    lines[0]["hash"] = "f" * 64
    kept.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert points.verify().fault == "the checkpoint of entry 10 is not signed with this key"


def test_a_checkpoint_is_written_when_it_is_due_and_not_before(tmp_path: Path, ledger: Ledger) -> None:
    found = Checkpoints(ledger, tmp_path / "audit.key", tmp_path / "checkpoints.jsonl")
    assert found.note() is None
    ledger.audit("ana", "cli", "looked", "edge", {})
    assert found.note() is not None
    ledger.audit("ana", "cli", "looked", "edge", {})
    assert found.note() is None
    assert found.note(now=True) is not None
    assert found.note(now=True) is None


def test_a_sink_that_is_away_keeps_no_checkpoint_from_the_others(tmp_path: Path, ledger: Ledger) -> None:
    sent: list[str] = []

    def away(line: str) -> None:
        raise Unavailable(f"nobody is there for {line}")

    found = Checkpoints(ledger, tmp_path / "audit.key", tmp_path / "kept.jsonl", [away, sent.append])
    ledger.audit("ana", "cli", "looked", "edge", {})
    found.note()
    assert len(sent) == len((tmp_path / "kept.jsonl").read_text().splitlines()) == 1


def test_a_key_that_others_can_read_signs_nothing(tmp_path: Path) -> None:
    signing_key(tmp_path / "audit.key")
    (tmp_path / "audit.key").chmod(0o644)
    with pytest.raises(BadInput, match="read by others"):
        signing_key(tmp_path / "audit.key")


async def test_the_command_verifies_exports_and_ends_with_ten_when_something_is_wrong(
    penstock: CommandLine, points: Checkpoints, tmp_path: Path
) -> None:
    said = await penstock("audit", "verify")
    assert (said.code, said.out[:3]) == (0, "OK ")
    assert (await penstock("audit", "export", "--to", str(tmp_path / "record.jsonl"))).code == 0
    assert len((tmp_path / "record.jsonl").read_text().splitlines()) == 26
    assert (await penstock("audit", "key")).out.strip() == points.public_key
    edit(owner(tmp_path))
    said = await penstock("audit", "verify")
    assert (said.code, said.out.strip()) == (10, "BROKEN  audit entry 7 was changed")


async def test_an_auditor_of_one_fleet_reads_its_entries_and_no_others(
    api: httpx.AsyncClient, ledger: Ledger, points: Checkpoints
) -> None:
    del points
    shown = token(ledger, Role.AUDITOR)
    found = (await api.get("/audit", headers=shown)).json()["entries"]
    assert found
    assert {entry["fleet"] for entry in found} == {"edge"}
    assert (await api.post("/audit/verify", headers=shown)).status_code == 403
    assert (await api.get("/audit/export", headers=shown)).status_code == 403
    viewer = token(ledger, Role.VIEWER, name="looker")
    assert (await api.get("/audit", headers=viewer)).status_code == 403
