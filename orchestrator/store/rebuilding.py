"""Rebuilding: what a fleet's gateways go back to, written down again after the ledger was lost.

What an older copy of it says they go back to is no more than a record then.
"""

import json
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, select

from orchestrator.store import tables
from orchestrator.store.book import Book
from orchestrator.store.changes import begin, end, newest_number
from orchestrator.store.database import reading, writing
from orchestrator.store.known_good import MOST, forget, record
from orchestrator.store.record import append
from policies.model.change import ChangeEnding, ChangeKind, ChangeOpening, KnownGoodBatch, Outcome
from policies.model.errors import Conflict, Refused
from policies.model.offer import Offer, Verb
from policies.model.people import Via
from policies.model.plan import ReleaseRef
from policies.rebuilding import UnconfirmedLedger, knows_all, number_above

RESTORED: Final = "ledger restored"
REBUILT: Final = "ledger rebuilt"
CONFIRMED: Final = "ledger confirmed"
"""Entries of a fleet in the audit log; the newest of these three decides whether machines start anything."""


def nothing_to_rebuild(fleet: str) -> Conflict:
    """Return the refusal where nothing is lost."""
    history = Offer(verb=Verb.HISTORY, fleet=fleet)
    sentence = f"the ledger knows every change that gateways of {fleet} have heard of"
    return Conflict(f"{sentence}; there is nothing to rebuild", history)


def not_believed(fleet: str, unknown: Mapping[str, str]) -> Refused:
    """Return the refusal where a gateway speaks of a change that no ledger can have lost."""
    name, why = min(unknown.items())
    leave_out = Offer(verb=Verb.QUARANTINE, fleet=fleet, gateway=name)
    return Refused(f"{name} {why}; check who controls its host", leave_out)


def _key(fleet: str, heard: int | str) -> str:
    return f"rebuilt {fleet} after {heard}"


class Rebuilding(Book):
    """The first line of a fleet whose earlier lines are gone, or whose later ones are."""

    def rebuilds(self, fleet: str) -> frozenset[str]:
        """Return the changes of the fleet that are such lines."""
        table = tables.changes
        written = table.c.key.startswith(_key(fleet, ""), autoescape=True)
        wanted = select(table.c.name).where(table.c.fleet == fleet, written)
        with reading(self._engine) as connection:
            return frozenset(connection.execute(wanted).scalars())

    def rebuild(
        self,
        fleet: str,
        serving: Mapping[str, ReleaseRef],
        heard: int,
        person: str,
        reason: str,
        *,
        only: Collection[str] | None = None,
    ) -> str:
        """Write down that these gateways go back to what they serve; return the change that says so.

        Args:
            fleet: Whose gateways.
            serving: What each of them serves for good.
            heard: The highest number of a change that they have heard of: its name is never used again.
            person: Who asked for it.
            reason: Why.
            only: Whose known-good of before is no more than a record then; None for everybody's.

        Raises:
            Conflict: The ledger knows this fleet, and every change that its gateways have heard of.
        """
        versions = sorted({release.version for release in serving.values()})
        opening = ChangeOpening(
            key=_key(fleet, heard),
            fleet=fleet,
            kind=ChangeKind.INSTALL,
            requested_by=person,
            reason=reason,
            release=", ".join(versions),
        )
        with writing(self._engine) as connection:
            if knows_all(newest_number(connection, fleet), heard):
                raise nothing_to_rebuild(fleet)
            forget(connection, fleet, only)
            name = begin(connection, opening, above=number_above(heard))
            rows = sorted(serving.items())
            for first in range(0, len(rows), MOST):
                releases = dict(rows[first : first + MOST])
                record(connection, KnownGoodBatch(fleet=fleet, change=name, releases=releases))
            sentence = f"rebuilt from what {len(serving)} gateways serve: {', '.join(versions)}"
            end(connection, ChangeEnding(change=name, outcome=Outcome.PROMOTED, sentence=sentence))
            append(connection, person, Via.SYSTEM, REBUILT, name, {"reason": reason}, fleet=fleet)
        return name

    def unconfirmed(self, fleet: str) -> UnconfirmedLedger | None:
        """Return how the ledger was restored or rebuilt for the fleet, None once an operator confirmed it."""
        with reading(self._engine) as connection:
            return _unconfirmed(connection, fleet)

    def confirmed(self, fleet: str) -> datetime | None:
        """Return when an operator confirmed the fleet's ledger, None unless it is confirmed."""
        with reading(self._engine) as connection:
            row = _newest(connection, fleet)
        return datetime.fromisoformat(row.at) if row is not None and row.action == CONFIRMED else None

    def confirm(self, fleet: str, person: str, reason: str) -> bool:
        """Write down that an operator has repeated what the ledger lost; return whether that is new."""
        with writing(self._engine) as connection:
            if _unconfirmed(connection, fleet) is None:
                return False
            return append(connection, person, Via.SYSTEM, CONFIRMED, fleet, {"reason": reason}, fleet=fleet)


def note_restored(connection: Connection, backup: datetime, person: str) -> None:
    """Append to the audit log of every fleet that its ledger was restored, in the caller's transaction."""
    body, changes = {"backup": backup.isoformat()}, tables.changes
    for fleet in connection.execute(select(changes.c.fleet).distinct().order_by(changes.c.fleet)).scalars():
        append(connection, person, Via.SYSTEM, RESTORED, fleet, body, fleet=fleet)


def _newest(connection: Connection, fleet: str) -> "Row[Any] | None":
    table = tables.audit
    wanted = select(table).where(table.c.fleet == fleet, table.c.action.in_((RESTORED, REBUILT, CONFIRMED)))
    return connection.execute(wanted.order_by(table.c.seq.desc()).limit(1)).first()


def _unconfirmed(connection: Connection, fleet: str) -> UnconfirmedLedger | None:
    row = _newest(connection, fleet)
    if row is None or row.action == CONFIRMED:
        return None
    at = datetime.fromisoformat(row.at)
    if row.action == REBUILT:
        return UnconfirmedLedger(at=at, change=row.subject)
    return UnconfirmedLedger(at=at, backup=datetime.fromisoformat(json.loads(row.body)["backup"]))
