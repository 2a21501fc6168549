"""The audit record, with the database's owner as attacker, in either kind of database."""

import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import Connection, delete, func, select, text, update

from orchestrator.service.checkpoints import Checkpoints
from orchestrator.store import verifier
from orchestrator.store.chain import chain
from orchestrator.store.database import writing
from orchestrator.store.ledger import Ledger
from orchestrator.store.tables import audit
from policies.model.audit import AuditHead
from tests.fakes.audit_record import Attack, attack, edit, noted


@pytest.fixture
def ledger(url: str) -> Ledger:
    return Ledger.open(url)


@pytest.fixture
def points(tmp_path: Path, ledger: Ledger) -> Checkpoints:
    return noted(ledger, tmp_path)


def write_anew(database: Connection, first: int) -> None:
    """Chain every entry from that one on again, with somebody else's name."""
    previous = database.execute(select(audit.c.hash).where(audit.c.seq == first - 1)).scalar_one_or_none()
    head = AuditHead(seq=first - 1, hash=previous) if previous else AuditHead(seq=0)
    for row in database.execute(select(audit).where(audit.c.seq >= first).order_by(audit.c.seq)).all():
        entry = chain(head, row.at, "eve", row.via, row.action, row.subject, row.body, row.fleet)
        database.execute(update(audit).where(audit.c.seq == row.seq).values(entry.model_dump()))
        head = AuditHead(seq=row.seq, hash=entry.hash)


def edit_the_fleet(database: Connection) -> None:
    database.execute(update(audit).where(audit.c.seq == 8).values(fleet=None))


def take_one_out(database: Connection) -> None:
    database.execute(delete(audit).where(audit.c.seq == 7))


def swap_two(database: Connection) -> None:
    for old, new in ((5, 1005), (6, 5), (1005, 6)):
        database.execute(update(audit).where(audit.c.seq == old).values(seq=new))


def rechain(database: Connection) -> None:
    write_anew(database, 12)


def rechain_all(database: Connection) -> None:
    write_anew(database, 1)


def cut(database: Connection) -> None:
    database.execute(delete(audit).where(audit.c.seq > 17))


def empty(database: Connection) -> None:
    database.execute(delete(audit))


ATTACKS: list[tuple[Attack, str]] = [
    (edit, "audit entry 7 was changed"),
    (edit_the_fleet, "audit entry 8 was changed"),
    (take_one_out, "audit entry 7 is missing"),
    (swap_two, "audit entry 5 does not follow entry 4"),
    (rechain, "audit entry 20 is not the one noted elsewhere; 11 to 20 were written anew"),
    (rechain_all, "audit entry 10 is not the one noted elsewhere; 1 to 10 were written anew"),
    (cut, "audit entries 18 to 20 are missing at the end"),
    (empty, "audit entries 1 to 20 are missing at the end"),
]
EACH = pytest.mark.parametrize(("done", "named"), ATTACKS, ids=[done.__name__ for done, _ in ATTACKS])


@EACH
def test_whatever_the_databases_owner_does_to_it_is_named(
    ledger: Ledger, points: Checkpoints, done: Attack, named: str
) -> None:
    """H3: both chains had no key and no anchor, and were chained again with another person."""
    attack(ledger.engine, done)
    assert points.verify().fault == named


@EACH
def test_an_auditor_finds_the_same_in_an_exported_file_with_a_program_that_stands_alone(
    points: Checkpoints, ledger: Ledger, tmp_path: Path, done: Attack, named: str
) -> None:
    attack(ledger.engine, done)
    record = tmp_path / "record.jsonl"
    record.write_text("".join(e.model_dump_json(exclude_none=True) + "\n" for e in ledger.audit_entries()))
    said = subprocess.run(
        [sys.executable, verifier.__file__, record, tmp_path / "checkpoints.jsonl", points.public_key],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (said.returncode, said.stderr.strip()) == (1, named)


@pytest.mark.parametrize("forbidden", ["UPDATE audit SET person = 'eve'", "DELETE FROM audit"])
def test_who_is_not_its_owner_changes_nothing(ledger: Ledger, points: Checkpoints, forbidden: str) -> None:
    with pytest.raises(Exception, match="append"), writing(ledger.engine) as database:
        database.execute(text(forbidden))
    assert points.verify().fault is None
    with writing(ledger.engine) as database:
        assert database.execute(select(func.count()).select_from(audit)).scalar_one() == 25


@pytest.mark.parametrize(
    "action", ["plan approved", "approval asked for", "promote asked for", "weaker description wanted"]
)
def test_what_people_answer_for_is_signed_at_the_next_scan(ledger: Ledger, action: str) -> None:
    """L4: up to 99 entries, or an hour of them, could be cut off the end of the record."""
    ledger.audit("ana", "cli", "hold asked for", "edge", {})
    assert not ledger.is_to_be_signed_since(0)
    ledger.audit("ana", "cli", action, "edge", {})
    assert ledger.is_to_be_signed_since(0)
    assert not ledger.is_to_be_signed_since(ledger.audit_head().seq)
