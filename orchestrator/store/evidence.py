"""The list of snapshots: which failures' evidence is kept, and what of it has been kept long enough."""

from collections.abc import Mapping
from datetime import UTC, datetime

from sqlalchemy import delete, select, tuple_

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

    def expire_snapshots(
        self, before: datetime, person: str, *, of_fleets: Mapping[str, datetime] | None = None
    ) -> tuple[Digest, ...]:
        """Take older snapshots off the list; return the digests that nothing on it names any more.

        The evidence of a change that is still open stays, however old it is.

        Args:
            before: What is older goes.
            person: Who is told to have done it.
            of_fleets: For these fleets, another moment than `before`.
        """
        table, changes, moments = tables.snapshots, tables.changes, of_fleets or {}
        known = select(table, changes.c.fleet, changes.c.name, changes.c.outcome)
        known = known.outerjoin(changes, changes.c.name == table.c.rollout)
        known = known.where(table.c.at < max((before, *moments.values())))
        with writing(self._engine) as connection:
            old = [
                row
                for row in connection.execute(known)
                if row.at < moments.get(row.fleet, before) and (row.name is None or row.outcome is not None)
            ]
            if not old:
                return ()
            for row in old:
                key = (row.rollout, row.gateway, row.digest)
                connection.execute(
                    delete(table).where(tuple_(table.c.rollout, table.c.gateway, table.c.digest) == key)
                )
            kept = {row.digest for row in connection.execute(select(table.c.digest))}
            gone = tuple(sorted({row.digest for row in old} - kept))
            told = {fleet: at.astimezone(UTC).isoformat() for fleet, at in sorted(moments.items())}
            body = {"before": before.astimezone(UTC).isoformat(), "of_fleets": told, "digests": gone}
            append(connection, person, Via.SYSTEM, "snapshots expired", f"{len(gone)} snapshots", body)
            return gone

    def listed_digests(self) -> frozenset[Digest]:
        """Return the digest of every snapshot that is kept, of every fleet."""
        with reading(self._engine) as connection:
            return frozenset(row.digest for row in connection.execute(select(tables.snapshots.c.digest)))
