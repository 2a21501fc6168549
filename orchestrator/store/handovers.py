"""Hand-overs in the ledger: who gave a fleet to whom, and whether it was accepted."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from orchestrator.store import tables
from orchestrator.store.book import Book
from orchestrator.store.database import reading, writing
from orchestrator.store.record import append
from policies.model.errors import Conflict
from policies.model.handover import Duty, Handover, HandoverEnd
from policies.model.people import Via


class Handovers(Book):
    """Of each fleet one hand-over is open at most."""

    def begin_handover(
        self, fleet: str, giver: str, taker: str, note: str, change: str | None, key: str | None = None
    ) -> Handover:
        """Write down that the giver asks the taker to take the fleet; a repeat is the same one.

        One that nobody has answered is replaced, so that whoever is asked last is who may accept.
        """
        table = tables.handovers
        with writing(self._engine) as connection:
            if key is not None:
                known = connection.execute(select(table).where(table.c.key == key)).one_or_none()
                if known is not None:
                    return _handover(known)
            before = _open(connection, fleet)
            if before is not None and (before.giver, before.taker) == (giver, taker):
                return before
            if before is not None:
                _end(connection, before, HandoverEnd.REPLACED, giver)
            row = {"fleet": fleet, "key": key, "change": change, "giver": giver, "taker": taker}
            made = connection.execute(insert(table).values(**row, note=note, began=datetime.now(UTC)))
            (number,) = made.inserted_primary_key or (0,)
            append(
                connection,
                giver,
                Via.SYSTEM,
                "hand-over begun",
                fleet,
                {"to": taker, "note": note},
                fleet=fleet,
            )
            return _handover(connection.execute(select(table).where(table.c.id == number)).one())

    def end_handover(self, fleet: str, person: str, end: HandoverEnd) -> Handover:
        """Write down what became of the open one, in the name of whoever says so.

        Raises:
            Conflict: None is open, or it is not theirs to say; a repeat of what they said last is answered.
        """
        asks = end is HandoverEnd.WITHDRAWN
        table = tables.handovers
        with writing(self._engine) as connection:
            found = _open(connection, fleet)
            if found is None:
                newest = select(table).where(table.c.fleet == fleet).order_by(table.c.id.desc()).limit(1)
                row = connection.execute(newest).one_or_none()
                last = _handover(row) if row is not None else None
                if last is not None and last.end is end and person == (last.giver if asks else last.taker):
                    return last
                raise Conflict(f"nobody hands {fleet} over now: penstock handover begin {fleet} --to PERSON")
            whose = found.giver if asks else found.taker
            if person != whose:
                raise Conflict(
                    f"{found.giver} hands {fleet} over to {found.taker}: that is for {whose} to say, not for "
                    f"{person}"
                )
            return _end(connection, found, end, person)

    def handovers(self, fleet: str, limit: int) -> tuple[Handover, ...]:
        """Return the fleet's hand-overs, the newest first."""
        table = tables.handovers
        wanted = select(table).where(table.c.fleet == fleet).order_by(table.c.id.desc()).limit(limit)
        with reading(self._engine) as connection:
            return tuple(map(_handover, connection.execute(wanted)))

    def handovers_of(self, change: str, limit: int) -> tuple[Handover, ...]:
        """Return the hand-overs that were begun while that change was the newest, the oldest first."""
        table = tables.handovers
        wanted = select(table).where(table.c.change == change).order_by(table.c.id).limit(limit)
        with reading(self._engine) as connection:
            return tuple(map(_handover, connection.execute(wanted)))

    def duty(self, fleet: str) -> Duty:
        """Return who has the fleet: whoever accepted it last; whoever is only asked has not."""
        table = tables.handovers
        accepted = (table.c.fleet == fleet, table.c.end == HandoverEnd.ACCEPTED.value)
        with reading(self._engine) as connection:
            last = connection.execute(
                select(table.c.taker, table.c.ended).where(*accepted).order_by(table.c.id.desc()).limit(1)
            ).one_or_none()
            asked = _open(connection, fleet)
        return Duty(person=last.taker if last else None, since=last.ended if last else None, asked=asked)


def _open(connection: Connection, fleet: str) -> Handover | None:
    table = tables.handovers
    wanted = select(table).where(table.c.fleet == fleet, table.c.end.is_(None)).order_by(table.c.id.desc())
    row = connection.execute(wanted.limit(1)).one_or_none()
    return _handover(row) if row is not None else None


def _end(connection: Connection, one: Handover, end: HandoverEnd, person: str) -> Handover:
    table = tables.handovers
    ended = datetime.now(UTC)
    connection.execute(update(table).where(table.c.id == one.id).values(ended=ended, end=end.value))
    body = {"from": one.giver, "to": one.taker, "seconds": round((ended - one.began).total_seconds(), 1)}
    append(connection, person, Via.SYSTEM, f"hand-over {end.value}", one.fleet, body, fleet=one.fleet)
    return one.model_copy(update={"ended": ended, "end": end})


def _handover(row: "Row[Any]") -> Handover:
    return Handover(**{name: getattr(row, name) for name in Handover.model_fields})
