"""Known-good: what each gateway goes back to, what made it so, and what it had before."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    bindparam,
    func,
    insert,
    select,
    update,
)

from orchestrator.store import tables
from orchestrator.store.book import Book
from orchestrator.store.changes import row_of
from orchestrator.store.database import reading, writing
from orchestrator.store.record import append
from policies.model.adoption import MARK
from policies.model.change import PENSTOCK, ChangeKind, KnownGoodBatch, KnownGoodMove, Promotion
from policies.model.errors import BadInput, Conflict
from policies.model.people import Via
from policies.model.plan import ReleaseRef

MOST = 500
"""Gateways that one question or one write names; more are asked for by page."""


class KnownGood(Book):
    """The last promoted release of every gateway, and the way back from it."""

    def known_good(self, fleet: str) -> dict[str, ReleaseRef]:
        """Return what each gateway of the fleet goes back to."""
        return self._of(fleet, None)

    def known_good_of(self, fleet: str, gateways: Collection[str]) -> dict[str, ReleaseRef]:
        """Return what these gateways go back to; without those that have no known-good."""
        return self._of(fleet, gateways)

    def known_good_releases(self, fleet: str) -> tuple[ReleaseRef, ...]:
        """Return what any gateway of the fleet goes back to, each release once."""
        read = _Reader()
        with reading(self._engine) as connection:
            wanted = _newest(fleet, None, tables.known_good.c.release).distinct()
            return tuple(map(read, connection.execute(wanted).scalars()))

    def known_good_versions(self, fleet: str, digests: Collection[str]) -> dict[str, str]:
        """Return the versions of the releases of these digests that were known-good in the fleet, ever."""
        table, found = tables.known_good, dict[str, str]()
        with reading(self._engine) as connection:
            for digest in sorted(digests):
                named = table.c.release.contains(f'"digest":"{digest}"', autoescape=True)
                wanted = select(table.c.release).where(table.c.fleet == fleet, named).limit(1)
                if (said := connection.execute(wanted).scalar_one_or_none()) is not None:
                    found[digest] = _Reader()(said).version
        return found

    def _of(self, fleet: str, gateways: Collection[str] | None) -> dict[str, ReleaseRef]:
        table, read = tables.known_good, _Reader()
        with reading(self._engine) as connection:
            pages = _newest_by_page(fleet, gateways, table.c.gateway, table.c.release)
            rows = (row for page in pages for row in connection.execute(page.order_by(table.c.gateway)))
            return {gateway: read(said) for gateway, said in rows}

    def ever_known_good(self, fleet: str) -> dict[str, tuple[ReleaseRef, ...]]:
        """Return every release that was a gateway's known-good once, the newest first."""
        table, read = tables.known_good, _Reader()
        found = dict[str, list[ReleaseRef]]()
        with reading(self._engine) as connection:
            wanted = select(table.c.gateway, table.c.release).where(table.c.fleet == fleet)
            for row in connection.execute(wanted.order_by(table.c.gateway, table.c.id.desc())):
                found.setdefault(row.gateway, []).append(read(row.release))
        return {gateway: tuple(releases) for gateway, releases in found.items()}

    def known_good_until(self, fleet: str, release: str) -> dict[str, datetime | None]:
        """Return the gateways of which the release of that digest was known-good, each with until when.

        None stands for a gateway of which it still is.
        """
        table, read = tables.known_good, _Reader()
        found, on = dict[str, datetime | None](), set[str]()
        wanted = select(table.c.gateway, table.c.release, table.c.since).where(table.c.fleet == fleet)
        with reading(self._engine) as connection:
            for row in connection.execute(wanted.order_by(table.c.id)):
                if read(row.release).digest == release:
                    on.add(row.gateway)
                    found[row.gateway] = None
                elif row.gateway in on:
                    on.remove(row.gateway)
                    found[row.gateway] = row.since
        return found

    def displaced(self, fleet: str, most: int) -> tuple[str, ...]:
        """Return gateways, so many at most, where a daemon was adopted that is not known-good any more."""
        table = tables.known_good
        adopted = table.c.release.contains(f'{MARK}"', autoescape=True)
        before = select(table.c.gateway).where(table.c.fleet == fleet, adopted)
        wanted = _newest(fleet, None, table.c.gateway).where(~adopted, table.c.gateway.in_(before))
        with reading(self._engine) as connection:
            return tuple(connection.execute(wanted.order_by(table.c.gateway).limit(most)).scalars())

    def targets(
        self, fleet: str, change: str, gateways: Collection[str] | None = None
    ) -> dict[str, ReleaseRef]:
        """Return what gateways had before this change, of those that no other change has moved since.

        Args:
            fleet: Whose gateways.
            change: The change that is taken back.
            gateways: Only these; without them all.
        """
        found = self.moves(fleet, gateways)
        return {one.gateway: one.before for one in found if one.change == change and one.before is not None}

    def moves(self, fleet: str, gateways: Collection[str] | None = None) -> tuple[KnownGoodMove, ...]:
        """Return the last move of known-good of each of these gateways, or of all.

        A change that brought a gateway to the known-good that it had already moved nothing. One by which a
        gateway went back has the promotion that it left.
        """
        table = tables.known_good
        with reading(self._engine) as connection:
            pages = _newest_by_page(fleet, gateways, *_MOVE)
            newest = [row for page in pages for row in connection.execute(_moves(page))]
            unmoved = [row.gateway for row in newest if row.before == row.release]
            moved = table.c.before.is_(None) | (table.c.before != table.c.release)
            earlier = _last(connection, fleet, unmoved, moved)
            rows = {row.gateway: row for row in (*newest, *earlier)}
            returned = [name for name, row in rows.items() if _is_return(row.back, row.kind)]
            left = _last(connection, fleet, returned, _PROMOTED)
        return _read_moves([rows[name] for name in sorted(rows)], left)

    def moves_since(self, fleet: str, at: datetime) -> tuple[KnownGoodMove, ...]:
        """Return every move of the fleet's known-good from that moment on, the oldest first."""
        table = tables.known_good
        wanted = select(*_MOVE).where(table.c.fleet == fleet, table.c.since >= at).order_by(table.c.id)
        with reading(self._engine) as connection:
            return _read_moves(connection.execute(_moves(wanted)).all())

    def record_known_good_batch(self, batch: KnownGoodBatch) -> int:
        """Write down what these gateways go back to from now on; return how many of them that is new for.

        A repeat changes nothing, however late it comes. All gateways are written or none.

        Raises:
            BadInput: There is no such change, or too many gateways.
            Conflict: The change has recorded another release for a gateway, or a later change has moved it.
        """
        with writing(self._engine) as connection:
            return record(connection, batch)


