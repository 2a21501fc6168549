"""Logins: under which name each subject of the identity provider is known here, from the first time on."""

from collections.abc import Collection
from datetime import UTC, datetime

from sqlalchemy import insert, select

from orchestrator.store import tables
from orchestrator.store.book import Book
from orchestrator.store.database import reading, writing
from orchestrator.store.record import append
from policies.model.errors import NotAllowed
from policies.model.people import Via


class Logins(Book):
    """Names of people whom people.yaml does not list: a subject has one, and a name is one subject's."""

    def know_login(self, subject: str, name: str) -> None:
        """Return if the subject is known by that name, and nobody else is; the first time is written down.

        A provider may let people change what it calls them, and one person with two names is no second
        person.

        Raises:
            NotAllowed: The subject had another name, or the name is another subject's.
        """
        table = tables.logins
        known = select(table).where((table.c.subject == subject) | (table.c.name == name))
        with reading(self._engine) as connection:
            rows = connection.execute(known).all()
        if not rows:
            with writing(self._engine) as connection:
                rows = connection.execute(known).all()
                if not rows:
                    values = {"subject": subject, "name": name}
                    connection.execute(insert(table).values(**values, since=datetime.now(UTC)))
                    append(connection, name, Via.API, "person known", name, {"subject": subject})
        for row in rows:
            if (row.subject, row.name) != (subject, name):
                raise NotAllowed(
                    f"the provider calls {subject} {name}, and here {row.subject} is {row.name}: an "
                    "administrator adds the subject to people.yaml"
                )

    def subjects_known_as(self, names: Collection[str]) -> frozenset[str]:
        """Return which subjects have had one of these names."""
        table = tables.logins
        with reading(self._engine) as connection:
            asked = select(table.c.subject).where(table.c.name.in_(names))
            return frozenset(connection.execute(asked).scalars())

    def names_known_of(self, subjects: Collection[str]) -> frozenset[str]:
        """Return which names these subjects have had."""
        table = tables.logins
        with reading(self._engine) as connection:
            asked = select(table.c.name).where(table.c.subject.in_(subjects))
            return frozenset(connection.execute(asked).scalars())
