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
