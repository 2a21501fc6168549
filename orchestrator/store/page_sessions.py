"""Page sessions: who is logged in at the page, each known by a secret of which only the hash is kept."""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select

from orchestrator.store import tables
from orchestrator.store.book import Book
from orchestrator.store.database import reading, writing
from orchestrator.store.record import append
from policies.model.errors import NotAllowed
from policies.model.people import Via
from policies.model.value import Value

MOST_OF_ONE = 16
"""Sessions that one person may have, and as many links; the oldest gives way to a newer one."""


class PageSession(Value):
    """Who is logged in, and how they were recognised: by a user of this host, or by the provider's word."""

    person: str
    uid: int | None = None
    vouched: str | None = None
    """What the identity provider vouched for, as JSON."""
    begun: datetime
    expires: datetime


class PageSessions(Book):
    """One-time links that become sessions when they are opened, and sessions until they are over."""

    def keep_page_link(self, secret: str, person: str, uid: int, lives: timedelta) -> datetime:
        """Keep a link that logs this user of the host in once; return until when it is good."""
        begun = datetime.now(UTC)
        session = PageSession(person=person, uid=uid, begun=begun, expires=begun + lives)
        with writing(self._engine) as connection:
            _keep(connection, secret, session, link=True)
        return session.expires

    def page_link(self, secret: str) -> PageSession:
        """Return whose link this is, without using it up.

        Raises:
            NotAllowed: It is none, was opened before or is too old.
        """
        with reading(self._engine) as connection:
            return _good(connection.execute(_wanted(secret, link=True)).one_or_none())

    def open_page_link(self, link: str, secret: str, lives: timedelta, address: str) -> PageSession:
        """Turn a link into the session of this secret; of two who open one link at a time, one succeeds.

        Raises:
            NotAllowed: It is none, was opened before or is too old.
        """
        table, begun = tables.page_sessions, datetime.now(UTC)
        with writing(self._engine) as connection:
            found = _good(connection.execute(_wanted(link, link=True)).one_or_none())
            connection.execute(delete(table).where(table.c.hash == _hash(link)))
            session = found.model_copy(update={"begun": begun, "expires": begun + lives})
            _keep(connection, secret, session, link=False)
            body = {"by": "link", "from": address, "expires": session.expires.isoformat()}
            append(connection, found.person, Via.WEB, "login", found.person, body)
        return session

    def begin_page_session(
        self, secret: str, person: str, vouched: str, lives: timedelta, address: str
    ) -> PageSession:
        """Begin a session of a person for whom the identity provider has just vouched."""
        begun = datetime.now(UTC)
        session = PageSession(person=person, vouched=vouched, begun=begun, expires=begun + lives)
        with writing(self._engine) as connection:
            _keep(connection, secret, session, link=False)
            body = {"by": "identity provider", "from": address, "expires": session.expires.isoformat()}
            append(connection, person, Via.WEB, "login", person, body)
        return session

    def page_session(self, secret: str) -> PageSession:
        """Return whose session this is.

        Raises:
            NotAllowed: It is none, or is over.
        """
        with reading(self._engine) as connection:
            return _good(connection.execute(_wanted(secret, link=False)).one_or_none())

    def end_page_session(self, secret: str) -> None:
        """Ensure that nobody is logged in by this secret."""
        table = tables.page_sessions
        with reading(self._engine) as connection:
            if connection.execute(_wanted(secret, link=False)).one_or_none() is None:
                return  # anybody can show a secret of their own, and keep nobody from writing by it
        with writing(self._engine) as connection:
            connection.execute(delete(table).where(table.c.hash == _hash(secret)))


def _keep(connection: Connection, secret: str, session: PageSession, *, link: bool) -> None:
    """Keep a row, and forget those that are over and the person's oldest where they are too many."""
    table = tables.page_sessions
    connection.execute(delete(table).where(table.c.expires <= session.begun))
    own = select(table.c.hash).where(table.c.person == session.person, table.c.link.is_(link))
    newest_first = own.order_by(table.c.begun.desc(), table.c.hash)
    known = connection.execute(newest_first).scalars().all()
    connection.execute(delete(table).where(table.c.hash.in_(known[MOST_OF_ONE - 1 :])))
    connection.execute(insert(table).values(_row(secret, session, link=link)))


def _wanted(secret: str, *, link: bool) -> Any:
    table = tables.page_sessions
    return select(table).where(table.c.hash == _hash(secret), table.c.link.is_(link))


def _good(row: "Row[Any] | None") -> PageSession:
    if row is None or row.expires <= datetime.now(UTC):
        raise NotAllowed("this login is over, or never was one; log in again")
    return PageSession(**{field: getattr(row, field) for field in PageSession.model_fields})


def _row(secret: str, session: PageSession, *, link: bool) -> dict[str, Any]:
    return {"hash": _hash(secret), "link": link, **session.model_dump()}


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
