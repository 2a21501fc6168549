"""The whole installation at a glance, for its metrics: sums and ends by fleet, in few rows."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import func, select

from orchestrator.store import tables
from orchestrator.store.book import Book
from orchestrator.store.database import reading

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


class Overview(Book):
    """What is under way in all fleets, and what was."""

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

    def gateways_looked_at(self, within: timedelta) -> Mapping[str, LookedAt]:
        """Return which gateways of each fleet were looked at within that time."""
        table, oldest = tables.gateway_states, datetime.now(UTC) - within
        wanted = select(table.c.fleet, table.c.gateway, table.c.silent.is_not(None)).where(
            table.c.at >= oldest
        )
        found: dict[str, tuple[set[str], set[str]]] = {}
        with reading(self._engine) as connection:
            for fleet, gateway, silent in connection.execute(wanted):
                everybody, quiet = found.setdefault(fleet, (set(), set()))
                everybody.add(gateway)
                if silent:
                    quiet.add(gateway)
        return {fleet: LookedAt(frozenset(one), frozenset(two)) for fleet, (one, two) in found.items()}

    def certificate_lives(self) -> Mapping[tuple[str, str], tuple[datetime, datetime]]:
        """Return from when until when the newest certificate of each gateway is good."""
        table, moment = tables.gateway_certificates, tables.Moment()
        lives = (func.max(table.c.issued_at, type_=moment), func.max(table.c.expires, type_=moment))
        wanted = select(table.c.fleet, table.c.gateway, *lives).group_by(table.c.fleet, table.c.gateway)
        with reading(self._engine) as connection:
            rows = connection.execute(wanted)
            return {(fleet, gateway): (begin, end) for fleet, gateway, begin, end in rows}

    def quarantined_gateways(self) -> Mapping[str, int]:
        """Return how many gateways of each fleet are left out of changes now."""
        table = tables.quarantine
        lasts = (table.c.until.is_(None)) | (table.c.until > datetime.now(UTC))
        wanted = select(table.c.fleet, func.count()).where(lasts).group_by(table.c.fleet)
        with reading(self._engine) as connection:
            return {fleet: int(count) for fleet, count in connection.execute(wanted)}
