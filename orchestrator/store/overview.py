"""The whole installation at a glance, for its metrics: sums and ends by fleet, in few rows."""

from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import ColumnElement, and_, exists, func, or_, select

from orchestrator.store import tables
from orchestrator.store.book import Book
from orchestrator.store.database import reading
from policies.model.change import PENSTOCK
from policies.rebuilding import Ahead, what_is_ahead

MOST_OPEN = 500
"""Open changes that are looked at: a fleet has one at a time, beside single gateways that return."""


class OpenChange(NamedTuple):
    """A change without an end."""

    name: str
    fleet: str


class LookedAt(NamedTuple):
    """Which of a fleet's gateways were looked at, and which of those said nothing."""

    all: frozenset[str]
    silent: frozenset[str]


def _alike(within: Mapping[str, timedelta]) -> Iterator[tuple[timedelta, list[str]]]:
    """Yield each length of time with the fleets that have it: one question serves them all."""
    for time in sorted(set(within.values())):
        yield time, sorted(fleet for fleet, one in within.items() if one == time)


def _left_out_by_operators(now: datetime) -> ColumnElement[bool]:
    """Return whether an operator has quarantined the gateway of a row of `gateway_states`."""
    table, said = tables.quarantine, tables.gateway_states
    return exists().where(
        table.c.fleet == said.c.fleet,
        table.c.gateway == said.c.gateway,
        table.c.person != PENSTOCK,
        or_(table.c.until.is_(None), table.c.until > now),
    )


