"""Gateway states: what every gateway said of itself when it was last asked, and who was silent."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, NamedTuple

from pydantic import ValidationError
from sqlalchemy import Connection, Row, Select, case, delete, exists, func, insert, select

from orchestrator.store import tables
from orchestrator.store.book import Book
from orchestrator.store.database import reading, writing
from policies.credentials import elsewhere_of
from policies.drift import astray, digest_of_file
from policies.model.instance import GatewayState, InstanceState
from policies.model.plan import ReleaseRef
from policies.model.value import Digest, Value
from policies.rebuilding import steered_by
from policies.rollback import Takes

PAGE = 500
"""Gateways that are read at once."""

LATE = timedelta(minutes=1)
"""How much later than the last answer one is asked for that a gateway gives before a change had it."""

NOW: Mapping[str, datetime] = MappingProxyType({})

_SILENT = {"state": None, "takes": None, "described": None, "elsewhere": None, "steered_by": None}

UNREADABLE = "what it said last cannot be read any more"


def read_state(written: str) -> GatewayState | None:
    """Return a state that was written down, None when an earlier version took what does not fit any more."""
    try:
        return GatewayState.model_validate_json(written)
    except ValidationError:
        return None


class GatewayRow(Value):
    """What a gateway said of itself when it was last looked at, or why it was silent."""

    gateway: str
    state: GatewayState | None = None
    silent: str | None = None
    at: datetime | None = None
    """When it was asked; None for one that never was."""


class AgentsFile(NamedTuple):
    """What a gateway told of its agent's file."""

    described: Digest | None
    """Of how the file describes the gateway; None where an older agent does not tell."""
    elsewhere: tuple[str, ...] | None
    """Which of the credentials that it names a vault has; None where an older agent does not tell."""