_MOVE = (
    tables.known_good.c.gateway,
    tables.known_good.c.release,
    tables.known_good.c.before,
    tables.known_good.c.change,
    tables.known_good.c.back,
    tables.known_good.c.since,
    tables.changes.c.number,
    tables.changes.c.kind,
    tables.changes.c.release_digest,
)


_PROMOTED = and_(
    tables.changes.c.kind == ChangeKind.UPGRADE.value,
    ~tables.known_good.c.back,
    tables.known_good.c.before != tables.known_good.c.release,
)
"""Whether a row gave its gateway another release, which a rollback takes back."""


def _moves(wanted: "Select[Any]") -> "Select[Any]":
    """Return the question with the change of each row."""
    table, changes = tables.known_good, tables.changes
    return wanted.select_from(table.join(changes, changes.c.name == table.c.change))


def _last(
    connection: Connection, fleet: str, gateways: Sequence[str], which: ColumnElement[bool]
) -> "list[Row[Any]]":
    """Return the last of such rows of each of these gateways, however many they are."""
    table, found = tables.known_good, list["Row[Any]"]()
    for page in _pages(gateways):
        some = table.c.gateway.in_(page)
        last = _moves(select(func.max(table.c.id))).where(table.c.fleet == fleet, some, which)
        wanted = select(*_MOVE).where(table.c.id.in_(last.group_by(table.c.gateway)))
        found += connection.execute(_moves(wanted)).all()
    return found


