"""Follow-ups: the causes of changes and what is to be done about them, as people wrote them down."""

from collections.abc import Collection
from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import Row, func, insert, select, update

from orchestrator.store import tables
from orchestrator.store.book import Book
from orchestrator.store.changes import row_of
from orchestrator.store.database import reading, writing
from orchestrator.store.record import append
from policies.model.errors import BadInput, Unknown
from policies.model.follow_up import Cause, FollowUp
from policies.model.people import Via

MOST_OF_A_CHANGE = 100
"""Follow-ups of one change: more are a plan of their own."""


class FollowUps(Book):
    """What people found out about changes, and what is still to be done."""

    def write_cause(self, change: str, text: str, person: str) -> Cause:
        """Write down what caused the change to end as it did; a later word replaces the one before."""
        table = tables.causes
        with writing(self._engine) as connection:
            row = row_of(connection, change)
            known = connection.execute(select(table).where(table.c.change == row.name)).one_or_none()
            if known is not None and (known.text, known.person) == (text, person):
                return _cause(known)
            said = {"text": text, "person": person, "at": datetime.now(UTC)}
            if known is None:
                connection.execute(insert(table).values(change=row.name, **said))
            else:
                connection.execute(update(table).where(table.c.change == row.name).values(said))
            body = {"text": text}
            append(connection, person, Via.SYSTEM, "cause written down", row.name, body, fleet=row.fleet)
        return Cause(change=change, **said)

    def cause(self, change: str) -> Cause | None:
        """Return what people found to be the cause, None until somebody has said so."""
        table = tables.causes
        with reading(self._engine) as connection:
            row = connection.execute(select(table).where(table.c.change == change)).one_or_none()
            return _cause(row) if row is not None else None

    def add_follow_up(
        self, change: str, text: str, owner: str, due: date, person: str, key: str | None
    ) -> FollowUp:
        """Write down what is to be done; with the key of an earlier one return that one.

        Raises:
            Unknown: There is no such change.
            BadInput: The change has as many as there can be.
        """
        table = tables.follow_ups
        with writing(self._engine) as connection:
            row = row_of(connection, change)
            if key is not None:
                known = connection.execute(select(table).where(table.c.key == key)).one_or_none()
                if known is not None:
                    return _follow_up(known)
            newest = select(func.max(table.c.number)).where(table.c.change == row.name)
            number = 1 + (connection.execute(newest).scalar_one() or 0)
            if number > MOST_OF_A_CHANGE:
                raise BadInput(
                    f"{change} has {MOST_OF_A_CHANGE} follow-ups; write the rest where you plan work"
                )
            made = FollowUp(
                change=row.name,
                number=number,
                fleet=row.fleet,
                text=text,
                owner=owner,
                due=due,
                person=person,
                at=datetime.now(UTC),
            )
            connection.execute(insert(table).values(**made.model_dump(), key=key))
            body = {"number": number, "text": text, "owner": owner, "due": due.isoformat()}
            append(connection, person, Via.SYSTEM, "follow-up written down", row.name, body, fleet=row.fleet)
        return made

    def finish_follow_up(self, change: str, number: int, person: str) -> FollowUp:
        """Write down that it is done; a repeat changes nothing.

        Raises:
            Unknown: The change has none of that number.
        """
        table = tables.follow_ups
        which = (table.c.change == change, table.c.number == number)
        with writing(self._engine) as connection:
            row = connection.execute(select(table).where(*which)).one_or_none()
            if row is None:
                raise Unknown(f"{change} has no follow-up {number}; penstock report {change} lists them")
            if row.done_at is not None:
                return _follow_up(row)
            done = {"done_at": datetime.now(UTC), "done_by": person}
            connection.execute(update(table).where(*which).values(done))
            body = {"number": number}
            append(connection, person, Via.SYSTEM, "follow-up done", change, body, fleet=row.fleet)
            return _follow_up(row).model_copy(update=done)

    def follow_ups_of(self, change: str) -> tuple[FollowUp, ...]:
        """Return what is to be done and what was done because of the change, as it was written down."""
        table = tables.follow_ups
        with reading(self._engine) as connection:
            rows = connection.execute(select(table).where(table.c.change == change).order_by(table.c.number))
            return tuple(_follow_up(row) for row in rows)

    def open_follow_ups(self, fleets: Collection[str], limit: int) -> tuple[FollowUp, ...]:
        """Return what is still to be done for these fleets, what is due first before the others."""
        table = tables.follow_ups
        wanted = select(table).where(table.c.fleet.in_(sorted(fleets)), table.c.done_at.is_(None))
        wanted = wanted.order_by(table.c.due, table.c.change, table.c.number).limit(limit)
        with reading(self._engine) as connection:
            return tuple(_follow_up(row) for row in connection.execute(wanted))


def _cause(row: "Row[Any]") -> Cause:
    return Cause(**{field: getattr(row, field) for field in Cause.model_fields})


def _follow_up(row: "Row[Any]") -> FollowUp:
    return FollowUp(**{field: getattr(row, field) for field in FollowUp.model_fields})
