"""Tickets in the ledger: each as it was last told, by its fleet and its name there."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Protocol

from sqlalchemy import delete, func, insert, select, update

from orchestrator.store import tables
from orchestrator.store.book import Book
from orchestrator.store.database import reading, writing
from orchestrator.store.record import append
from policies.judge.gates.tickets import FLEET
from policies.judge.reading import OpenTicket
from policies.model.errors import BadInput, Conflict
from policies.model.fleet import Fleet
from policies.model.people import Via
from policies.model.ticket import Ticket

MOST_KEPT = 1000
"""Tickets of one fleet that are kept; whoever sends more sends something else than tickets."""
SENDER = "ticket system"
"""Who is named in the record: the key says which fleet may be told of, and no more."""


class Fleets(Protocol):
    """The fleets of this installation."""

    def fleets_at(self, targets: Iterable[str]) -> Mapping[str, Fleet]:
        """Return the fleets of the gateways that Prometheus scrapes there, by name."""
        ...


class Tickets(Book):
    """The tickets of all fleets."""

    def record_ticket(self, fleet: Fleet, ticket: Ticket) -> bool:
        """Ensure that the ledger has the ticket as it stood at `ticket.at`; return whether that is new.

        What was true before the state that is known changes nothing, however late it arrives.

        Raises:
            BadInput: The fleet has no gateway of that name.
            Conflict: There are too many tickets of the fleet.
            Unavailable: The ledger cannot be written now.
        """
        if ticket.gateway is not None and ticket.gateway not in {one.name for one in fleet.gateways}:
            raise BadInput(f"{fleet.name} has no gateway {ticket.gateway!r}; name it as fleet.yaml does")
        table = tables.tickets
        which = (table.c.fleet == fleet.name, table.c.id == ticket.id)
        now = datetime.now(UTC)
        row = {
            "gateway": ticket.gateway,
            "opened": _moment(ticket.opened),
            "closed": _moment(ticket.closed) if ticket.closed is not None else None,
            "told_at": _moment(ticket.at),
            "arrived": now,
            "body": ticket.model_dump_json(),
        }
        with writing(self._engine) as connection:
            known = connection.execute(select(table.c.told_at, table.c.closed).where(*which)).one_or_none()
            if known is not None and known.told_at >= row["told_at"]:
                return False
            if known is None:
                counted = select(func.count()).select_from(table).where(table.c.fleet == fleet.name)
                if connection.execute(counted).scalar_one() >= MOST_KEPT:
                    raise Conflict(
                        f"{fleet.name} has {MOST_KEPT} tickets, and no more are taken: close what is over; "
                        "they are forgotten by and by"
                    )
                connection.execute(insert(table).values(fleet=fleet.name, id=ticket.id, **row))
            else:
                connection.execute(update(table).where(*which).values(**row))
            before = None if known is None else ("open" if known.closed is None else "closed")
            state = "open" if ticket.is_open else "closed"
            if state != before:  # what else changes of a ticket decides nothing
                body = {"severity": ticket.severity, "gateway": ticket.gateway, "sentence": ticket.text}
                about = f"{fleet.name}/{ticket.id}"
                append(connection, SENDER, Via.SYSTEM, f"ticket {state}", about, body, fleet=fleet.name)
        return True

    def tickets_between(self, fleet: str, since: datetime, until: datetime) -> tuple[Ticket, ...]:
        """Return the tickets of a fleet that were open at some moment of that time, the newest first."""
        table = tables.tickets
        within = (
            table.c.fleet == fleet,
            table.c.opened <= until,
            (table.c.closed.is_(None)) | (table.c.closed >= since),
        )
        wanted = select(table.c.body).where(*within).order_by(table.c.opened.desc(), table.c.id)
        with reading(self._engine) as connection:
            bodies = connection.execute(wanted.limit(MOST_KEPT)).scalars()
            return tuple(map(Ticket.model_validate_json, bodies))

    def expire_tickets(self, before: datetime) -> None:
        """Forget tickets of which nobody has told anything since."""
        with writing(self._engine) as connection:
            connection.execute(delete(tables.tickets).where(tables.tickets.c.arrived < before))


class TicketLists:
    """Open tickets for the judge, who knows gateways by where they are scraped."""

    def __init__(self, book: Tickets, fleets: Fleets) -> None:
        self._book = book
        self._fleets = fleets

    async def open_about(self, instances: Sequence[str]) -> tuple[OpenTicket, ...]:
        """Return the open tickets about these instances and their fleets.

        Raises:
            Unavailable: The ledger cannot be read now.
        """
        return await asyncio.to_thread(self._open_about, instances)

    def _open_about(self, instances: Sequence[str]) -> tuple[OpenTicket, ...]:
        now, found = datetime.now(UTC), list[OpenTicket]()
        for fleet in self._fleets.fleets_at(instances).values():
            targets = {one.name: one.metrics_target for one in fleet.gateways}
            for ticket in self._book.tickets_between(fleet.name, now, now):
                if ticket.is_open:
                    instance = targets.get(ticket.gateway or "", FLEET) if ticket.gateway else FLEET
                    found.append(OpenTicket(instance, ticket.severity, ticket.opened, _said(fleet, ticket)))
        return tuple(found)


def _said(fleet: Fleet, ticket: Ticket) -> str:
    about = ticket.gateway or f"all of {fleet.name}"
    return f"ticket {ticket.id} ({ticket.severity}) about {about}: {ticket.text}"


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