def _is_return(back: bool, kind: str) -> bool:
    return back or kind == ChangeKind.GO_BACK


def _read_moves(rows: Iterable[Sequence[Any]], left: "Iterable[Row[Any]]" = ()) -> tuple[KnownGoodMove, ...]:
    read = _Reader()
    promotions = {
        row.gateway: Promotion.of_valid(number=row.number, release=read(row.release)) for row in left
    }
    return tuple(
        KnownGoodMove.of_valid(
            gateway=gateway,
            release=read(release),
            before=read(before) if before is not None else None,
            change=change,
            number=number,
            kind=ChangeKind(kind),
            at=since,
            returned=_is_return(back, kind),
            by_name=kind == ChangeKind.GO_BACK and release_digest is not None,
            left=promotions.get(gateway),
        )
        for gateway, release, before, change, back, since, number, kind, release_digest in rows
    )


def forget(connection: Connection, fleet: str, only: Collection[str] | None) -> None:
    """Ensure in the caller's transaction that no gateway of the fleet, or none of these, has a known-good.

    What is recorded next has nothing before it that a way back could lead to.
    """
    table = tables.known_good
    theirs = update(table).where(table.c.fleet == fleet, table.c.newest)
    theirs = theirs if only is None else theirs.where(table.c.gateway.in_(only))
    connection.execute(theirs.values(newest=False))


def record(connection: Connection, batch: KnownGoodBatch) -> int:
    """Write known-good down in the caller's transaction; return for how many gateways that is new."""
    change = row_of(connection, batch.change)
    if change.fleet != batch.fleet:
        raise Conflict(f"{change.name} is a change of {change.fleet}, not of {batch.fleet}")
    table = tables.known_good
    wanted = _newest(batch.fleet, batch.releases, table, tables.changes.c.number)
    wanted = wanted.join(tables.changes, tables.changes.c.name == table.c.change)
    newest = {row.gateway: row for row in connection.execute(wanted)}
    owned = select(table).where(table.c.change == change.name, table.c.gateway.in_(batch.releases))
    own = {row.gateway: row for row in connection.execute(owned)}
    fresh, amended = _news(batch, change, newest, own)
    if not fresh and not amended:
        return 0
    back = batch.back or change.kind == ChangeKind.GO_BACK
    proven_by = dict.fromkeys((fresh | amended).items(), change.name)
    if back:
        proven_by = _promoted(connection, batch.fleet, fresh | amended)
    rows = [
        {
            "fleet": batch.fleet,
            "gateway": gateway,
            "change": change.name,
            "release": said,
            "before": newest[gateway].release if gateway in newest else None,
            "proven_by": proven_by.get((gateway, said)),
            "back": batch.back,
        }
        for gateway, said in fresh.items()
    ]
    _insert(connection, batch.fleet, rows)
    _amend(connection, [(own[name].id, said, proven_by.get((name, said))) for name, said in amended.items()])
    left = [newest[row["gateway"]].proven_by for row in rows if _is_moved(row["before"], row["release"])]
    moved = len(left)
    for gateway, said in amended.items():
        before = own[gateway].before
        moved += _is_moved(before, said) - _is_moved(before, own[gateway].release)
    _count(connection, change.name, moved, Counter(filter(None, left)) if back else Counter())
    releases = dict[str, list[str]]()
    for gateway in [*fresh, *amended]:
        releases.setdefault(batch.releases[gateway].digest, []).append(gateway)
    body = {"back": batch.back, "releases": releases}
    append(connection, PENSTOCK, Via.SYSTEM, "known-good recorded", change.name, body, fleet=batch.fleet)
    return len(fresh) + len(amended)


