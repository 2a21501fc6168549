"""Turns: which fleets change now, where an installation lets only so many change at the same time."""

from datetime import UTC, datetime

from sqlalchemy import delete, insert, select

from orchestrator.store import tables
from orchestrator.store.book import Book
from orchestrator.store.database import reading, writing

NAMED = 3


class Turns(Book):
    """Who has a turn; a change that has ended has none, however it ended."""

    def take_turn(self, fleet: str, change: str, most: int | None) -> tuple[str, ...]:
        """Give the change a turn if fewer than so many others have one; return who has them otherwise.

        What it has already stays its own, so a repeat changes nothing. Where a change is under way it has
        its turn however many others have one: `most` is None.
        """
        table, changes = tables.turns, tables.changes
        if most is None and self._has_turn(fleet, change):
            return ()
        with writing(self._engine) as connection:
            ended = select(changes.c.name).where(changes.c.outcome.is_not(None))
            connection.execute(delete(table).where(table.c.change.in_(ended)))
            have = connection.execute(select(table.c.fleet, table.c.change).order_by(table.c.fleet)).all()
            others = [row.fleet for row in have if row.fleet != fleet]
            if (fleet, change) in [(row.fleet, row.change) for row in have]:
                return ()
            if most is not None and len(others) >= most:
                return tuple(others)
            connection.execute(delete(table).where(table.c.fleet == fleet))
            connection.execute(insert(table).values(fleet=fleet, change=change, at=datetime.now(UTC)))
            return ()

    def give_turn_back(self, fleet: str, change: str) -> None:
        """Let others change while this one waits."""
        if not self._has_turn(fleet, change):
            return
        table = tables.turns
        with writing(self._engine) as connection:
            connection.execute(delete(table).where(table.c.fleet == fleet, table.c.change == change))

    def _has_turn(self, fleet: str, change: str) -> bool:
        table = tables.turns
        wanted = select(table.c.fleet).where(table.c.fleet == fleet, table.c.change == change)
        with reading(self._engine) as connection:
            return connection.execute(wanted).first() is not None
