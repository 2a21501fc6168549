"""Rebuilding: what a fleet's gateways go back to, written down again after the ledger was lost."""

from collections.abc import Mapping

from sqlalchemy import select

from orchestrator.store import tables
from orchestrator.store.book import Book
from orchestrator.store.changes import begin, end
from orchestrator.store.database import writing
from orchestrator.store.known_good import MOST, record
from policies.model.change import ChangeEnding, ChangeKind, ChangeOpening, KnownGoodBatch, Outcome
from policies.model.errors import Conflict
from policies.model.offer import Offer, Verb
from policies.model.plan import ReleaseRef


class Rebuilding(Book):
    """The first line of a fleet whose earlier lines are gone."""

    def rebuild(
        self, fleet: str, serving: Mapping[str, ReleaseRef], above: int, person: str, reason: str
    ) -> str:
        """Write down that these gateways go back to what they serve; return the change that says so.

        Args:
            fleet: Whose gateways.
            serving: What each of them serves for good.
            above: The highest number of a change that they have heard of: its name is never used again.
            person: Who asked for it.
            reason: Why.

        Raises:
            Conflict: The ledger knows changes of this fleet.
        """
        versions = sorted({release.version for release in serving.values()})
        opening = ChangeOpening(
            key=f"rebuilt {fleet}",
            fleet=fleet,
            kind=ChangeKind.INSTALL,
            requested_by=person,
            reason=reason,
            release=", ".join(versions),
        )
        with writing(self._engine) as connection:
            known = select(tables.changes.c.name).where(tables.changes.c.fleet == fleet).limit(1)
            if connection.execute(known).first() is not None:
                history = Offer(verb=Verb.HISTORY, fleet=fleet)
                raise Conflict(f"the ledger knows changes of {fleet}; there is nothing to rebuild", history)
            name = begin(connection, opening, above=above)
            rows = sorted(serving.items())
            for first in range(0, len(rows), MOST):
                releases = dict(rows[first : first + MOST])
                record(connection, KnownGoodBatch(fleet=fleet, change=name, releases=releases))
            sentence = f"rebuilt from what {len(serving)} gateways serve: {', '.join(versions)}"
            end(connection, ChangeEnding(change=name, outcome=Outcome.PROMOTED, sentence=sentence))
        return name
