"""Gateway results: how each gateway fares in a change, as rows, so that no workflow has to carry them."""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, bindparam, func, insert, or_, select, update

from orchestrator.store import tables
from orchestrator.store.book import Book
from orchestrator.store.changes import lock_passed_on, may_have_moved, row_of
from orchestrator.store.database import reading, writing
from orchestrator.store.known_good import MOST
from orchestrator.store.states import reported_back
from policies.model.change import GatewayResult
from policies.model.errors import BadInput
from policies.model.plan import ReleaseRef
from policies.model.value import Digest
from policies.planning.cohorts import KEPT, LEFT_OUT
from policies.status.told import Told


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

    def touched_by_open_changes(self, fleet: str) -> frozenset[str]:
        """Return the gateways whose sessions changes without an end may have moved.

        A way back that only waits for gateways has moved the others back, and looks after them no more. A
        change whose workflow is gone looks after no gateway that has reported since that it is back.
        """
        changes, stories = tables.changes, tables.stories
        is_open = (
            select(changes, stories.c.told)
            .outerjoin(stories, stories.c.change == changes.c.name)
            .where(changes.c.fleet == fleet, changes.c.outcome.is_(None))
        )
        with reading(self._engine) as connection:
            moving = [
                row
                for row in connection.execute(is_open).all()
                if row.told is None or not Told.model_validate_json(row.told).only_waits
            ]
            return frozenset[str]().union(*(_touched(connection, row) for row in moving))

    def touched_by(self, change: str) -> frozenset[str]:
        """Return the gateways that the change has begun to upgrade, without those that operators left out."""
        table = tables.gateway_results
        touched = select(table.c.gateway).where(table.c.change == change, table.c.state != LEFT_OUT)
        with reading(self._engine) as connection:
            return frozenset(connection.execute(touched).scalars())

    def kept_by_open_changes(self, fleet: str, gateways: Collection[str]) -> dict[str, str]:
        """Return which of these gateways run the release of a change without an end, and of which one.

        Their waves have passed.
        """
        results, changes = tables.gateway_results, tables.changes
        kept = (
            select(results.c.gateway, results.c.change)
            .join(changes, changes.c.name == results.c.change)
            .where(changes.c.fleet == fleet, changes.c.outcome.is_(None))
            .where(results.c.state == KEPT, results.c.gateway.in_(gateways))
        )
        with reading(self._engine) as connection:
            return {row.gateway: row.change for row in connection.execute(kept)}

    def has_moved(self, change: str, gateway: str, to: Digest) -> bool:
        """Return whether the gateway's sessions may have been moved by the change, or by what it takes back.

        What it takes back is the change that it follows, and what other rollbacks of that one have moved.
        Known-good that is not `to` has sessions moved, too, whichever change promoted it.
        """
        results, known_good = tables.gateway_results, tables.known_good
        with reading(self._engine) as connection:
            row = row_of(connection, change)
            taken_back = _and_what_it_takes_back(row)
            started = select(results.c.gateway).where(
                results.c.change.in_(taken_back), results.c.gateway == gateway, may_have_moved()
            )
            moved = select(known_good.c.gateway).where(
                known_good.c.change.in_(taken_back),
                known_good.c.gateway == gateway,
                known_good.c.before != known_good.c.release,
            )
            newest = select(known_good.c.release).where(
                known_good.c.fleet == row.fleet, known_good.c.gateway == gateway, known_good.c.newest
            )
            if any(connection.execute(one).first() is not None for one in (started, moved)):
                return True
            release = connection.execute(newest).scalar()
            return release is not None and ReleaseRef.model_validate_json(release).digest != to

    def counts_of(self, change: str) -> dict[str, int]:
        """Return how many gateways of the change are in each state."""
        table = tables.gateway_results
        with reading(self._engine) as connection:
            counted = select(table.c.state, func.count()).where(table.c.change == change)
            rows = connection.execute(counted.group_by(table.c.state).order_by(table.c.state))
            return {state: int(count) for state, count in rows}


def _touched(connection: Connection, change: "Row[Any]") -> frozenset[str]:
    """Return the gateways that a change without an end may have moved, and has not left on known-good."""
    results, known = tables.gateway_results, tables.known_good
    wanted = select(results.c.gateway).where(results.c.change == change.name, may_have_moved())
    since = lock_passed_on(connection, change)
    if since is not None:
        promoted = select(known.c.gateway).where(
            known.c.fleet == change.fleet, known.c.newest, known.c.change == change.name, ~known.c.back
        )
        left_back = results.c.gateway.in_(reported_back(change.fleet, since))
        wanted = wanted.where(~left_back | results.c.gateway.in_(promoted))
    return frozenset(connection.execute(wanted).scalars())


def _and_what_it_takes_back(change: "Row[Any]") -> "Select[Any]":
    """Return the question for the change, the one that it follows, and all that follow that one."""
    table = tables.changes
    names = select(table.c.name).where(table.c.fleet == change.fleet)
    if change.cause is None:
        return names.where(table.c.name == change.name)
    return names.where(or_(table.c.name.in_((change.name, change.cause)), table.c.cause == change.cause))