class GatewayStates(Book):
    """The newest facts of each gateway; a plan is made of them, and reconcile compares them."""

    def gateway_rows(self, fleet: str, gateways: Sequence[str]) -> tuple[GatewayRow, ...]:
        """Return what these gateways said last, in this order."""
        table = tables.gateway_states
        wanted = select(table).where(table.c.fleet == fleet, table.c.gateway.in_(gateways))
        with reading(self._engine) as connection:
            known = {row.gateway: row for row in connection.execute(wanted)}
        return tuple(_read_row(name, known.get(name)) for name in gateways)

    def record_states(
        self,
        fleet: str,
        states: Sequence[GatewayState],
        silent: Mapping[str, str],
        asked: Mapping[str, datetime] = NOW,
    ) -> None:
        """Write down what these gateways said, and why others said nothing.

        An answer of an earlier epoch than that of the minute before is older, whenever it arrives. So is what
        was asked earlier, unless it has a later epoch; and silence of then does not hide a later answer.

        Args:
            fleet: Whose gateways.
            states: What those say that answer.
            silent: Why the others do not.
            asked: When each of them was asked, before which it said nothing; those that are not named, now.
        """
        table, now = tables.gateway_states, datetime.now(UTC)
        said = {state.gateway: state for state in states}
        at = {name: asked.get(name, now) for name in (*said, *silent)}
        older = self._older(fleet, said, at)
        rows: list[dict[str, Any]] = [
            {
                "gateway": state.gateway,
                "state": state.model_dump_json(),
                "takes": _takes(state),
                "steered_by": steered_by(fleet, state),
                "silent": None,
                "at": at[state.gateway],
                **_of_file(state),
            }
            for state in states
            if state.gateway not in older
        ] + [
            _SILENT | {"gateway": name, "silent": why, "at": at[name]}
            for name, why in silent.items()
            if name not in older
        ]
        if not rows:
            return
        names = [row["gateway"] for row in rows]
        with writing(self._engine) as connection:
            seen = _seen_on_known_good(connection, fleet, names, now)
            seen |= {name: at[name] for name in _on_known_good(connection, fleet, said, names)}
            rows = [row | {"on_known_good": seen.get(row["gateway"])} for row in rows]
            connection.execute(delete(table).where(table.c.fleet == fleet, table.c.gateway.in_(names)))
            connection.execute(insert(table).values(fleet=fleet), rows)

    def _older(
        self, fleet: str, said: Mapping[str, GatewayState], asked: Mapping[str, datetime]
    ) -> frozenset[str]:
        """Return the gateways of which a newer answer is written down; a clock may have been set back."""
        table = tables.gateway_states
        wanted = select(table.c.gateway, table.c.state, table.c.at).where(
            table.c.fleet == fleet,
            table.c.gateway.in_(sorted(asked)),
            table.c.at >= min(asked.values(), default=datetime.now(UTC)) - LATE,
            table.c.state.is_not(None),
        )
        with reading(self._engine) as connection:
            written = connection.execute(wanted).all()
        found = set[str]()
        for gateway, state, at in written:
            known, mine = read_state(state), asked[gateway]
            if known is None or at < mine - LATE:
                continue
            epoch = said[gateway].epoch if gateway in said else known.epoch
            if epoch < known.epoch or (epoch == known.epoch and mine < at <= mine + LATE):
                found.add(gateway)
        return frozenset(found)

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

    def back_since(self, fleet: str, since: datetime) -> frozenset[str]:
        """Return the gateways that reported their known-good after that time, whatever they reported later.

        A report from before the last move of known-good, or from later than now, is no evidence.
        """
        with reading(self._engine) as connection:
            return frozenset(connection.execute(reported_back(fleet, since)).scalars())

    def takes(self, fleet: str) -> dict[str, Takes]:
        """Return which release takes new sessions on each gateway by what it said last."""
        table = tables.gateway_states
        wanted = select(table.c.gateway, table.c.takes, table.c.at).where(table.c.fleet == fleet)
        with reading(self._engine) as connection:
            return {row.gateway: Takes(row.takes, row.at) for row in connection.execute(wanted)}

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

    def silent(self, fleet: str, within: timedelta) -> dict[str, str]:
        """Return which gateways were silent when they were asked last, within that time, and why."""
        table, oldest = tables.gateway_states, datetime.now(UTC) - within
        wanted = select(table.c.gateway, table.c.silent).where(
            table.c.fleet == fleet, table.c.at >= oldest, table.c.silent.is_not(None)
        )
        with reading(self._engine) as connection:
            return {row.gateway: row.silent for row in connection.execute(wanted)}

    def heard_of(self, fleet: str, within: timedelta) -> frozenset[str]:
        """Return the gateways that said something within that time, whatever it was."""
        return frozenset(self.said_at(fleet, within))

    def asked_at(self, fleet: str) -> dict[str, datetime]:
        """Return when each gateway was asked for the last time, whatever it said."""
        table = tables.gateway_states
        wanted = select(table.c.gateway, table.c.at).where(table.c.fleet == fleet)
        with reading(self._engine) as connection:
            return {row.gateway: row.at for row in connection.execute(wanted)}

    def said_at(self, fleet: str, within: timedelta) -> dict[str, datetime]:
        """Return when each gateway was asked that answered last, of those asked within that time."""
        table, oldest = tables.gateway_states, datetime.now(UTC) - within
        said = (table.c.fleet == fleet, table.c.at >= oldest, table.c.state.is_not(None))
        with reading(self._engine) as connection:
            return {
                row[0]: row[1] for row in connection.execute(select(table.c.gateway, table.c.at).where(*said))
            }

    def states_of(self, fleet: str, gateways: Sequence[str]) -> dict[str, GatewayState]:
        """Return what these gateways said last, of those that were not silent and of which it can be read."""
        table, found = tables.gateway_states, dict[str, GatewayState]()
        wanted = select(table.c.gateway, table.c.state).where(
            table.c.fleet == fleet, table.c.state.is_not(None)
        )
        for first in range(0, len(gateways), PAGE):
            page = wanted.where(table.c.gateway.in_(gateways[first : first + PAGE]))
            with reading(self._engine) as connection:
                rows = connection.execute(page).all()
            read = {row.gateway: read_state(row.state) for row in rows}
            found |= {gateway: state for gateway, state in read.items() if state is not None}
        return found

    def agents_files(self, fleet: str, within: timedelta) -> dict[str, AgentsFile]:
        """Return what the agents' files of gateways that answered within that time say."""
        table, oldest = tables.gateway_states, datetime.now(UTC) - within
        older = case((table.c.described.is_(None), table.c.state), else_=None).label("state")
        wanted = select(table.c.gateway, table.c.described, table.c.elsewhere, older).where(
            table.c.fleet == fleet, table.c.at >= oldest, table.c.state.is_not(None)
        )
        with reading(self._engine) as connection:
            rows = connection.execute(wanted).all()
        read = ((gateway, _agents_file(*said)) for gateway, *said in rows)
        return {gateway: told for gateway, told in read if told is not None}

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


