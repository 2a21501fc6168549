"""Rollouts: changes as they are told by the workflows that do not open them by key yet.

Each becomes a change in the history; names come from the caller and may have been used before.
"""

from datetime import datetime

from sqlalchemy import Connection, select

from orchestrator.store import tables
from orchestrator.store.book import PENSTOCK
from orchestrator.store.changes import Changes, begin, end
from orchestrator.store.database import writing
from orchestrator.store.known_good import KnownGood, record
from policies.words.change import ChangeEnding, ChangeKind, ChangeOpening, ChangeRecord, KnownGoodBatch
from policies.words.errors import Conflict
from policies.words.plan import ReleaseRef
from policies.words.change import ChangeOrder, ChangeResult, Outcome
from policies.words.word import Digest, Name, Word


class RolloutRow(Word):
    """One rollout in the history of its fleet; `outcome` is None while it is under way."""

    rollout: Name
    fleet: Name
    plan: Digest
    version: str
    requested_by: str
    started: datetime
    ended: datetime | None
    outcome: Outcome | None
    reason: str
    """Why it ended so, or while it is under way why it was asked for."""


class Rollouts(Changes, KnownGood):
    """Upgrades, ways back and installs by the names that their callers give them."""

    def open_rollout(self, order: ChangeOrder) -> None:
        """Write down that the rollout began.

        Raises:
            Conflict: Another change has this name.
        """
        opening = ChangeOpening(
            key=f"rollout {order.rollout}",
            fleet=order.plan.fleet.name,
            kind=ChangeKind.UPGRADE,
            requested_by=order.requested_by,
            reason=order.reason,
            release=order.plan.release.version,
            release_digest=order.plan.release.digest,
            plan=order.plan.digest,
        )
        with writing(self._engine) as connection:
            table = tables.changes
            known = connection.execute(select(table).where(table.c.name == order.rollout)).one_or_none()
            if known is None:
                begin(connection, opening, order.rollout)
            elif any(getattr(known, field) != value for field, value in opening.model_dump().items()):
                raise Conflict(f"{order.rollout} is the name of another rollout")

    def close_rollout(self, result: ChangeResult) -> None:
        """Write down how the rollout ended; a later, different end replaces an earlier one."""
        ending = ChangeEnding(change=result.rollout, outcome=result.outcome, sentence=result.reason)
        with writing(self._engine) as connection:
            end(connection, ending)

    def rollouts(self, fleet: str) -> tuple[RolloutRow, ...]:
        """Return the fleet's upgrades, the newest first."""
        return tuple(_rollout(row) for row in self.history(fleet) if row.plan is not None)

    def open_rollouts(self, fleet: str) -> tuple[str, ...]:
        """Return the names of the fleet's changes that have not ended, the oldest first."""
        return self.open_changes(fleet)

    def record_known_good(self, fleet: str, gateway: str, reference: ReleaseRef, rollout: str) -> None:
        """Write down what the gateway goes back to; a name that was used before becomes `NAME.2` and so on.

        A late repeat for an older change does not bring its release back.
        """
        with writing(self._engine) as connection:
            name = _occurrence(connection, gateway, reference, rollout)
            changes = tables.changes
            if not connection.execute(select(changes.c.name).where(changes.c.name == name)).first():
                kind, outcome = _kind_of(fleet, rollout)
                opening = ChangeOpening(
                    key=f"rollout {name}",
                    fleet=fleet,
                    kind=kind,
                    requested_by=PENSTOCK,
                    reason="told by its known-good",
                    release=reference.version,
                    release_digest=reference.digest,
                )
                begin(connection, opening, name)
                end(connection, ChangeEnding(change=name, outcome=outcome, sentence="known-good recorded"))
            record(connection, KnownGoodBatch(fleet=fleet, change=name, releases={gateway: reference}))


def _occurrence(connection: Connection, gateway: str, reference: ReleaseRef, rollout: str) -> str:
    """Return the name of the change that tells this: a way back under a used name is another one."""
    changes, table, said = tables.changes, tables.known_good, reference.model_dump_json()
    newest = select(changes.c.number).join(table, table.c.change == changes.c.name)
    name, nth = rollout, 1
    while True:
        change = connection.execute(select(changes).where(changes.c.name == name)).one_or_none()
        if change is None or change.outcome is None:
            return name
        owned = select(table).where(table.c.change == name, table.c.gateway == gateway)
        own = connection.execute(owned).one_or_none()
        if own is not None and own.release == said and (own.newest or change.kind != ChangeKind.GO_BACK):
            return name
        of_gateway = newest.where(table.c.fleet == change.fleet, table.c.gateway == gateway, table.c.newest)
        now = connection.execute(of_gateway).scalar_one_or_none()
        if own is None and (now is None or now <= change.number):
            return name
        nth += 1
        name = f"{rollout}.{nth}"


def _kind_of(fleet: str, name: str) -> tuple[ChangeKind, Outcome]:
    """Return what a change must be that nobody opened, by the names that workflows use."""
    if name == f"{fleet}-install":
        return ChangeKind.INSTALL, Outcome.PROMOTED
    if name.startswith(f"{fleet}-back-") or name in (f"{fleet}-bake", f"{fleet}-reconcile"):
        return ChangeKind.GO_BACK, Outcome.ROLLED_BACK
    return ChangeKind.UPGRADE, Outcome.PROMOTED


def _rollout(row: ChangeRecord) -> RolloutRow:
    return RolloutRow(
        rollout=row.name,
        fleet=row.fleet,
        plan=row.plan,
        version=row.release,
        requested_by=row.requested_by,
        started=row.began,
        ended=row.ended,
        outcome=row.outcome,
        reason=row.sentence or row.reason,
    )
