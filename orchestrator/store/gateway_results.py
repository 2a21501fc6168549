"""Gateway results: how each gateway fares in a change, as rows, so that no workflow has to carry them."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import and_, bindparam, func, insert, select, update

from orchestrator.store import tables
from orchestrator.store.book import Book
from orchestrator.store.changes import row_of
from orchestrator.store.database import reading, writing
from orchestrator.store.known_good import MOST
from policies.model.change import GatewayResult
from policies.model.errors import BadInput


class GatewayResults(Book):
    """The progress and the exceptions of changes."""

    def record_gateways(self, change: str, results: Sequence[GatewayResult]) -> None:
        """Write down how these gateways fare; of two rows for one gateway the later one counts.

        Raises:
            BadInput: There is no such change, or there are more than 500 rows.
        """
        if len(results) > MOST:
            raise BadInput(f"{len(results)} gateways at once; write at most {MOST}")
        newest = dict[str, GatewayResult]()
        for result in sorted(results, key=lambda one: one.at):
            newest[result.gateway] = result
        table = tables.gateway_results
        with writing(self._engine) as connection:
            row_of(connection, change)
            known = select(table.c.gateway, table.c.at).where(
                table.c.change == change, table.c.gateway.in_(newest)
            )
            times = {row.gateway: row.at for row in connection.execute(known)}
            fresh = [one.model_dump() for name, one in newest.items() if name not in times]
            later = [one for name, one in newest.items() if name in times and one.at >= times[name]]
            if fresh:
                connection.execute(insert(table).values(change=change), fresh)
            if later:
                which = and_(table.c.change == change, table.c.gateway == bindparam("named"))
                told = sorted(GatewayResult.model_fields.keys() - {"gateway"})
                values: dict[str, Any] = {name: bindparam(f"new_{name}") for name in told}
                rows = [
                    {"named": one.gateway} | {f"new_{name}": getattr(one, name) for name in told}
                    for one in later
                ]
                connection.execute(update(table).where(which).values(values), rows)

    def gateways_of(
        self, change: str, state: str | None = None, *, after: str = "", limit: int = MOST
    ) -> tuple[GatewayResult, ...]:
        """Return how gateways fare, all or those in one state, by name from the one after `after` on."""
        table = tables.gateway_results
        wanted = select(table).where(table.c.change == change, table.c.gateway > after)
        if state is not None:
            wanted = wanted.where(table.c.state == state)
        with reading(self._engine) as connection:
            rows = connection.execute(wanted.order_by(table.c.gateway).limit(limit))
            return tuple(
                GatewayResult(**{name: getattr(row, name) for name in GatewayResult.model_fields})
                for row in rows
            )

    def has_moved(self, change: str, gateway: str) -> bool:
        """Return whether the change has given the gateway's new sessions to another instance."""
        table = tables.gateway_results
        wanted = select(table.c.gateway).where(
            table.c.change == change, table.c.gateway == gateway, table.c.started.is_not(None)
        )
        with reading(self._engine) as connection:
            return connection.execute(wanted).first() is not None

    def counts_of(self, change: str) -> dict[str, int]:
        """Return how many gateways of the change are in each state."""
        table = tables.gateway_results
        with reading(self._engine) as connection:
            counted = select(table.c.state, func.count()).where(table.c.change == change)
            rows = connection.execute(counted.group_by(table.c.state).order_by(table.c.state))
            return {state: int(count) for state, count in rows}
