"""Releases: which are known and who added them, which were withdrawn, and the floors under them."""

import json
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from orchestrator.store import tables
from orchestrator.store.book import Book
from orchestrator.store.database import reading, writing
from orchestrator.store.record import append
from policies.model.change import PENSTOCK
from policies.model.errors import BadInput, Conflict, Refused, Unknown
from policies.model.offer import Offer, Verb
from policies.model.people import Via
from policies.model.plan import ReleaseRef
from policies.model.release import ReleaseRow
from policies.model.verification import Verification
from policies.planning.naming import named
from policies.recurring import OfferedRelease

MOST_ANSWERS = 50
"""Answers of a repository that an entry of the record names; the store's own record has all of them."""


class Releases(Book):
    """What may be rolled out, by digest, and what may not any more."""

    def add_release(
        self,
        reference: ReleaseRef,
        *,
        source: str,
        signers: tuple[str, ...],
        manifest_json: str,
        person: str = PENSTOCK,
    ) -> bool:
        """Ensure that the verified release is in the ledger with these signers; return whether it is new.

        Where others signed it before, they are kept as its former signers.

        Raises:
            Conflict: The same manifest digest is there as another release.
        """
        row = {
            "digest": reference.digest,
            "product": reference.product,
            "version": reference.version,
            "executable": reference.executable,
            "source": source,
            "signers": json.dumps(signers),
            "manifest": manifest_json,
            "added_at": datetime.now(UTC),
            "added_by": person,
        }
        with writing(self._engine) as connection:
            found = connection.execute(
                select(tables.releases).where(tables.releases.c.digest == reference.digest)
            ).one_or_none()
            if found is not None:
                if _release(found) != reference:
                    raise Conflict(f"{reference.digest} is in the ledger as {found.product} {found.version}")
                _sign_anew(connection, _row(found), signers, person)
                return False
            connection.execute(insert(tables.releases).values(row))
            append(connection, person, Via.SYSTEM, "release added", reference.digest, {"signers": signers})
            return True

    def note_fetch(
        self, verification: Verification, person: str = PENSTOCK, fleet: str | None = None
    ) -> None:
        """Write down who had a release fetched from where, each of the answers, and what came of it."""
        body = {
            "from": verification.source,
            "answers": verification.accesses[:MOST_ANSWERS],
            "verdict": verification.verdict.code,
            "said": verification.fetched,
        }
        with writing(self._engine) as connection:
            about = verification.release
            append(connection, person, Via.SYSTEM, "release fetched", about, body, fleet=fleet)

    def source_of(self, digests: Collection[str]) -> str | None:
        """Return where the newest of these releases came from, None when none of them was ever added."""
        table = tables.releases
        wanted = select(table.c.source).where(table.c.digest.in_(sorted(digests)[:500]))
        with reading(self._engine) as connection:
            return connection.execute(wanted.order_by(table.c.added_at.desc()).limit(1)).scalar_one_or_none()

    def releases(self) -> tuple[ReleaseRow, ...]:
        """Return every release, the newest first, withdrawn ones too."""
        with reading(self._engine) as connection:
            return tuple(map(_row, connection.execute(_ROWS)))

    def offered(self, product: str, channel: str) -> tuple[OfferedRelease, ...]:
        """Return every release of that product and channel, in no order, withdrawn ones too."""
        table = tables.releases
        with reading(self._engine) as connection:
            rows = connection.execute(select(table).where(table.c.product == product)).all()
        found = ((row, json.loads(row.manifest)) for row in rows)
        return tuple(
            OfferedRelease(
                release=_release(row), rollback_index=said["rollback_index"], withdrawn=row.yanked_reason
            )
            for row, said in found
            if said.get("channel") == channel and "rollback_index" in said
        )

    def release_row(self, digest: str) -> ReleaseRow | None:
        """Return what is known of the release of this digest, None when it was never added."""
        with reading(self._engine) as connection:
            found = connection.execute(_ROWS.where(tables.releases.c.digest == digest)).one_or_none()
        return _row(found) if found is not None else None

    def versions(self, digests: Collection[str]) -> dict[str, str]:
        """Return the versions of the releases of these digests, as far as they are known."""
        table = tables.releases
        with reading(self._engine) as connection:
            wanted = select(table.c.digest, table.c.version).where(table.c.digest.in_(sorted(digests)))
            return {row.digest: row.version for row in connection.execute(wanted)}

    def versions_of(self, executables: Collection[str]) -> dict[str, str]:
        """Return the version of the newest release of each of these executables that is known."""
        table = tables.releases
        wanted = select(table.c.executable, table.c.version).where(
            table.c.executable.in_(sorted(executables))
        )
        with reading(self._engine) as connection:
            rows = connection.execute(wanted.order_by(table.c.added_at))
            return {row.executable: row.version for row in rows}

    def changelogs(self, digests: Collection[str]) -> dict[str, str]:
        """Return what the signers of these releases say that they change, of those that say something."""
        return self._in_manifests("changelog", digests)

    def channels(self, digests: Collection[str]) -> dict[str, str]:
        """Return the channels of the releases of these digests."""
        return self._in_manifests("channel", digests)

    def _in_manifests(self, key: str, digests: Collection[str]) -> dict[str, str]:
        table = tables.releases
        with reading(self._engine) as connection:
            wanted = select(table.c.digest, table.c.manifest).where(table.c.digest.in_(sorted(digests)))
            rows = connection.execute(wanted).all()
        said = {row.digest: json.loads(row.manifest).get(key) for row in rows}
        return {digest: text for digest, text in said.items() if text}

    def releases_called(self, name: str, product: str) -> tuple[ReleaseRow, ...]:
        """Return the product's releases that a person may call so, the newest first, withdrawn ones too."""
        mine = (row for row in self.releases() if row.release.product == product)
        return tuple(row for row in mine if is_named(row.release, name))

    def release(self, name: str, product: str) -> ReleaseRef:
        """Return the product's release of that digest (or its beginning), version, or product and version.

        Raises:
            BadInput: There is none, or the name fits several.
            Refused: It was withdrawn.
        """
        return self.only_release(name, self.releases_called(name, product))

    def only_release(self, name: str, rows: Sequence[ReleaseRow]) -> ReleaseRef:
        """Return the one of the releases of that name that may be rolled out.

        Raises:
            BadInput: There is none, or there are several.
            Refused: It was withdrawn.
        """
        usable = usable_of(rows)
        if len(usable) > 1:
            raise self.several(name, usable)
        if usable:
            return usable[0].release
        if rows:
            raise Refused(f"release {name} was withdrawn: {rows[0].yanked_reason}")
        raise Unknown(f"no release {name} in the ledger", Offer(verb=Verb.RELEASES))

    def several(self, name: str, rows: Sequence[ReleaseRow]) -> BadInput:
        """Return the refusal of a name that fits these releases, with what tells them apart."""
        channels = self.channels([row.release.digest for row in rows])
        fits = named([_told_apart(row, channels.get(row.release.digest)) for row in rows])
        sentence = f"{name} fits {len(rows)} releases: {fits}; give the digest of one"
        return BadInput(sentence, Offer(verb=Verb.RELEASES))

    def yank(self, digest: str, reason: str, person: str) -> bool:
        """Withdraw a release: it may not be rolled out any more. Return whether that is new."""
        table = tables.releases
        with writing(self._engine) as connection:
            row = connection.execute(select(table).where(table.c.digest == digest)).one_or_none()
            if row is None:
                raise Unknown(f"no release {digest} in the ledger", Offer(verb=Verb.RELEASES))
            if row.yanked_at is not None:
                return False
            values = {"yanked_at": datetime.now(UTC), "yanked_reason": reason, "yanked_by": person}
            connection.execute(update(table).where(table.c.digest == digest).values(values))
            append(connection, person, Via.SYSTEM, "release withdrawn", digest, {"reason": reason})
            return True

    def withdrawn(self, digests: Collection[str]) -> frozenset[str]:
        """Return which of these releases, at most 500, somebody has withdrawn."""
        table = tables.releases
        wanted = select(table.c.digest).where(
            table.c.digest.in_(sorted(digests)), table.c.yanked_at.is_not(None)
        )
        with reading(self._engine) as connection:
            return frozenset(connection.execute(wanted).scalars())

    def floor(self, product: str, channel: str, group: str) -> int:
        """Return the least rollback index that may still be rolled out there; 0 when none was set."""
        table = tables.floors
        key = {"product": product, "channel": channel, "group": group}
        with reading(self._engine) as connection:
            found = connection.execute(select(table.c.rollback_index).filter_by(**key)).scalar_one_or_none()
            return int(found or 0)

    def raise_floor(self, product: str, channel: str, group: str, index: int, person: str = PENSTOCK) -> int:
        """Ensure that the floor is at least there and return it; it never falls."""
        table = tables.floors
        key = {"product": product, "channel": channel, "group": group}
        with writing(self._engine) as connection:
            found = connection.execute(select(table.c.rollback_index).filter_by(**key)).scalar_one_or_none()
            if found is not None and found >= index:
                return int(found)
            values = {"rollback_index": index, "at": datetime.now(UTC)}
            if found is None:
                connection.execute(insert(table).values(**key, **values))
            else:
                connection.execute(update(table).filter_by(**key).values(values))
            append(
                connection, person, "release", "floor raised", f"{product}/{channel}/{group}", {"to": index}
            )
            return index


