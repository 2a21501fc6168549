"""Gateway states: what every gateway said of itself when it was last asked, and who was silent."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, insert, select

from orchestrator.store import tables
from orchestrator.store.book import Book
from orchestrator.store.database import reading, writing
from policies.model.instance import GatewayState


class GatewayStates(Book):
    """The newest facts of each gateway; a plan is made of them, and reconcile compares them."""

    def record_states(self, fleet: str, states: Sequence[GatewayState], silent: Mapping[str, str]) -> None:
        """Write down what these gateways said, and why others said nothing."""
        table, now = tables.gateway_states, datetime.now(UTC)
        rows = [
            {"gateway": state.gateway, "state": state.model_dump_json(), "silent": None} for state in states
        ] + [{"gateway": name, "state": None, "silent": why} for name, why in silent.items()]
        if not rows:
            return
        names = [row["gateway"] for row in rows]
        with writing(self._engine) as connection:
            connection.execute(delete(table).where(table.c.fleet == fleet, table.c.gateway.in_(names)))
            connection.execute(insert(table).values(fleet=fleet, at=now), rows)

    def states(self, fleet: str, within: timedelta) -> tuple[dict[str, GatewayState], dict[str, str]]:
        """Return what gateways said within that time, and who was silent; nobody else is known."""
        table, oldest = tables.gateway_states, datetime.now(UTC) - within
        states: dict[str, GatewayState] = {}
        silent: dict[str, str] = {}
        with reading(self._engine) as connection:
            wanted = select(table).where(table.c.fleet == fleet, table.c.at >= oldest)
            for row in connection.execute(wanted.order_by(table.c.gateway)):
                if row.state is None:
                    silent[row.gateway] = row.silent
                else:
                    states[row.gateway] = GatewayState.model_validate_json(row.state)
        return states, silent