def _news(
    batch: KnownGoodBatch,
    change: "Row[Any]",
    newest: Mapping[str, "Row[Any]"],
    own: Mapping[str, "Row[Any]"],
) -> tuple[dict[str, str], dict[str, str]]:
    """Return what is told for the first time, and what the change takes back of its own promotion."""
    fresh, amended = dict[str, str](), dict[str, str]()
    for gateway, release in sorted(batch.releases.items()):
        said, mine, now = release.model_dump_json(), own.get(gateway), newest.get(gateway)
        if mine is None:
            if now is not None and now.number > change.number:
                raise Conflict(f"{gateway} was moved by {now.change} after {change.name}")
            fresh[gateway] = said
        elif mine.release == said or (mine.back and not batch.back):
            continue  # told before, or overtaken by the change's own way back
        elif batch.back and mine.newest:
            amended[gateway] = said
        else:
            raise Conflict(f"{change.name} has recorded another release for {gateway}; it has one known-good")
    return fresh, amended


def _insert(connection: Connection, fleet: str, rows: Sequence[Mapping[str, Any]]) -> None:
    if not rows:
        return
    table, gateways = tables.known_good, [row["gateway"] for row in rows]
    older = update(table).where(table.c.fleet == fleet, table.c.gateway.in_(gateways), table.c.newest)
    connection.execute(older.values(newest=False))
    connection.execute(insert(table).values(newest=True, since=datetime.now(UTC)), rows)


def _amend(connection: Connection, rows: Sequence[tuple[int, str, str | None]]) -> None:
    """Take the change's own promotions back; their rows keep their places in the history."""
    if not rows:
        return
    table = tables.known_good
    statement = update(table).where(table.c.id == bindparam("row"))
    statement = statement.values(release=bindparam("said"), proven_by=bindparam("prover"), back=True)
    connection.execute(statement, [{"row": row, "said": said, "prover": by} for row, said, by in rows])


def _count(connection: Connection, change: str, moved: int, taken: Mapping[str, int]) -> None:
    """Keep count of the gateways that the change moved, and of those that it took back from others."""
    table = tables.changes
    counted = update(table).where(table.c.name == change).values(moved=table.c.moved + moved)
    connection.execute(counted)
    for name, count in taken.items():
        values = {"taken_back": table.c.taken_back + count, "taken_back_by": change}
        connection.execute(update(table).where(table.c.name == name).values(values))


def _promoted(connection: Connection, fleet: str, releases: Mapping[str, str]) -> dict[tuple[str, str], str]:
    """Return which change promoted these releases on these gateways last."""
    table = tables.known_good
    wanted = select(table.c.gateway, table.c.release, table.c.proven_by).where(
        table.c.fleet == fleet,
        table.c.gateway.in_(releases),
        table.c.release.in_(set(releases.values())),
        table.c.proven_by.is_not(None),
    )
    rows = connection.execute(wanted.order_by(table.c.id))
    return {(row.gateway, row.release): row.proven_by for row in rows}


def _newest(fleet: str, gateways: Collection[str] | None, *columns: Any) -> "Select[Any]":
    """Return the question for the newest rows of these gateways, or of all when None."""
    table = tables.known_good
    wanted = select(*columns).select_from(table).where(table.c.fleet == fleet, table.c.newest)
    if gateways is None:
        return wanted
    if len(gateways) > MOST:
        raise BadInput(f"{len(gateways)} gateways at once; ask for at most {MOST}")
    return wanted.where(table.c.gateway.in_(gateways))


def _newest_by_page(fleet: str, gateways: Collection[str] | None, *columns: Any) -> "list[Select[Any]]":
    """Return the questions for the newest rows of these gateways, however many they are, or of all."""
    if gateways is None:
        return [_newest(fleet, None, *columns)]
    return [_newest(fleet, page, *columns) for page in _pages(gateways)]


def _pages(gateways: Collection[str]) -> list[list[str]]:
    names = sorted(gateways)
    return [names[first : first + MOST] for first in range(0, len(names), MOST)]


def _is_moved(before: str | None, release: str) -> bool:
    return before is not None and before != release


class _Reader:
    """Reads releases; a fleet has thousands of gateways and a few releases."""

    def __init__(self) -> None:
        self._known = dict[str, ReleaseRef]()

    def __call__(self, said: str) -> ReleaseRef:
        if said not in self._known:
            self._known[said] = ReleaseRef.model_validate_json(said)
        return self._known[said]
