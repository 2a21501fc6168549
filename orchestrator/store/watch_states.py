"""Watch states: what a watch remembers between two slices, kept beside the engine."""

import zlib
from datetime import UTC, datetime

from sqlalchemy import delete, insert, select

from orchestrator.store import tables
from orchestrator.store.book import Book
from orchestrator.store.database import reading, writing
from policies.model.errors import BadInput
from policies.model.value import digest_of

KEPT = 4
"""States of one watch that are kept: a slice that is repeated after a crash begins with an earlier one."""


class WatchStates(Book):
    """States by digest."""

    def put_state(self, change: str, wave: int, state: str) -> str:
        """Keep the state and return its digest."""
        table, digest = tables.watch_states, digest_of(state.encode())
        key = {"change": change, "wave": wave, "digest": digest}
        with writing(self._engine) as connection:
            mine = (table.c.change == change, table.c.wave == wave)
            newest = select(table.c.digest).where(*mine).order_by(table.c.at.desc())
            known = list(connection.execute(newest).scalars())
            if digest in known:
                return digest
            for old in known[KEPT - 1 :]:
                connection.execute(delete(table).where(*mine, table.c.digest == old))
            body = zlib.compress(state.encode(), 1)
            connection.execute(insert(table).values(**key, body=body, at=datetime.now(UTC)))
        return digest

    def state_of(self, change: str, wave: int, digest: str) -> str:
        """Return a kept state; BadInput when it is not there any more."""
        table = tables.watch_states
        with reading(self._engine) as connection:
            which = (table.c.change == change, table.c.wave == wave, table.c.digest == digest)
            body = connection.execute(select(table.c.body).where(*which)).scalar_one_or_none()
        if body is None:
            raise BadInput(
                f"the state of the watch over wave {wave} of {change} is gone; the window begins anew"
            )
        return zlib.decompress(body).decode()

    def forget_states(self, before: datetime) -> int:
        """Remove states that old; return how many."""
        table = tables.watch_states
        with writing(self._engine) as connection:
            return connection.execute(delete(table).where(table.c.at < before)).rowcount
