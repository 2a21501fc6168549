"""Ends: what only a report asks of the ledger, in few rows of bounded size whatever the fleet."""

import zlib
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import NamedTuple

from pydantic import BaseModel
from sqlalchemy import func, select

from orchestrator.store import tables
from orchestrator.store.book import Book
from orchestrator.store.database import reading
from policies.model.audit import AuditEntry

MOST_SAID = 50
"""Entries of the audit record about the drains after a change that are shown."""


class Planned(NamedTuple):
    """What a plan says that its header does not: users counted when it was made, and gates' margins."""

    sessions: int | None
    """Sessions counted on the gateways that change; None where they could not be counted on all of them."""
    margins: Mapping[str, float]


class _Margin(BaseModel):
    delta: float


class _Gate(BaseModel):
    id: str
    margin: _Margin | None = None


class _Gates(BaseModel):
    gates: tuple[_Gate, ...]


class _Wave(BaseModel):
    gateways: tuple[str, ...]


class _Plan(BaseModel):
    """What is read of a whole plan, which may be of any age and say more: megabytes of other things."""

    waves: tuple[_Wave, ...]
    gates: _Gates
    sessions: dict[str, int | None] = {}


class Ends(Book):
    """How changes ended, as reports tell it."""

    def planned(self, plan: str) -> Planned | None:
        """Return what the whole plan says; None where it has none, as ways back and reloads."""
        table = tables.plans
        with reading(self._engine) as connection:
            body = connection.execute(select(table.c.body).where(table.c.digest == plan)).scalar_one_or_none()
        text = zlib.decompress(body) if body is not None else b""
        if not text:
            return None
        said = _Plan.model_validate_json(text)
        known = [said.sessions.get(name) for wave in said.waves for name in wave.gateways]
        margins = {gate.id: gate.margin.delta for gate in said.gates.gates if gate.margin is not None}
        return Planned(sum(filter(None, known)) if None not in known else None, margins)

    def snapshot_count(self, change: str) -> int:
        """Return how many snapshots of the change are kept."""
        table = tables.snapshots
        with reading(self._engine) as connection:
            wanted = select(func.count()).select_from(table).where(table.c.rollout == change)
            return int(connection.execute(wanted).scalar_one())

    def event_count(self, change: str) -> int:
        """Return how many events the change has."""
        table = tables.events
        with reading(self._engine) as connection:
            wanted = select(func.count()).select_from(table).where(table.c.change == change)
            return int(connection.execute(wanted).scalar_one())

    def entries_about(
        self, fleet: str, actions: Collection[str], subject: str, *, exactly: bool = True
    ) -> tuple[AuditEntry, ...]:
        """Return entries of the fleet by what was done to what, the oldest first.

        Args:
            fleet: Whose entries.
            actions: What was done.
            subject: To what; where it is not `exactly` that, to whatever of it, as a gateway in a change.
            exactly: Whether the subject is written like this, and not only its end.
        """
        table = tables.audit
        wanted = select(table).where(table.c.fleet == fleet, table.c.action.in_(sorted(actions)))
        same = table.c.subject == subject
        wanted = wanted.where(same if exactly else table.c.subject.endswith(f"/{subject}", autoescape=True))
        with reading(self._engine) as connection:
            rows = connection.execute(wanted.order_by(table.c.seq).limit(MOST_SAID))
            return tuple(AuditEntry.model_validate(dict(row._mapping)) for row in rows)  # noqa: SLF001 - public

    def newest_below(self, fleet: str, action: str, subject: str, most: int) -> tuple[AuditEntry, ...]:
        """Return the newest entries of what was done to whatever is of that subject, the oldest first."""
        table = tables.audit
        wanted = select(table).where(
            table.c.fleet == fleet,
            table.c.action == action,
            table.c.subject.startswith(f"{subject}/", autoescape=True),
        )
        with reading(self._engine) as connection:
            rows = connection.execute(wanted.order_by(table.c.seq.desc()).limit(most)).all()
        return tuple(AuditEntry.model_validate(dict(row._mapping)) for row in reversed(rows))  # noqa: SLF001

    def last_entry(self, fleet: str, person: str, actions: Collection[str]) -> AuditEntry | None:
        """Return the newest entry of the fleet in which that person did one of these; None without one."""
        table = tables.audit
        wanted = select(table).where(
            table.c.fleet == fleet, table.c.action.in_(sorted(actions)), table.c.person == person
        )
        with reading(self._engine) as connection:
            row = connection.execute(wanted.order_by(table.c.seq.desc()).limit(1)).first()
            return AuditEntry.model_validate(dict(row._mapping)) if row is not None else None  # noqa: SLF001 - public

    def ended_since(self, moment: datetime) -> tuple[str, ...]:
        """Return the names of the changes that ended since then, the newest first."""
        table = tables.changes
        wanted = select(table.c.name).where(table.c.ended >= moment).order_by(table.c.ended.desc())
        with reading(self._engine) as connection:
            return tuple(connection.execute(wanted).scalars())
