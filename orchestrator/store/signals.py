"""Signals from people in the ledger: what was said about a fleet within the time of a change."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import case, func, select

from orchestrator.store import tables
from orchestrator.store.book import Book
from orchestrator.store.database import reading
from policies.judge.complaints import Complaint
from policies.model.change import GatewayResult
from policies.planning.cohorts import SET_ASIDE

MOST_COMPLAINTS = 5_000
"""Users and gateways that are looked through for one change; of more it is said that there are more."""

MOST_AT_ONCE = 500
"""Gateways that are asked for by name in one question."""


class SignalBook(Book):
    """Complaints by the time that they are about; counting for the judge goes by when they arrived."""

    def complaints_between(self, fleet: str, since: datetime, until: datetime) -> tuple[Complaint, ...]:
        """Return the first complaint of each user about each gateway then, the oldest first, so many."""
        table = tables.complaints
        first = func.min(table.c.at)
        wanted = (
            select(table.c.user, table.c.gateway, first.label("first"))
            .where(table.c.fleet == fleet, table.c.at >= since, table.c.at <= until)
            .where(table.c.arrived >= since)
            .group_by(table.c.user, table.c.gateway)
            .order_by(first)
            .limit(MOST_COMPLAINTS)
        )
        with reading(self._engine) as connection:
            return tuple(
                Complaint(user=row.user, gateway=row.gateway, at=row.first.timestamp())
                for row in connection.execute(wanted)
            )

    def results_of(self, change: str, gateways: Collection[str]) -> dict[str, GatewayResult]:
        """Return how these gateways fare in a change, those that it has come to."""
        table = tables.gateway_results
        names = sorted(gateways)[:MOST_COMPLAINTS]
        found = dict[str, GatewayResult]()
        with reading(self._engine) as connection:
            for first in range(0, len(names), MOST_AT_ONCE):
                some = names[first : first + MOST_AT_ONCE]
                wanted = select(table).where(table.c.change == change, table.c.gateway.in_(some))
                for row in connection.execute(wanted):
                    told = {name: getattr(row, name) for name in GatewayResult.model_fields}
                    found[row.gateway] = GatewayResult(**told)
        return found

    def started_in(self, change: str) -> tuple[int, int]:
        """Return on how many gateways the change started something, and how many of those it set aside."""
        table = tables.gateway_results
        counted = select(
            func.count(), func.coalesce(func.sum(case((table.c.state == SET_ASIDE, 1), else_=0)), 0)
        ).where(table.c.change == change, table.c.started.is_not(None))
        with reading(self._engine) as connection:
            started, aside = connection.execute(counted).one()
        return int(started), int(aside)

    def next_began(self, fleet: str, number: int) -> datetime | None:
        """Return when the change after the one of that number began, None while it is the newest."""
        table = tables.changes
        later = select(table.c.began).where(table.c.fleet == fleet, table.c.number > number)
        with reading(self._engine) as connection:
            return connection.execute(later.order_by(table.c.number).limit(1)).scalar_one_or_none()
