"""Gateway states: what every gateway said of itself when it was last asked, and who was silent."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from pydantic import ValidationError
from sqlalchemy import delete, func, insert, select

from orchestrator.store import tables
from orchestrator.store.book import Book
from orchestrator.store.database import reading, writing
from policies.model.instance import GatewayState, InstanceState

PAGE = 500
"""Gateways that are read at once."""

UNREADABLE = "what it said last cannot be read any more"


def read_state(written: str) -> GatewayState | None:
    """Return a state that was written down, None when an earlier version took what does not fit any more."""
    try:
        return GatewayState.model_validate_json(written)
    except ValidationError:
        return None


class GatewayStates(Book):
    """The newest facts of each gateway; a plan is made of them, and reconcile compares them."""

    def record_states(self, fleet: str, states: Sequence[GatewayState], silent: Mapping[str, str]) -> None:
        """Write down what these gateways said, and why others said nothing."""
        table, now = tables.gateway_states, datetime.now(UTC)
        rows = [
            {
                "gateway": state.gateway,
                "state": state.model_dump_json(),
                "takes": _takes(state),
                "silent": None,
            }
            for state in states
        ] + [{"gateway": name, "state": None, "takes": None, "silent": why} for name, why in silent.items()]
        if not rows:
            return
        names = [row["gateway"] for row in rows]
        with writing(self._engine) as connection:
            connection.execute(delete(table).where(table.c.fleet == fleet, table.c.gateway.in_(names)))
            connection.execute(insert(table).values(fleet=fleet, at=now), rows)

    def taking(self, fleet: str, within: timedelta) -> tuple[dict[str, int], dict[str, str]]:
        """Return how many gateways take users on each release, and who was silent, of those looked at lately.

        A release that nobody knows is empty.
        """
        table, oldest = tables.gateway_states, datetime.now(UTC) - within
        lately = (table.c.fleet == fleet, table.c.at >= oldest)
        counted = select(table.c.takes, func.count()).where(*lately, table.c.takes.is_not(None))
        said_nothing = select(table.c.gateway, table.c.silent).where(*lately, table.c.silent.is_not(None))
        with reading(self._engine) as connection:
            releases = {row[0]: int(row[1]) for row in connection.execute(counted.group_by(table.c.takes))}
            silent = {row.gateway: row.silent for row in connection.execute(said_nothing)}
        return releases, silent

    def states(self, fleet: str, within: timedelta) -> tuple[dict[str, GatewayState], dict[str, str]]:
        """Return what gateways said within that time, and who was silent; nobody else is known."""
        states: dict[str, GatewayState] = {}
        silent: dict[str, str] = {}
        for name, said in self.each_state(fleet, within):
            if isinstance(said, str):
                silent[name] = said
            else:
                states[name] = said
        return states, silent

    def each_state(self, fleet: str, within: timedelta) -> Iterator[tuple[str, GatewayState | str]]:
        """Yield what each gateway said within that time, or why it was silent, a page at a time."""
        table, oldest, last = tables.gateway_states, datetime.now(UTC) - within, ""
        wanted = select(table).where(table.c.fleet == fleet, table.c.at >= oldest)
        while True:
            with reading(self._engine) as connection:
                page = wanted.where(table.c.gateway > last).order_by(table.c.gateway).limit(PAGE)
                rows = connection.execute(page).all()
            for row in rows:
                said = row.silent if row.state is None else read_state(row.state) or UNREADABLE
                yield row.gateway, said
            if len(rows) < PAGE:
                return
            last = rows[-1].gateway


def _takes(state: GatewayState) -> str | None:
    serving = state.serving
    if serving is None or serving.state is not InstanceState.RUNNING:
        return None
    return serving.release or ""
