"""Freezes that people add: when no wave of a fleet may start, who said so and why."""

from datetime import UTC, datetime

from pydantic import TypeAdapter
from sqlalchemy import delete, insert, select

from orchestrator.store import tables
from orchestrator.store.book import Book
from orchestrator.store.database import reading, writing
from orchestrator.store.record import append
from policies.model.errors import Conflict, Unknown
from policies.model.people import Via
from policies.model.windows import Frozen, KeptFreeze

MOST = 50
"""Freezes of one fleet; more are one calendar."""

_SPANS = TypeAdapter(tuple[Frozen, ...])


class Freezes(Book):
    """What people have frozen."""

    def add_freeze(self, freeze: KeptFreeze) -> bool:
        """Freeze the fleet then, too; return whether that is new.

        Raises:
            Conflict: Another freeze has this name, or there are too many.
        """
        table = tables.freezes
        with writing(self._engine) as connection:
            known = connection.execute(select(table).where(table.c.fleet == freeze.fleet)).all()
            spans = _SPANS.dump_json(freeze.spans).decode()
            if same := next((row for row in known if row.name == freeze.name), None):
                if same.spans == spans:
                    return False
                raise Conflict(f"{freeze.fleet} has another freeze {freeze.name}; give this one another name")
            if len(known) >= MOST:
                raise Conflict(f"{freeze.fleet} has {MOST} freezes; remove those that are over")
            values = freeze.model_dump(exclude={"spans"})
            connection.execute(insert(table).values(**values, spans=spans))
            first, last = freeze.spans[0], freeze.spans[-1]
            body = {
                "reason": freeze.reason,
                "from": first.begins.isoformat(),
                "to": last.ends.isoformat(),
                "tz": first.tz,
                "times": len(freeze.spans),
            }
            subject = f"{freeze.fleet}/{freeze.name}"
            append(connection, freeze.person, Via.SYSTEM, "freeze added", subject, body, fleet=freeze.fleet)
            return True

    def remove_freeze(self, fleet: str, name: str, person: str, reason: str) -> None:
        """Freeze the fleet no more then.

        Raises:
            Unknown: It has no such freeze.
        """
        table = tables.freezes
        with writing(self._engine) as connection:
            which = (table.c.fleet == fleet, table.c.name == name)
            if not connection.execute(delete(table).where(*which)).rowcount:
                raise Unknown(
                    f"{fleet} has no freeze {name} that somebody added; one of the fleet's file is removed "
                    f"there; see: penstock window freeze list {fleet}"
                )
            body = {"reason": reason}
            append(connection, person, Via.SYSTEM, "freeze removed", f"{fleet}/{name}", body, fleet=fleet)

    def freezes(self, fleet: str) -> tuple[KeptFreeze, ...]:
        """Return what people have frozen of the fleet, by name."""
        table = tables.freezes
        wanted = select(table).where(table.c.fleet == fleet).order_by(table.c.name)
        with reading(self._engine) as connection:
            return tuple(
                KeptFreeze(
                    fleet=row.fleet,
                    name=row.name,
                    spans=_SPANS.validate_json(row.spans),
                    reason=row.reason,
                    person=row.person,
                    at=row.at.astimezone(UTC),
                )
                for row in connection.execute(wanted)
            )


def kept_now(fleet: str, name: str, spans: tuple[Frozen, ...], person: str, reason: str) -> KeptFreeze:
    """Return the freeze as somebody adds it now."""
    return KeptFreeze(fleet=fleet, name=name, spans=spans, reason=reason, person=person, at=datetime.now(UTC))
