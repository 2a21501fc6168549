"""Revisions: which files were applied to fleets, from which commits, and which pins people have released."""

import json
import zlib
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, insert, select

from orchestrator.store import tables
from orchestrator.store.book import Book
from orchestrator.store.database import reading, writing
from orchestrator.store.record import append
from policies.model.desired import AppliedKind, Revision
from policies.model.people import Via
from policies.model.value import digest_of

LARGEST = 1 << 24
"""Bytes of a text that is kept; no file that is read has more."""

MOST_INTENDED = 100
"""Intents that are looked through: each is an attempt since the last one that succeeded."""


class Revisions(Book):
    """What was applied of files that people keep elsewhere."""

    def newest_revision(self, fleet: str, kind: AppliedKind) -> Revision | None:
        """Return what was applied last, None when nothing ever was."""
        with reading(self._engine) as connection:
            row = _newest(connection, fleet, kind)
            return _revision(row) if row is not None else None

    def newest_text(self, fleet: str, kind: AppliedKind) -> str | None:
        """Return the text that was applied last, None when none ever was."""
        with reading(self._engine) as connection:
            row = _newest(connection, fleet, kind)
            return zlib.decompressobj().decompress(row.body, LARGEST).decode() if row is not None else None

    def intend_revision(
        self, fleet: str, kind: AppliedKind, text: str, person: str, *, commit: str | None, author: str
    ) -> None:
        """Write down that this text is about to be put in its place, by somebody who may."""
        body = {"digest": digest_of(text.encode()), "commit": commit, "author": author}
        with writing(self._engine) as connection:
            append(connection, person, Via.SYSTEM, _being_written(kind), fleet, body, fleet=fleet)

    def intended_revision(self, fleet: str, kind: AppliedKind, digest: str) -> Revision | None:
        """Return the revision that the text of this digest would be by now, had nobody been killed.

        None where nobody was about to write that text since the newest revision.
        """
        table = tables.audit
        actions = (_being_written(kind), _applied(kind))
        wanted = select(table).where(table.c.fleet == fleet, table.c.action.in_(actions))
        with reading(self._engine) as connection:
            rows = connection.execute(wanted.order_by(table.c.seq.desc()).limit(MOST_INTENDED)).all()
            known = _newest(connection, fleet, kind)
        for row in rows:
            if row.action == _applied(kind):
                break
            said = json.loads(row.body)
            if said["digest"] == digest:
                return Revision(
                    fleet=fleet,
                    kind=kind,
                    number=known.number + 1 if known is not None else 1,
                    digest=digest,
                    commit=said["commit"],
                    author=said["author"],
                    person=row.person,
                    at=datetime.fromisoformat(row.at),
                )
        return None

    def record_revision(
        self, fleet: str, kind: AppliedKind, text: str, person: str, *, commit: str | None, author: str
    ) -> Revision:
        """Write down that this text was applied; a repeat of the newest text is the same revision."""
        digest = digest_of(text.encode())
        with writing(self._engine) as connection:
            known = _newest(connection, fleet, kind)
            if known is not None and known.digest == digest:
                return _revision(known)
            made = Revision(
                fleet=fleet,
                kind=kind,
                number=known.number + 1 if known is not None else 1,
                digest=digest,
                commit=commit,
                author=author,
                person=person,
                at=datetime.now(UTC),
            )
            values = made.model_dump() | {"kind": kind.value, "body": zlib.compress(text.encode())}
            connection.execute(insert(tables.revisions).values(values))
            body = {"number": made.number, "digest": digest, "commit": commit, "author": author}
            append(connection, person, Via.SYSTEM, _applied(kind), fleet, body, fleet=fleet)
            return made

    def release_pin(self, fleet: str, change: str, person: str, reason: str) -> bool:
        """Write down that this change pins its fleet no more; return whether that is new."""
        table = tables.pin_releases
        with writing(self._engine) as connection:
            which = (table.c.fleet == fleet, table.c.change == change)
            if connection.execute(select(table.c.change).where(*which)).first() is not None:
                return False
            values = {"fleet": fleet, "change": change, "person": person, "reason": reason}
            connection.execute(insert(table).values(**values, at=datetime.now(UTC)))
            append(connection, person, Via.SYSTEM, "pin released", change, {"reason": reason}, fleet=fleet)
            return True

    def is_released(self, fleet: str, change: str) -> bool:
        """Return whether somebody has said that this change pins its fleet no more."""
        table = tables.pin_releases
        wanted = select(table.c.change).where(table.c.fleet == fleet, table.c.change == change)
        with reading(self._engine) as connection:
            return connection.execute(wanted).first() is not None


def _being_written(kind: AppliedKind) -> str:
    return f"{kind.value} being written"


def _applied(kind: AppliedKind) -> str:
    return f"{kind.value} applied"


def _newest(connection: Connection, fleet: str, kind: AppliedKind) -> "Row[Any] | None":
    table = tables.revisions
    wanted = select(table).where(table.c.fleet == fleet, table.c.kind == kind.value)
    return connection.execute(wanted.order_by(table.c.number.desc()).limit(1)).one_or_none()


def _revision(row: "Row[Any]") -> Revision:
    return Revision(**{field: getattr(row, field) for field in Revision.model_fields})
