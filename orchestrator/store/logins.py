"""Logins: under which names each identity is known, so that one person with two names is no second person.

An identity is what recognises a person: a user of the host, a subject of an identity provider, an account
of a chat. The ledger remembers it with each entry of the record, whatever becomes of people.yaml.
"""

from collections.abc import Collection
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, insert, select, update

from orchestrator.store import tables
from orchestrator.store.book import Book
from orchestrator.store.database import reading, writing
from orchestrator.store.record import append
from policies.model.errors import NotAllowed
from policies.model.people import Via, subject_of_identity

SEEN_EVERY = timedelta(hours=1)
"""How fresh the time is at which an identity last had a name."""

_MARGIN = timedelta(days=1)
"""How long before a moment an identity may have been seen last that had its name then."""


class Logins(Book):
    """Names of identities: a provider gives a subject one name, and gives nobody a name that another has."""

    def know_login(self, identity: str, name: str) -> None:
        """Return if the provider's subject may have that name; the first time is written down.

        A provider may let people change what it calls them, and one person with two names is no second
        person. A subject keeps its name where another address of the same provider vouches for it.

        Raises:
            NotAllowed: The provider gave the subject another name, or the name is somebody else's.
        """
        table, mine = tables.logins, (tables.logins.c.identity == identity, tables.logins.c.name == name)
        with reading(self._engine) as connection:
            if connection.execute(select(table.c.name).where(*mine, table.c.by_provider)).first():
                return
        with writing(self._engine) as connection:
            _require_free(connection, identity, name)
            if know(connection, {(identity, name)}):
                append(connection, name, Via.API, "person known", name, {"identity": identity})
            connection.execute(update(table).where(*mine).values(by_provider=True))

    def know_people(self, names: Collection[tuple[str, str]]) -> None:
        """Remember that these identities have these names now."""
        table, now = tables.logins, datetime.now(UTC)
        with reading(self._engine) as connection:
            rows = connection.execute(select(table)).all()
        fresh = {(row.identity, row.name) for row in rows if abs(now - row.last) < SEEN_EVERY}
        if stale := {*names} - fresh:
            with writing(self._engine) as connection:
                know(connection, stale)

    def names_since(self, at: datetime | None) -> frozenset[tuple[str, str]]:
        """Return each identity with each name that it has had since then, or ever."""
        table = tables.logins
        wanted = select(table.c.identity, table.c.name)
        wanted = wanted if at is None else wanted.where(table.c.last >= at - _MARGIN)
        with reading(self._engine) as connection:
            return frozenset((row.identity, row.name) for row in connection.execute(wanted))


def know(connection: Connection, names: Collection[tuple[str, str]]) -> bool:
    """Remember in the caller's transaction that identities have these names; return whether one is new."""
    table, now = tables.logins, datetime.now(UTC)
    rows = connection.execute(select(table).where(table.c.identity.in_({one for one, _ in names}))).all()
    seen = {(row.identity, row.name): row.last for row in rows}
    for identity, name in sorted(names):
        if (last := seen.get((identity, name))) is None:
            values = {"identity": identity, "name": name, "by_provider": False, "last": now}
            connection.execute(insert(table).values(values))
        elif abs(now - last) >= SEEN_EVERY:
            mine = (table.c.identity == identity, table.c.name == name)
            connection.execute(update(table).where(*mine).values(last=now))
    for name in sorted({name for identity, name in {*names} - seen.keys()}):
        theirs = {identity for identity, had in names if had == name}
        if was := sorted({row.name for row in rows if row.identity in theirs} - {name}):
            append(connection, name, Via.SYSTEM, "person renamed", name, {"was": was})
    return bool({*names} - seen.keys())


def _require_free(connection: Connection, identity: str, name: str) -> None:
    """Refuse a name that another subject has, and another name of this one."""
    table, subject = tables.logins, subject_of_identity(identity)
    rows = connection.execute(select(table).where((table.c.name == name) | table.c.by_provider)).all()
    own = [row for row in rows if subject_of_identity(row.identity) == subject]
    found = [row for row in own if row.by_provider and row.name != name]
    if not any(row.name == name for row in own):
        found += [row for row in rows if row.name == name]
    if found:
        raise NotAllowed(
            f"the provider calls {subject} {name}, and here {found[0].identity} is {found[0].name}: an "
            "administrator adds the subject to people.yaml"
        )