_ROWS = select(*(column for column in tables.releases.c if column.name != "manifest")).order_by(
    tables.releases.c.added_at.desc()
)
"""Every release but its manifest, which is long and seldom wanted."""


def _sign_anew(connection: Connection, row: ReleaseRow, signers: tuple[str, ...], person: str) -> None:
    """Write down in the caller's transaction who signs the release now, and keep who did before."""
    if {*signers} == {*row.signers}:
        return
    table, digest = tables.releases, row.release.digest
    former = [one for one in row.ever_signed if one not in signers]
    values = {"signers": json.dumps(signers), "former_signers": json.dumps(former)}
    connection.execute(update(table).where(table.c.digest == digest).values(values))
    body = {"signers": signers, "before": row.signers}
    append(connection, person, Via.SYSTEM, "signers of release changed", digest, body)


def _row(row: "Row[Any]") -> ReleaseRow:
    return ReleaseRow(
        release=_release(row),
        source=row.source,
        signers=json.loads(row.signers),
        former_signers=json.loads(row.former_signers),
        added_at=row.added_at,
        added_by=row.added_by,
        yanked_reason=row.yanked_reason,
    )


def _release(row: "Row[Any]") -> ReleaseRef:
    return ReleaseRef(digest=row.digest, product=row.product, version=row.version, executable=row.executable)


def usable_of(rows: Sequence[ReleaseRow]) -> list[ReleaseRow]:
    """Return those of the releases that were not withdrawn."""
    return [row for row in rows if row.yanked_reason is None]


def _told_apart(row: ReleaseRow, channel: str | None) -> str:
    added = f"added {row.added_at:%Y-%m-%d %H:%M} UTC by {row.added_by}"
    facts = (f"channel {channel}" if channel else "", added, "withdrawn" if row.yanked_reason else "")
    return f"{row.release.digest[:19]} ({', '.join(filter(None, facts))})"


def is_named(release: ReleaseRef, name: str) -> bool:
    """Return whether a person may call the release so; a digest needs eight digits at least."""
    digest = name if name.startswith("sha256:") else f"sha256:{name}"
    names = (release.version, f"{release.product} {release.version}", f"{release.product}@{release.version}")
    return name in names or (len(digest) >= len("sha256:") + 8 and release.digest.startswith(digest))
