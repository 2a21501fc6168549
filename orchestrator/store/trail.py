"""The trail: the append-only, hash-chained record of who did what; `record.py` appends to it."""

from sqlalchemy import select

from orchestrator.store import tables
from orchestrator.store.book import Book
from orchestrator.store.chain import AuditEntry, AuditHead, broken
from orchestrator.store.database import reading, writing
from orchestrator.store.record import append, head_of


class Trail(Book):
    """The audit record, to be added to, read and verified."""

    def audit(
        self, person: str, via: str, action: str, subject: str, body: object, key: str | None = None
    ) -> AuditHead:
        """Append to the audit record; return its head.

        Args:
            person: Who acted.
            via: Through which door: cli, api, web, chat, schedule, system.
            action: What was done, in the past tense.
            subject: To what.
            body: Anything JSON can say about it; never the name of a VPN user.
            key: Makes a repeat the same entry.
        """
        with writing(self._engine) as connection:
            append(connection, person, via, action, subject, body, key)
            return head_of(connection)

    def audit_entries(self, after: int = 0) -> tuple[AuditEntry, ...]:
        """Return the audit record from the entry after that number on, the oldest first."""
        table = tables.audit
        with reading(self._engine) as connection:
            rows = connection.execute(select(table).where(table.c.seq > after).order_by(table.c.seq))
            return tuple(AuditEntry.model_validate(dict(row._mapping)) for row in rows)  # noqa: SLF001 - public

    def audit_head(self) -> AuditHead:
        """Return the newest entry's number and hash, to be noted outside the ledger."""
        with reading(self._engine) as connection:
            return head_of(connection)

    def verify_audit(self, noted: AuditHead | None = None) -> str | None:
        """Return what is wrong with the audit record, None when it is whole.

        Without a head noted earlier elsewhere, entries cut off at the end are not noticed.
        """
        return broken(self.audit_entries(), noted)
