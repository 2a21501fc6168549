"""A restored ledger: its audit log is whole again, and the services can open what root has written."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from orchestrator.processes.ledger_files import back_up, bring_back
from orchestrator.service.checkpoints import Checkpoints
from orchestrator.store.backup import backed_up
from orchestrator.store.database import open_database
from orchestrator.store.ledger import Ledger
from policies.model.errors import BadInput
from tests.fakes.ledgers import new_ledger

NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
SERVICE = 12345
"""The user who runs the services."""


class Installation:
    """One state folder, its ledger and its checkpoints, as the settings name them."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.state, self.backup = folder / "state", folder / "ledger.jsonl"
        self.state.mkdir()
        self.database = self.state / "ledger.db"
        self.kept = self.state / "checkpoints.jsonl"
        self.address = f"sqlite:///{self.database}"
        monkeypatch.setenv("PENSTOCK_LEDGER_URL", self.address)
        monkeypatch.setenv("PENSTOCK_AUDIT_KEY", str(self.state / "audit.key"))
        monkeypatch.setenv("PENSTOCK_AUDIT_CHECKPOINTS", str(self.kept))
        monkeypatch.setenv("PENSTOCK_PEOPLE", str(folder / "people.yaml"))

    @property
    def ledger(self) -> Ledger:
        return Ledger.open(self.address)

    @property
    def checkpoints(self) -> Checkpoints:
        return Checkpoints(self.ledger, self.state / "audit.key", self.kept)

    def audited(self, *actions: str) -> None:
        for action in actions:
            self.ledger.audit("ana", "cli", action, "edge", {})

    def lose(self) -> None:
        for path in self.state.glob("ledger.db*"):
            path.unlink()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installation:
    return Installation(tmp_path, monkeypatch)


def test_the_audit_log_verifies_after_a_restore_of_a_backup_that_is_older_than_a_checkpoint(
    here: Installation,
) -> None:
    """newcomer 8: the stop signs a checkpoint behind the backup, and the start wrote other entries there."""
    here.audited("planned", "started")
    here.checkpoints.note(now=True)
    back_up(here.backup)
    here.audited("held", "stopped")
    last = here.checkpoints.note(now=True)
    assert last is not None
    here.lose()
    brought = bring_back(here.backup)
    assert brought.fault is None
    assert brought.parted is not None
    assert (brought.parted.first, brought.parted.last) == (3, last.seq)
    here.audited("started", "resumed", "ended")
    here.checkpoints.note(now=True)
    assert here.checkpoints.verify().fault is None
    assert str(last.seq) in brought.parted.file.read_text()
    told = next(entry for entry in here.ledger.audit_entries(0) if entry.action == "ledger restored")
    assert str(brought.parted.file) in told.body


def test_a_restore_of_the_newest_backup_leaves_the_checkpoints_alone(here: Installation) -> None:
    here.audited("planned")
    here.checkpoints.note(now=True)
    before = here.kept.read_text()
    back_up(here.backup)
    here.lose()
    assert bring_back(here.backup).parted is None
    assert here.kept.read_text() == before


@NEEDS_ROOT
def test_what_root_restores_belongs_to_the_user_of_the_services(here: Installation) -> None:
    """newcomer 8: it belonged to root, and no service could open the ledger."""
    here.audited("planned")
    back_up(here.backup)
    here.audited("stopped")
    here.checkpoints.note(now=True)
    here.lose()
    os.chown(here.state, SERVICE, SERVICE)
    brought = bring_back(here.backup)
    assert brought.parted is not None
    written = [*here.state.glob("ledger.db*"), here.kept, brought.parted.file]
    assert {(path.stat().st_uid, path.stat().st_gid) for path in written} == {(SERVICE, SERVICE)}


@NEEDS_ROOT
def test_a_link_of_the_services_user_gives_no_file_of_root_away(here: Installation, tmp_path: Path) -> None:
    """S6's kind, a fresh reader's M1: a restore gave the file away that a link in the folder led to."""
    here.audited("planned")
    back_up(here.backup)
    here.lose()
    roots = tmp_path / "environment"
    roots.touch()
    os.chown(here.state, SERVICE, SERVICE)
    here.kept.unlink(missing_ok=True)
    here.kept.symlink_to(roots)
    bring_back(here.backup)
    assert roots.stat().st_uid == 0


def test_a_backup_of_a_ledger_that_is_not_there_is_refused_and_makes_nothing(here: Installation) -> None:
    """The hourly timer made an empty ledger, which belonged to root and took no backup back."""
    here.audited("planned")
    back_up(here.backup)
    here.lose()
    later = here.backup.with_name("later.jsonl")
    with pytest.raises(
        BadInput, match=r"no ledger at .*/ledger\.db\. Set PENSTOCK_LEDGER_URL .* ledger-restore"
    ):
        back_up(later)
    assert not later.exists()
    assert not [*here.state.glob("ledger.db*")]
    assert bring_back(here.backup).rows > 0


def test_a_backup_of_an_empty_ledger_is_not_restored(here: Installation) -> None:
    engine = open_database(new_ledger(here.database))
    here.backup.write_text("".join(backed_up(engine)))
    engine.dispose()
    here.lose()
    with pytest.raises(BadInput, match="has no rows"):
        bring_back(here.backup)
    assert not here.database.exists()


@NEEDS_ROOT
def test_what_root_opens_belongs_to_the_user_of_the_services_also_where_a_restore_is_refused(
    here: Installation,
) -> None:
    here.audited("planned")
    back_up(here.backup)
    os.chown(here.state, SERVICE, SERVICE)
    for path in here.state.glob("ledger.db*"):
        os.chown(path, SERVICE, SERVICE)
    other = here.ledger
    other.audit_head()
    back_up(here.backup.with_name("second.jsonl"))
    assert {path.stat().st_uid for path in here.state.glob("ledger.db*")} == {SERVICE}
    other.close()
    here.lose()
    here.backup.write_text(_of_another_schema(here.backup.read_text()))
    with pytest.raises(BadInput, match="restore it with the penstock that made it"):
        bring_back(here.backup)
    made = [*here.state.glob("ledger.db*")]
    assert made
    assert {path.stat().st_uid for path in made} == {SERVICE}


def _of_another_schema(text: str) -> str:
    """Return a whole backup that another penstock made."""
    lines = text.replace('"revision":"', '"revision":"9', 1).splitlines(keepends=True)[:-1]
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()
    return "".join(lines) + json.dumps({"rows": len(lines) - 1, "sha256": digest}) + "\n"


def test_the_user_of_the_services_backs_up_and_restores_without_being_a_person(
    here: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.audited("planned")
    monkeypatch.setattr(os, "geteuid", lambda: SERVICE)
    back_up(here.backup)
    here.lose()
    bring_back(here.backup)
    persons = {one.action: one.person for one in here.ledger.audit_entries(0)}
    assert persons["ledger restored"] == f"system user {SERVICE}"
