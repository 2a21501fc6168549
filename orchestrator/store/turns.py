"""Turns: which fleets change now, where an installation lets only so many change at the same time."""

from datetime import UTC, datetime

from sqlalchemy import delete, insert, select

from orchestrator.store import tables
from orchestrator.store.book import Book
from orchestrator.store.database import reading, writing

NAMED = 3


class Turns(Book):
    """Who has a turn; a change that has ended has none, however it ended."""

    def take_turn(self, fleet: str, change: str, most: int) -> tuple[str, ...]:
        """Give the change a turn if fewer than so many others have one; return who has them otherwise.

        What it has already stays its own, so a repeat changes nothing.
        """
        table, changes = tables.turns, tables.changes
        with writing(self._engine) as connection:
            ended = select(changes.c.name).where(changes.c.outcome.is_not(None))
            connection.execute(delete(table).where(table.c.change.in_(ended)))
            have = connection.execute(select(table.c.fleet, table.c.change).order_by(table.c.fleet)).all()
            others = [row.fleet for row in have if row.fleet != fleet]
            if (fleet, change) in [(row.fleet, row.change) for row in have]:
                return ()
            if len(others) >= most:
                return tuple(others)
            connection.execute(delete(table).where(table.c.fleet == fleet))
            connection.execute(insert(table).values(fleet=fleet, change=change, at=datetime.now(UTC)))
            return ()

    def give_turn_back(self, fleet: str, change: str) -> None:
        """Let others change while this one waits."""
        table = tables.turns
        which = (table.c.fleet == fleet, table.c.change == change)
        with reading(self._engine) as connection:
            if connection.execute(select(table.c.fleet).where(*which)).first() is None:
                return
        with writing(self._engine) as connection:
            connection.execute(delete(table).where(*which))
