"""The trail: the append-only, hash-chained record of who did what; `record.py` appends to it."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from sqlalchemy import Select, select

from orchestrator.store import tables
from orchestrator.store.book import Book
from orchestrator.store.database import reading, writing
from orchestrator.store.logins import know
from orchestrator.store.record import append, head_of
from orchestrator.store.verifier import first_fault
from policies.model.approval import PLAN_APPROVED
from policies.model.audit import AuditEntry, AuditHead, LateEntry
from policies.model.command import CommandKind

SIGNED_SOON = (
    "change ended",
    PLAN_APPROVED,
    "approval asked for",
    "weaker description wanted",
    *(f"{kind.replace('_', ' ')} asked for" for kind in (CommandKind.APPROVE, CommandKind.PROMOTE)),
)
"""What people answer for, and how changes end: a checkpoint covers them within half a minute."""

PAGE = 2_000
"""Entries that are read at once."""


class Trail(Book):
    """The audit record, to be added to, read and verified."""

    def audit(
        self,
        person: str,
        via: str,
        action: str,
        subject: str,
        body: object,
        key: str | None = None,
        *,
        fleet: str | None = None,
    ) -> AuditHead:
        """Append to the audit record; return its head.

        Args:
            person: Who acted.
            via: Through which door, as in `Via`.
            action: What was done, in the past tense.
            subject: To what.
            body: Anything JSON can say about it; never the name of a VPN user.
            key: Makes a repeat the same entry.
            fleet: Whose entry it is; None for what concerns the whole installation.
        """
        with writing(self._engine) as connection:
            append(connection, person, via, action, subject, body, key, fleet=fleet)
            return head_of(connection)

    def enter(self, entry: LateEntry) -> None:
        """Append an entry that has a key: a repeat of it is the same entry.

        What recognised the person is remembered with it.
        """
        said = (entry.person, entry.via, entry.action, entry.subject, entry.body, entry.key)
        with writing(self._engine) as connection:
            know(connection, {(identity, entry.person) for identity in entry.known_by})
            append(connection, *said, fleet=entry.fleet)

    def audit_entries(
        self, after: int = 0, *, fleets: Collection[str] | None = None, limit: int | None = None
    ) -> tuple[AuditEntry, ...]:
        """Return the audit record from the entry after that number on, the oldest first.

        Args:
            after: The number of the newest entry that is known already.
            fleets: Only entries of these; every entry, those of no fleet too, when left out.
            limit: How many at most.
        """
        table = tables.audit
        wanted = select(table).where(table.c.seq > after).order_by(table.c.seq)
        return self._audit_entries_of(wanted, fleets, limit)

    def newest_audit_entries(
        self, before: int | None, *, fleets: Collection[str] | None = None, limit: int
    ) -> tuple[AuditEntry, ...]:
        """Return the audit record backwards from the entry before that number, or from its end."""
        table = tables.audit
        wanted = select(table).order_by(table.c.seq.desc())
        return self._audit_entries_of(
            wanted if before is None else wanted.where(table.c.seq < before), fleets, limit
        )

    def _audit_entries_of(
        self, wanted: Select[Any], fleets: Collection[str] | None, limit: int | None
    ) -> tuple[AuditEntry, ...]:
        if fleets is not None:
            wanted = wanted.where(tables.audit.c.fleet.in_(sorted(fleets)))
        with reading(self._engine) as connection:
            rows = connection.execute(wanted.limit(limit))
            return tuple(AuditEntry.model_validate(dict(row._mapping)) for row in rows)  # noqa: SLF001 - public

    def each_audit_row(self) -> Iterator[Mapping[str, Any]]:
        """Yield the whole audit record as it is kept, the oldest entry first, a page at a time."""
        table, after = tables.audit, 0
        while True:
            wanted = select(table).where(table.c.seq > after).order_by(table.c.seq).limit(PAGE)
            with reading(self._engine) as connection:
                page = connection.execute(wanted).mappings().all()
            yield from map(dict, page)
            if len(page) < PAGE:
                return
            after = page[-1]["seq"]

    def is_to_be_signed_since(self, seq: int) -> bool:
        """Return whether something came after the entry of that number that is signed at the next scan."""
        table = tables.audit
        wanted = select(table.c.seq).where(table.c.seq > seq, table.c.action.in_(SIGNED_SOON)).limit(1)
        with reading(self._engine) as connection:
            return connection.execute(wanted).first() is not None

    def audit_head(self) -> AuditHead:
        """Return the newest entry's number and hash, to be noted outside the ledger."""
        with reading(self._engine) as connection:
            return head_of(connection)

    def verify_audit(self, noted: AuditHead | None = None) -> str | None:
        """Return what is wrong with the audit record, None when it is whole.

        Without a head noted earlier elsewhere, entries cut off at the end are not noticed.
        """
        points = [noted.model_dump()] if noted is not None and noted.seq else []
        return first_fault(self.each_audit_row(), points, None)
