"""An audit record with checkpoints, and what its database's owner can do to it."""

from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Connection, Engine, text, update

from orchestrator.service.checkpoints import Checkpoints
from orchestrator.store.database import writing
from orchestrator.store.ledger import Ledger
from orchestrator.store.tables import audit

Attack = Callable[[Connection], object]


def noted(ledger: Ledger, folder: Path) -> Checkpoints:
    """Return checkpoints in this folder after ten entries, after twenty, and five entries without one."""
    found = Checkpoints(ledger, folder / "audit.key", folder / "checkpoints.jsonl")
    for number in range(25):
        ledger.audit("ana", "cli", "looked", "edge", {"n": number}, fleet="edge" if number % 2 else None)
        if number in {9, 19}:
            found.note(now=True)
    return found


def attack(engine: Engine, done: Attack) -> None:
    """Do this to the record as the database's owner, who takes away what keeps others from it first."""
    triggers = {
        "sqlite": ("audit_no_update", "audit_no_delete"),
        "postgresql": ("audit_append_only ON audit",),
    }
    with writing(engine) as database:
        for trigger in triggers[engine.dialect.name]:
            database.execute(text(f"DROP TRIGGER {trigger}"))
        done(database)


def edit(database: Connection) -> None:
    """Have somebody else in one entry."""
    database.execute(update(audit).where(audit.c.seq == 7).values(person="eve"))
