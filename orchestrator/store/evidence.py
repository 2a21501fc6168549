"""The list of snapshots: which failures' evidence is kept, and what of it has been kept long enough."""

from datetime import UTC, datetime

from sqlalchemy import delete, select

from orchestrator.store import tables
from orchestrator.store.book import Book
from orchestrator.store.database import reading, writing
from orchestrator.store.record import append
from policies.model.errors import Unknown
from policies.model.offer import Offer, Verb
from policies.model.people import Via
from policies.model.snapshot import SnapshotRow
from policies.model.value import Digest


class EvidenceList(Book):
    """The snapshots that the ledger lists; the bytes are in the archive."""

    def kept_snapshots(
        self, fleet: str, rollout: str | None = None, *, beginning: str = "", limit: int | None = None
    ) -> tuple[SnapshotRow, ...]:
        """Return the fleet's snapshots, the newest first.

        Args:
            fleet: Whose.
            rollout: Only those of this change.
            beginning: Only those whose digest begins like this.
            limit: How many at most.
        """
        table = tables.snapshots
        mine = select(tables.changes.c.name).where(tables.changes.c.fleet == fleet)
        wanted = select(table).where(table.c.rollout.in_(mine)).order_by(table.c.at.desc(), table.c.gateway)
        if rollout is not None:
            wanted = wanted.where(table.c.rollout == rollout)
        if beginning:
            wanted = wanted.where(table.c.digest.startswith(beginning, autoescape=True))
        wanted = wanted.limit(limit)
        with reading(self._engine) as connection:
            return tuple(
                SnapshotRow(rollout=row.rollout, gateway=row.gateway, digest=row.digest, at=row.at)
                for row in connection.execute(wanted)
            )

    def snapshot_named(self, fleet: str, name: str) -> SnapshotRow:
        """Return the fleet's snapshot of that digest or its beginning.

        Raises:
            Unknown: There is none, or the name fits several.
        """
        digest = name if name.startswith("sha256:") else f"sha256:{name}"
        found = {row.digest: row for row in self.kept_snapshots(fleet, beginning=digest)}
        if len(found) != 1:
            many = f"fits {len(found)} snapshots" if found else "is no snapshot that is kept"
            raise Unknown(f"{name} {many}", Offer(verb=Verb.SNAPSHOTS, fleet=fleet))
        return next(iter(found.values()))

    def expire_snapshots(self, before: datetime, person: str) -> tuple[Digest, ...]:
        """Take older snapshots off the list; return the digests that nothing on it names any more."""
        table = tables.snapshots
        with writing(self._engine) as connection:
            old = {row.digest for row in connection.execute(select(table).where(table.c.at < before))}
            if not old:
                return ()
            connection.execute(delete(table).where(table.c.at < before))
            kept = {row.digest for row in connection.execute(select(table.c.digest))}
            gone = tuple(sorted(old - kept))
            body = {"before": before.astimezone(UTC).isoformat(), "digests": gone}
            append(connection, person, Via.SYSTEM, "snapshots expired", f"{len(gone)} snapshots", body)
            return gone
