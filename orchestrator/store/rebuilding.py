"""Rebuilding: what a fleet's gateways go back to, written down again after the ledger was lost.

What an older copy of it says they go back to is no more than a record then.
"""

from collections.abc import Collection, Mapping

from sqlalchemy import select

from orchestrator.store import tables
from orchestrator.store.book import Book
from orchestrator.store.changes import begin, end, newest_number
from orchestrator.store.database import reading, writing
from orchestrator.store.known_good import MOST, forget, record
from policies.model.change import ChangeEnding, ChangeKind, ChangeOpening, KnownGoodBatch, Outcome
from policies.model.errors import Conflict, Refused
from policies.model.offer import Offer, Verb
from policies.model.plan import ReleaseRef
from policies.rebuilding import knows_all, number_above


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
        return name
