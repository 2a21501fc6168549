"""Requests by the key their callers gave: a repeat gets the first one's answer and has no second effect."""

import hashlib
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, insert, select, update

from orchestrator.store import tables
from orchestrator.store.book import Book
from orchestrator.store.database import reading, writing
from policies.model.errors import Conflict, OtherContent
from policies.model.request import Answer

REMEMBERED = timedelta(days=7)
ABANDONED = timedelta(seconds=20)
"""After that long without a word a repeat is let through: whoever had the first one has ended."""


class Requests(Book):
    """Which requests with side effects have come, and what was answered."""

    def begin_request(self, person: str, key: str, content: bytes) -> Answer | None:
        """Take a request; return the answer of an equal one that was answered before, None when it is new.

        Raises:
            OtherContent: The person gave this key to another request.
            Conflict: An equal request is still being carried out.
        """
        table, hashed = tables.requests, hashlib.sha256(content).hexdigest()
        mine = (table.c.person == person, table.c.key == key)
        with writing(self._engine) as connection:
            now = datetime.now(UTC)  # once it is our turn: an equal one that went first is older then
            known = connection.execute(select(table).where(*mine)).one_or_none()
            if known is None:
                connection.execute(insert(table).values(person=person, key=key, hash=hashed, at=now))
                return None
            if known.hash != hashed:
                raise OtherContent(f"the key {key} was given to another request; give this one its own")
            if known.answer is not None:
                return Answer(status=known.status, body=known.answer)
            # Another replica's clock may be a little ahead; one that was set back by more keeps nobody out.
            if abs(now - known.at) < ABANDONED:
                raise Conflict("the same request is still being carried out; ask again in a moment")
            connection.execute(update(table).where(*mine).values(at=now))
            return None

    def keep_request(self, person: str, key: str) -> None:
        """Note that the request is still being carried out now."""
        table = tables.requests
        with writing(self._engine) as connection:
            connection.execute(
                update(table).where(table.c.person == person, table.c.key == key).values(at=datetime.now(UTC))
            )

    def finish_request(self, person: str, key: str, answer: Answer) -> None:
        """Keep what was answered."""
        table = tables.requests
        with writing(self._engine) as connection:
            connection.execute(
                update(table)
                .where(table.c.person == person, table.c.key == key)
                .values(status=answer.status, answer=answer.body)
            )

    def forget_request(self, person: str, key: str) -> None:
        """Forget a request that had no effect, so that it can be tried again under its key."""
        table = tables.requests
        with writing(self._engine) as connection:
            connection.execute(delete(table).where(table.c.person == person, table.c.key == key))

    def expire_requests(self, before: datetime) -> None:
        """Forget requests of earlier than that."""
        table = tables.requests
        with reading(self._engine) as connection:
            if connection.execute(select(table.c.key).where(table.c.at < before).limit(1)).first() is None:
                return
        with writing(self._engine) as connection:
            connection.execute(delete(table).where(table.c.at < before))