def reported_back(fleet: str, since: datetime) -> "Select[Any]":
    """Return the question for the gateways that reported their known-good after that time."""
    states, known = tables.gateway_states, tables.known_good
    at = states.c.on_known_good
    # A change that brought a gateway to the known-good that it had already has moved nothing.
    moved = exists().where(
        known.c.fleet == states.c.fleet,
        known.c.gateway == states.c.gateway,
        known.c.since >= at,
        known.c.before.is_(None) | (known.c.before != known.c.release),
    )
    return select(states.c.gateway).where(
        states.c.fleet == fleet, at > since, at <= datetime.now(UTC), ~moved
    )


def _seen_on_known_good(
    connection: Connection, fleet: str, names: Collection[str], now: datetime
) -> dict[str, datetime]:
    """Return when these gateways reported their known-good last, without times of a clock that was ahead."""
    table = tables.gateway_states
    wanted = select(table.c.gateway, table.c.on_known_good).where(
        table.c.fleet == fleet, table.c.gateway.in_(names), table.c.on_known_good <= now
    )
    return {row.gateway: row.on_known_good for row in connection.execute(wanted)}


def _on_known_good(
    connection: Connection, fleet: str, said: Mapping[str, GatewayState], names: Collection[str]
) -> list[str]:
    """Return which of these gateways report their known-good now."""
    table, releases = tables.known_good, dict[str, ReleaseRef]()
    wanted = select(table.c.gateway, table.c.release).where(
        table.c.fleet == fleet, table.c.gateway.in_([name for name in names if name in said]), table.c.newest
    )
    found = list[str]()
    for gateway, release in connection.execute(wanted):
        if release not in releases:
            releases[release] = ReleaseRef.model_validate_json(release)
        if astray(said[gateway], releases[release]) is None:
            found.append(gateway)
    return found


def _agents_file(described: str | None, elsewhere: str | None, state: str | None) -> AgentsFile | None:
    """Return what a row says of an agent's file; None where what an older penstock wrote cannot be read."""
    if described is not None:
        return AgentsFile(described or None, tuple(json.loads(elsewhere)) if elsewhere is not None else None)
    found = read_state(state) if state is not None else None
    return _agents_file_of(found) if found is not None else None


def _agents_file_of(state: GatewayState) -> AgentsFile:
    return AgentsFile(digest_of_file(state.described), elsewhere_of(state.credentials))


def _read_row(gateway: str, row: "Row[Any] | None") -> GatewayRow:
    if row is None:
        return GatewayRow(gateway=gateway)
    state = read_state(row.state) if row.state is not None else None
    silent = UNREADABLE if row.state is not None and state is None else row.silent
    return GatewayRow(gateway=gateway, state=state, silent=silent, at=row.at)


def _of_file(state: GatewayState) -> dict[str, str | None]:
    file = _agents_file_of(state)
    elsewhere = json.dumps(file.elsewhere) if file.elsewhere is not None else None
    return {"described": file.described or "", "elsewhere": elsewhere}


def _takes(state: GatewayState) -> str | None:
    serving = state.serving
    if serving is None or serving.state is not InstanceState.RUNNING:
        return None
    return serving.release or ""
