"""The list of complaints: which user complained about which gateway, the user by a hash only."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol, Self

from sqlalchemy import Engine, delete, func, insert, select
from sqlalchemy.exc import IntegrityError

from orchestrator.store import tables
from orchestrator.store.database import open_database, reading, writing
from policies.judge.complaints import Complaint, first_complaints
from policies.model.errors import BadInput, Conflict
from policies.model.fleet import Fleet

ONCE_WITHIN = timedelta(hours=24)
"""A user who complains again within this time is the same trouble, not one more."""
MOST_AN_HOUR = 10_000
"""Complaints of one fleet that are taken in an hour: more say no more, and would fill the ledger."""
SETTLING = timedelta(seconds=2)
"""How long a complaint may take from its time of arrival to where every reader sees it."""


class Fleets(Protocol):
    """The fleets of this installation."""

    def fleets_at(self, targets: Iterable[str]) -> Mapping[str, Fleet]:
        """Return the fleets of the gateways that Prometheus scrapes there, by name."""
        ...


class ComplaintLists:
    """The complaints of all fleets, for the judge, who knows gateways by where they are scraped."""

    def __init__(self, engine: Engine, fleets: Fleets) -> None:
        self._engine = engine
        self._fleets = fleets

    async def distinct(self, instances: Sequence[str], since: datetime, until: datetime) -> dict[str, int]:
        """Return how many users of each instance complained; see `ComplaintList.distinct`."""
        fleets = await asyncio.to_thread(self._fleets.fleets_at, instances)
        found: dict[str, int] = {}
        for fleet in fleets.values():
            found |= await ComplaintList(self._engine, fleet).distinct(instances, since, until)
        return found


class ComplaintList:
    """The complaints that the ledger lists, counted by when they arrived.

    A ticket reaches us after the moment it is about, and moments before the last look would never
    be counted. For the same reason every look ends `SETTLING` before it is taken: what is being
    written then is in the next one.
    """

    def __init__(self, engine: Engine, fleet: Fleet) -> None:
        self._engine = engine
        self._fleet = fleet
        self._instances = {gateway.name: gateway.metrics_target for gateway in fleet.gateways}

    @classmethod
    def open(cls, url: str, fleet: Fleet) -> Self:
        """Return the list in the ledger at this address, of complaints about this fleet."""
        return cls(open_database(url), fleet)

    def close(self) -> None:
        """Let go of every connection."""
        self._engine.dispose()

    def add(self, complaint: Complaint) -> bool:
        """Ensure that the complaint is on the list; return whether it is new.

        Raises:
            BadInput: the fleet has no gateway of that name.
            Conflict: so many came within an hour that more are not taken.
            Unavailable: the ledger cannot be written now.
        """
        if complaint.gateway not in self._instances:
            raise BadInput(
                f"{self._fleet.name} has no gateway {complaint.gateway!r}; name it as fleet.yaml does"
            )
        said = {"fleet": self._fleet.name, "user": complaint.user, "gateway": complaint.gateway}
        made = datetime.fromtimestamp(complaint.at, UTC)
        try:
            with writing(self._engine) as connection:  # what waits for another writer has not arrived yet
                arrived = datetime.now(UTC)
                table = tables.complaints
                lately = (table.c.fleet == self._fleet.name, table.c.arrived > arrived - timedelta(hours=1))
                counted = select(func.count()).select_from(table).where(*lately)
                if connection.execute(counted).scalar_one() >= MOST_AN_HOUR:
                    raise Conflict(
                        f"{MOST_AN_HOUR} complaints about {self._fleet.name} came within an hour, and no "
                        "more are taken: look who sends them"
                    )
                connection.execute(insert(tables.complaints).values(**said, at=made, arrived=arrived))
        except IntegrityError:
            return False
        return True

    async def distinct(self, instances: Sequence[str], since: datetime, until: datetime) -> dict[str, int]:
        """Return how many users of each instance complained then and not in the 24 hours before.

        Instances are metrics targets. Those about whom nobody complained are not in the answer.

        Raises:
            Unavailable: the ledger cannot be read now.
        """
        counts = await asyncio.to_thread(self._first, since - SETTLING, until - SETTLING)
        found = {self._instances[name]: count for name, count in counts.items() if name in self._instances}
        return {instance: found[instance] for instance in instances if instance in found}

    def expire(self, before: datetime) -> None:
        """Forget complaints that arrived earlier; a hash still says something of a person."""
        with writing(self._engine) as connection:
            table = tables.complaints
            old = (table.c.fleet == self._fleet.name, table.c.arrived < before)
            connection.execute(delete(table).where(*old))

    def _first(self, since: datetime, until: datetime) -> dict[str, int]:
        table, started = tables.complaints, since - ONCE_WITHIN
        within = (table.c.arrived >= started, table.c.arrived <= until)
        asked = select(table).where(table.c.fleet == self._fleet.name, *within)
        with reading(self._engine) as connection:
            arrived = [
                Complaint(user=row.user, gateway=row.gateway, at=row.arrived.timestamp())
                for row in connection.execute(asked)
            ]
        return first_complaints(arrived, started.timestamp(), since.timestamp(), until.timestamp())
