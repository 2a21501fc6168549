"""Stories: what every change has to tell, and each of its events, for whoever looks."""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row, func, insert, select, update

from orchestrator.store import tables
from orchestrator.store.book import Book
from orchestrator.store.database import reading, writing
from policies.model.change import ChangeOrder
from policies.model.status import Event, EventRow
from policies.model.value import Value
from policies.status.told import Told


class StoryRow(Value):
    """What a change told when it was last heard."""

    change: str
    order: ChangeOrder
    told: Told
    at: datetime


class Stories(Book):
    """What happens, from rows: no workflow is asked."""

    def record_story(self, order: ChangeOrder, told: Told, first: int, events: Sequence[Event]) -> None:
        """Ensure that this is what the change tells, and that each of these events has a row."""
        stories, table = tables.stories, tables.events
        said = {
            "order": order.model_dump_json(),
            "told": told.model_dump_json(),
            "at": datetime.now(UTC),
        }
        with writing(self._engine) as connection:
            wanted = select(func.max(table.c.number)).where(table.c.change == told.name)
            newest = connection.execute(wanted).scalar_one()
            known = 0 if newest is None else newest + 1
            rows = [
                {
                    "fleet": order.fleet,
                    "change": told.name,
                    "number": number,
                    "at": event.at,
                    "sentence": event.sentence,
                }
                for number, event in enumerate(events, first)
                if number >= known
            ]
            if rows:
                connection.execute(insert(table), rows)
            mine = stories.c.change == told.name
            if connection.execute(update(stories).where(mine).values(said)).rowcount == 0:
                connection.execute(insert(stories).values(**said, change=told.name))

    def story(self, change: str) -> StoryRow | None:
        """Return what the change told when it was last heard, None when it never was."""
        table = tables.stories
        with reading(self._engine) as connection:
            row = connection.execute(select(table).where(table.c.change == change)).one_or_none()
        return _story(row) if row is not None else None

    def stories_of(self, changes: Collection[str]) -> dict[str, StoryRow]:
        """Return what each of these changes told when it was last heard, of those that ever were."""
        table = tables.stories
        with reading(self._engine) as connection:
            rows = connection.execute(select(table).where(table.c.change.in_(sorted(changes))))
            return {row.change: _story(row) for row in rows}

    def told_by(self, changes: Collection[str]) -> dict[str, Told]:
        """Return what each of these changes told when it was last heard, of those that ever were."""
        return {name: story.told for name, story in self.stories_of(changes).items()}

    def events_of_fleet(self, fleet: str, after: int = 0, limit: int = 200) -> tuple[EventRow, ...]:
        """Return the fleet's events after that number, the oldest first."""
        table = tables.events
        wanted = select(table).where(table.c.fleet == fleet, table.c.id > after).order_by(table.c.id)
        return self._events(wanted.limit(limit))

    def events_of_change(self, change: str, after: int = 0, limit: int = 200) -> tuple[EventRow, ...]:
        """Return the change's events after that number, the oldest first."""
        table = tables.events
        wanted = select(table).where(table.c.change == change, table.c.id > after).order_by(table.c.id)
        return self._events(wanted.limit(limit))

    def newest_events(self, change: str, limit: int) -> tuple[EventRow, ...]:
        """Return the change's newest events, the oldest of them first."""
        table = tables.events
        wanted = select(table).where(table.c.change == change).order_by(table.c.number.desc()).limit(limit)
        return tuple(reversed(self._events(wanted)))

    def _events(self, wanted: Any) -> tuple[EventRow, ...]:
        with reading(self._engine) as connection:
            return tuple(_event(row) for row in connection.execute(wanted))


def _story(row: "Row[Any]") -> StoryRow:
    return StoryRow(
        change=row.change,
        order=ChangeOrder.model_validate_json(row.order),
        told=Told.model_validate_json(row.told),
        at=row.at,
    )


def _event(row: "Row[Any]") -> EventRow:
    return EventRow(id=row.id, change=row.change, number=row.number, at=row.at, sentence=row.sentence)
