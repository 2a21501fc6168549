"""The audit record: its checkpoints, its program for auditors, and who may read it."""

import json
from pathlib import Path

import httpx
import pytest

from orchestrator.service.checkpoints import Checkpoints, signing_key
from orchestrator.store import verifier
from orchestrator.store.ledger import Ledger
from policies.model.errors import BadInput, Unavailable
from policies.model.people import Role
from tests.fakes.audit_record import attack, edit, noted
from tests.service.command_line import CommandLine
from tests.service.test_api import token


@pytest.fixture
def points(tmp_path: Path, ledger: Ledger) -> Checkpoints:
    return noted(ledger, tmp_path)


def test_a_record_that_nobody_touched_is_whole(points: Checkpoints) -> None:
    found = points.verify()
    assert (found.entries, found.checkpoints, found.fault) == (25, 2, None)


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
    penstock: CommandLine, points: Checkpoints, ledger: Ledger, tmp_path: Path
) -> None:
    said = await penstock("audit", "verify")
    assert (said.code, said.out[:3]) == (0, "OK ")
    assert (await penstock("audit", "export", "--to", str(tmp_path / "record.jsonl"))).code == 0
    assert len((tmp_path / "record.jsonl").read_text().splitlines()) == 26
    assert (await penstock("audit", "key")).out.strip() == points.public_key
    attack(ledger.engine, edit)
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