class Overview(Book):
    """What is under way in all fleets, and what was."""

    def taking_everywhere(self, within: Mapping[str, timedelta]) -> Mapping[str, Mapping[str, int]]:
        """Return how many gateways of these fleets take users on each release, of those looked at lately.

        A release that nobody knows is empty.
        """
        table, now = tables.gateway_states, datetime.now(UTC)
        found: dict[str, dict[str, int]] = {}
        with reading(self._engine) as connection:
            for time, fleets in _alike(within):
                wanted = select(table.c.fleet, table.c.takes, func.count()).where(
                    table.c.fleet.in_(fleets), table.c.at >= now - time, table.c.takes.is_not(None)
                )
                for fleet, takes, count in connection.execute(wanted.group_by(table.c.fleet, table.c.takes)):
                    found.setdefault(fleet, {})[takes] = int(count)
        return found

    def looked_at_everywhere(self, fleets: Collection[str]) -> Mapping[str, datetime]:
        """Return when any gateway of each of these fleets was looked at last, whatever it said."""
        table = tables.gateway_states
        wanted = select(table.c.fleet, func.max(table.c.at, type_=tables.Moment()).label("at"))
        wanted = wanted.where(table.c.fleet.in_(sorted(fleets))).group_by(table.c.fleet)
        with reading(self._engine) as connection:
            return {row.fleet: row.at for row in connection.execute(wanted)}

    def answered(self, within: Mapping[str, timedelta]) -> Mapping[str, Mapping[str, bool]]:
        """Return which gateways of these fleets have answered lately, and whether each takes users."""
        table, now = tables.gateway_states, datetime.now(UTC)
        found: dict[str, dict[str, bool]] = {}
        with reading(self._engine) as connection:
            for time, fleets in _alike(within):
                wanted = select(table.c.fleet, table.c.gateway, table.c.takes.is_not(None)).where(
                    table.c.fleet.in_(fleets), table.c.at >= now - time, table.c.state.is_not(None)
                )
                for fleet, gateway, takes in connection.execute(wanted):
                    found.setdefault(fleet, {})[gateway] = bool(takes)
        return found

    def ahead(self, within: Mapping[str, timedelta], gone: Collection[str] = ()) -> Mapping[str, Ahead]:
        """Return what is reported of the gateways of these fleets that know of changes which are lost.

        A gateway counts if it answered lately and no operator has quarantined it, or taken it out of the
        fleet's file as the `gone` ones.
        """
        table, changes, now = tables.gateway_states, tables.changes, datetime.now(UTC)
        found: dict[str, dict[str, int]] = {}
        answered: dict[str, int] = {}
        numbers: dict[str, int] = {}
        # In one statement: a change is written down before it steers a gateway.
        largest = select(func.max(changes.c.number)).where(changes.c.fleet == table.c.fleet)
        newest = func.coalesce(largest.scalar_subquery(), 0)
        with reading(self._engine) as connection:
            for time, fleets in _alike(within):
                lately = (
                    table.c.at >= now - time,
                    table.c.state.is_not(None),
                    table.c.gateway.not_in(sorted(gone)),
                    ~_left_out_by_operators(now),
                )
                wanted = select(table.c.fleet, table.c.gateway, table.c.steered_by, newest).where(
                    table.c.fleet.in_(fleets), table.c.steered_by > newest, *lately
                )
                for fleet, gateway, number, known in connection.execute(wanted):
                    found.setdefault(fleet, {})[gateway] = int(number)
                    numbers[fleet] = int(known)
                counted = select(table.c.fleet, func.count()).where(
                    table.c.fleet.in_(sorted(found.keys() & {*fleets})), *lately
                )
                for fleet, count in connection.execute(counted.group_by(table.c.fleet)):
                    answered[fleet] = int(count)
        said = {
            fleet: what_is_ahead(fleet, later, numbers[fleet], answered[fleet])
            for fleet, later in found.items()
        }
        return {fleet: one for fleet, one in said.items() if one is not None}

    def every_open_change(self) -> tuple[OpenChange, ...]:
        """Return the changes of all fleets that have no end yet."""
        table = tables.changes
        wanted = select(table.c.name, table.c.fleet).where(table.c.outcome.is_(None)).limit(MOST_OPEN)
        with reading(self._engine) as connection:
            return tuple(OpenChange(row.name, row.fleet) for row in connection.execute(wanted))

    def ended_changes(self) -> Mapping[tuple[str, str], int]:
        """Return how many changes ended so far, by fleet and outcome."""
        table = tables.changes
        wanted = select(table.c.fleet, table.c.outcome, func.count()).where(table.c.outcome.is_not(None))
        with reading(self._engine) as connection:
            rows = connection.execute(wanted.group_by(table.c.fleet, table.c.outcome))
            return {(fleet, outcome): int(count) for fleet, outcome, count in rows}

    def gateways_looked_at(self, within: Mapping[str, timedelta]) -> Mapping[str, LookedAt]:
        """Return which gateways of these fleets were looked at within the time given for each."""
        table, now = tables.gateway_states, datetime.now(UTC)
        oldest = {fleet: now - time for fleet, time in within.items()}
        wanted = select(table.c.fleet, table.c.gateway, table.c.silent.is_not(None), table.c.at).where(
            table.c.at >= min(oldest.values(), default=now)
        )
        found: dict[str, tuple[set[str], set[str]]] = {}
        with reading(self._engine) as connection:
            for fleet, gateway, silent, at in connection.execute(wanted):
                if at < oldest.get(fleet, now):
                    continue
                everybody, quiet = found.setdefault(fleet, (set(), set()))
                everybody.add(gateway)
                if silent:
                    quiet.add(gateway)
        return {fleet: LookedAt(frozenset(one), frozenset(two)) for fleet, (one, two) in found.items()}

    def certificate_lives(self) -> Mapping[tuple[str, str], tuple[datetime, datetime]]:
        """Return from when until when the newest certificate of each gateway is good."""
        table = tables.gateway_certificates
        whose = (table.c.fleet, table.c.gateway)
        newest = select(*whose, func.max(table.c.issued_at).label("issued")).group_by(*whose).subquery()
        is_newest = and_(
            table.c.fleet == newest.c.fleet,
            table.c.gateway == newest.c.gateway,
            table.c.issued_at == newest.c.issued,
        )
        wanted = select(*whose, table.c.issued_at, table.c.expires).join(newest, is_newest)
        with reading(self._engine) as connection:
            rows = connection.execute(wanted)
            return {(fleet, gateway): (begin, end) for fleet, gateway, begin, end in rows}

    def quarantined_gateways(self) -> Mapping[str, int]:
        """Return how many gateways of each fleet take no part in changes now, ejected ones included."""
        return self._left_out()

    def ejected_gateways(self) -> Mapping[str, int]:
        """Return how many gateways of each fleet penstock itself has ejected from changes."""
        return self._left_out(tables.quarantine.c.person == PENSTOCK)

    def _left_out(self, *those: ColumnElement[bool]) -> Mapping[str, int]:
        table = tables.quarantine
        lasts = (table.c.until.is_(None)) | (table.c.until > datetime.now(UTC))
        wanted = select(table.c.fleet, func.count()).where(lasts, *those).group_by(table.c.fleet)
        with reading(self._engine) as connection:
            return {fleet: int(count) for fleet, count in connection.execute(wanted)}
