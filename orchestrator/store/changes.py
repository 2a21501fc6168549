"""Changes: every one has a name of its own, given here, and one line in the history of its fleet."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, delete, func, insert, or_, select, update

from orchestrator.store import tables
from orchestrator.store.book import Book
from orchestrator.store.database import reading, writing
from orchestrator.store.plans import header_of
from orchestrator.store.record import append
from policies.history import (
    OrderedReloads,
    UnfinishedSettings,
    ordered_reloads,
    reload_to_take_back,
    standing,
    unfinished_change,
    unfinished_settings,
)
from policies.model.change import (
    PENSTOCK,
    RELOADS,
    ChangeEnding,
    ChangeKind,
    ChangeOpening,
    ChangeRecord,
    HistoryRow,
    Outcome,
    UnfinishedChange,
)
from policies.model.errors import BadInput, ChangeEnded, Conflict, Unknown
from policies.model.offer import Offer, Verb
from policies.model.people import Via
from policies.model.value import Digest, digest_of
from policies.planning.cohorts import BEGUN
from policies.status.told import Told

_LONGEST_NAME = 63
_LATER_ENDS = {
    Outcome.PROMOTED: (Outcome.ROLLED_BACK, Outcome.ROLLBACK_INCOMPLETE, Outcome.ABORTED),
    Outcome.ROLLBACK_INCOMPLETE: (Outcome.ROLLED_BACK,),
}
"""What may replace an end: an operator asked for the rollback while it was being written, or the gateways
that a rollback had ended without are back."""
_PAGE = 20
_LEADING = (ChangeKind.UPGRADE.value, ChangeKind.GO_BACK.value)
MOST_STANDING = 50
"""Promotions of a fleet that may still be watched; rings of one release are a few."""

MOST_INCOMPLETE = 20
"""Incomplete rollbacks of a fleet of which each scan finds out whether they are complete."""

"""Kinds of changes that lead a whole fleet from one release to another."""


class Changes(Book):
    """What was done to fleets, is being done, and what is left of it."""

    def open_change(self, opening: ChangeOpening) -> str:
        """Write down that a change begins and return its name, which no other change ever has.

        Raises:
            BadInput: The fleet's name leaves no room for a number.
            Conflict: The key belongs to a change that was opened otherwise.
            ChangeEnded: The key belongs to a change that has its end.
        """
        table = tables.changes
        with writing(self._engine) as connection:
            known = connection.execute(select(table).where(table.c.key == opening.key)).one_or_none()
            if known is not None:
                _refuse_another(opening, known)
                _refuse_ended(known)
                return str(known.name)
            return begin(connection, opening)

    def close_change(self, ending: ChangeEnding) -> None:
        """Write down how a change ended; of a later end only that it went back after all changes anything.

        Raises:
            Unknown: There is no such change.
        """
        with writing(self._engine) as connection:
            end(connection, ending)

    def require_open(self, name: str) -> None:
        """Return if the change has no end yet.

        Raises:
            Unknown: There is no such change.
            ChangeEnded: It has ended.
        """
        with reading(self._engine) as connection:
            _refuse_ended(row_of(connection, name))

    def open_changes(self, fleet: str) -> tuple[str, ...]:
        """Return the names of the fleet's changes that have not ended, the oldest first."""
        table = tables.changes
        with reading(self._engine) as connection:
            wanted = select(table.c.name).where(table.c.fleet == fleet, table.c.outcome.is_(None))
            return tuple(connection.execute(wanted.order_by(table.c.number)).scalars())

    def change(self, name: str) -> ChangeRecord:
        """Return one change; BadInput when there is none of that name."""
        with reading(self._engine) as connection:
            return _record(row_of(connection, name))

    def lock_passed_on(self, change: str) -> datetime | None:
        """Return when the next change got the fleet's lock, None where this one may have it still.

        From then on the workflow of this change is gone, whether or not it has an end here. A change that it
        lets in has no lock.
        """
        with reading(self._engine) as connection:
            return lock_passed_on(connection, row_of(connection, change))

    def newest_number(self, fleet: str) -> int:
        """Return the number of the fleet's newest change, 0 when there never was one."""
        with reading(self._engine) as connection:
            return newest_number(connection, fleet)

    def newest_run(self, fleet: str) -> str | None:
        """Return the engine's own name of the fleet's newest change, None where it has none."""
        table = tables.changes
        wanted = select(table.c.run).where(table.c.fleet == fleet, _shown())
        wanted = wanted.order_by(table.c.number.desc()).limit(1)
        with reading(self._engine) as connection:
            return connection.execute(wanted).scalar_one_or_none() or None

    def change_of_key(self, key: str) -> str | None:
        """Return the name of the change that was opened under this key, None when there is none."""
        table = tables.changes
        with reading(self._engine) as connection:
            wanted = select(table.c.name).where(table.c.key == key)
            return connection.execute(wanted).scalar_one_or_none()

    def last_change(self, fleet: str) -> ChangeRecord | None:
        """Return the fleet's newest change, None when there never was one.

        What penstock does by itself beside a change is no newer change: that one goes on, or waits.
        """
        table = tables.changes
        wanted = select(table).where(table.c.fleet == fleet, _shown())
        with reading(self._engine) as connection:
            row = connection.execute(wanted.order_by(table.c.number.desc()).limit(1)).one_or_none()
        return _record(row) if row is not None else None

    def fleets_with_changes(self) -> tuple[str, ...]:
        """Return the fleets that ever had a change, by name."""
        fleet = tables.changes.c.fleet
        with reading(self._engine) as connection:
            return tuple(connection.execute(select(fleet).distinct().order_by(fleet)).scalars())

    def newest_changes(self) -> Mapping[str, ChangeRecord]:
        """Return the newest change of every fleet that ever had one."""
        table = tables.changes
        newest = select(table.c.fleet, func.max(table.c.number).label("number"))
        last = newest.where(_shown()).group_by(table.c.fleet).subquery()
        which = (table.c.fleet == last.c.fleet) & (table.c.number == last.c.number)
        with reading(self._engine) as connection:
            rows = connection.execute(select(table).join(last, which))
            return {row.fleet: _record(row) for row in rows}

    def history(
        self, fleet: str, limit: int | None = None, before: str | None = None
    ) -> tuple[HistoryRow, ...]:
        """Return the fleet's changes with what is left of each, the newest first.

        Args:
            fleet: Whose.
            limit: How many at most; all when left out.
            before: Only those older than the change of this name, to read page after page.

        Raises:
            Unknown: The fleet has no change of the name `before`.
        """
        table = tables.changes
        wanted = select(table).where(table.c.fleet == fleet).order_by(table.c.number.desc()).limit(limit)
        with reading(self._engine) as connection:
            if before is not None:
                known = select(table).where(table.c.name == before, table.c.fleet == fleet)
                edge = connection.execute(known).one_or_none()
                if edge is None:
                    raise Unknown(f"no change {before} of {fleet}", Offer(verb=Verb.HISTORY, fleet=fleet))
                wanted = wanted.where(table.c.number < edge.number)
            records = [_record(row) for row in connection.execute(wanted)]
        return tuple(HistoryRow(**dict(record), standing=standing(record)) for record in records)

    def went_back(self, fleet: str, release: Digest) -> ChangeRecord | None:
        """Return the newest change that the fleet went back from this release in, None without one."""
        table = tables.changes
        gone = (Outcome.ROLLED_BACK.value, Outcome.ROLLBACK_INCOMPLETE.value)
        wanted = (
            select(table)
            .where(table.c.fleet == fleet, table.c.release_digest == release)
            .where(table.c.kind == ChangeKind.UPGRADE.value, table.c.outcome.in_(gone))
            .order_by(table.c.number.desc())
            .limit(1)
        )
        with reading(self._engine) as connection:
            row = connection.execute(wanted).one_or_none()
            return _record(row) if row is not None else None

    def newest_to(self, fleet: str, release: Digest) -> ChangeRecord | None:
        """Return the newest change that led to this release and was not refused, None without one."""
        table = tables.changes
        led = (table.c.fleet == fleet, table.c.release_digest == release, table.c.kind.in_(_LEADING))
        kept = table.c.outcome.is_(None) | (table.c.outcome != Outcome.REFUSED.value)
        return self._newest(*led, kept)

    def newest_upgrade(self, fleet: str) -> ChangeRecord | None:
        """Return the fleet's newest upgrade that was not refused, None without one."""
        table = tables.changes
        kept = table.c.outcome.is_(None) | (table.c.outcome != Outcome.REFUSED.value)
        return self._newest(table.c.fleet == fleet, table.c.kind == ChangeKind.UPGRADE.value, kept)

    def newest_taken_back(self, fleet: str) -> ChangeRecord | None:
        """Return the upgrade of the fleet that was taken back last after its promotion, None without one."""
        table = tables.changes
        taker = table.alias()
        wanted = (
            select(table)
            .join(taker, taker.c.name == table.c.taken_back_by)
            .where(table.c.fleet == fleet, table.c.kind == ChangeKind.UPGRADE.value)
            .order_by(taker.c.number.desc(), table.c.number.desc())
            .limit(1)
        )
        with reading(self._engine) as connection:
            row = connection.execute(wanted).one_or_none()
            return _record(row) if row is not None else None

    def newest_away_from(self, since: ChangeRecord, release: Digest) -> ChangeRecord | None:
        """Return the newest rollback since that change by which gateways left the release, or None."""
        table, known = tables.changes, tables.known_good
        named = f'"digest":"{release}"'
        left = (
            select(known.c.change)
            .where(known.c.fleet == since.fleet, known.c.before.contains(named, autoescape=True))
            .where(~known.c.release.contains(named, autoescape=True))
        )
        later = (table.c.fleet == since.fleet, table.c.number > since.number, table.c.name.in_(left))
        return self._newest(*later, table.c.kind == ChangeKind.GO_BACK.value)

    def standing_promotions(self, fleet: str) -> tuple[ChangeRecord, ...]:
        """Return the newest promoted upgrades that were not taken back wholly, the newest first."""
        table = tables.changes
        promoted = (table.c.kind == ChangeKind.UPGRADE.value, table.c.outcome == Outcome.PROMOTED.value)
        standing = (table.c.fleet == fleet, *promoted, table.c.moved > table.c.taken_back)
        wanted = select(table).where(*standing).order_by(table.c.number.desc()).limit(MOST_STANDING)
        with reading(self._engine) as connection:
            return tuple(_record(row) for row in connection.execute(wanted))

    def last_move(self, fleet: str) -> ChangeRecord | None:
        """Return the newest change that gave gateways of the fleet another known-good, None without one."""
        table = tables.changes
        return self._newest(table.c.fleet == fleet, table.c.moved > 0, table.c.kind.in_(_LEADING))

    def incomplete_ends(self, fleet: str) -> tuple[ChangeRecord, ...]:
        """Return the newest changes of the fleet that ended with an incomplete rollback, the newest first."""
        table = tables.changes
        ended = table.c.outcome == Outcome.ROLLBACK_INCOMPLETE.value
        wanted = select(table).where(table.c.fleet == fleet, ended).order_by(table.c.number.desc())
        with reading(self._engine) as connection:
            return tuple(_record(row) for row in connection.execute(wanted.limit(MOST_INCOMPLETE)))

    def _newest(self, *conditions: ColumnElement[bool]) -> ChangeRecord | None:
        table = tables.changes
        wanted = select(table).where(*conditions).order_by(table.c.number.desc()).limit(1)
        with reading(self._engine) as connection:
            row = connection.execute(wanted).one_or_none()
            return _record(row) if row is not None else None

    def reload_to_take_back(self, fleet: str, named: str | None) -> ChangeRecord | None:
        """Return the reload that a rollback takes back; see `policies.history.reload_to_take_back`."""
        with reading(self._engine) as connection, _newest_first(connection, fleet) as records:
            return reload_to_take_back(records, named)

    def ordered_reloads(self, fleet: str) -> OrderedReloads:
        """Return the reloads of credentials that gateways may have missed; see `policies.history`."""
        with (
            reading(self._engine) as connection,
            _newest_first(connection, fleet, ChangeKind.RELOAD) as records,
        ):
            return ordered_reloads(records, partial(_is_of_changed, connection))

    def unfinished_settings(self, fleet: str) -> UnfinishedSettings | None:
        """Return the change of settings that some gateways may have missed; see `policies.history`."""
        with (
            reading(self._engine) as connection,
            _newest_first(connection, fleet, ChangeKind.CONFIGURE) as records,
        ):
            return unfinished_settings(records)

    def installations_since(self, change: ChangeRecord) -> list[Digest]:
        """Return the plans of the fleet's installations that began after that change."""
        table = tables.changes
        later = (table.c.fleet == change.fleet, table.c.number > change.number, table.c.plan.is_not(None))
        wanted = select(table.c.plan).where(table.c.kind == ChangeKind.INSTALL.value, *later)
        with reading(self._engine) as connection:
            return list(connection.scalars(wanted.order_by(table.c.number)))

    def repeats_of(self, change: ChangeRecord) -> list[Digest]:
        """Return the plans by which penstock brought that change to gateways that had missed it."""
        table = tables.changes
        repeats = (table.c.fleet == change.fleet, table.c.repeats == change.name, table.c.plan.is_not(None))
        wanted = select(table.c.plan).where(*repeats)
        with reading(self._engine) as connection:
            return list(connection.scalars(wanted.order_by(table.c.number)))

    def unfinished_change(self, fleet: str, ended: str | None = None) -> UnfinishedChange | None:
        """Return the change that the fleet's next rollback completes; None when every one has ended well.

        `ended` is a change that ends for that rollback.
        """
        with reading(self._engine) as connection, _newest_first(connection, fleet) as records:
            return unfinished_change(records, partial(_has_moved, connection), ended=ended)

    def has_rollback(self, fleet: str) -> bool:
        """Return whether a rollback of the fleet's release may have something to do, or needs a name."""
        table, states, known = tables.changes, tables.gateway_states, tables.known_good
        stands = select(table.c.name).where(
            table.c.fleet == fleet,
            table.c.kind == ChangeKind.UPGRADE.value,
            table.c.moved > table.c.taken_back,
        )
        same = (known.c.fleet == states.c.fleet) & (known.c.gateway == states.c.gateway) & known.c.newest
        is_known_good = (func.length(states.c.takes) > 0) & known.c.release.contains(states.c.takes)
        elsewhere = select(states.c.gateway).join(known, same).where(states.c.fleet == fleet, ~is_known_good)
        with reading(self._engine) as connection:
            if any(connection.execute(one.limit(1)).first() is not None for one in (stands, elsewhere)):
                return True
        return self.unfinished_change(fleet) is not None


def _shown() -> ColumnElement[bool]:
    """Return whether a change is shown as the newest: what penstock does beside another one is not."""
    return or_(tables.changes.c.beside.is_(None), tables.changes.c.requested_by != PENSTOCK)


def lock_passed_on(connection: Connection, change: "Row[Any]") -> datetime | None:
    """Return when the next change got the fleet's lock; see `Changes.lock_passed_on`."""
    table = tables.changes
    later = (table.c.fleet == change.fleet, table.c.number > change.number, table.c.beside.is_(None))
    began: datetime | None = connection.scalar(select(func.min(table.c.began)).where(*later))
    return began


def may_have_moved() -> ColumnElement[bool]:
    """Return whether sessions may have moved by a gateway's result.

    A batch records its gateways before it begins, and what became of each at its end. A gateway without a
    row was never tried; one that has only begun may have been.
    """
    results = tables.gateway_results
    return or_(results.c.started.is_not(None), results.c.state == BEGUN)


def _has_moved(connection: Connection, record: ChangeRecord) -> bool:
    """Return whether an upgrade may have moved sessions or known-good, by all that is written down of it."""
    results, stories = tables.gateway_results, tables.stories
    on_it = select(results.c.gateway).where(
        results.c.change == record.name, or_(may_have_moved(), results.c.state.in_(("on trial", "kept")))
    )
    if record.moved or connection.execute(on_it.limit(1)).first() is not None:
        return True
    told = connection.execute(select(stories.c.told).where(stories.c.change == record.name)).scalar()
    return told is not None and Told.model_validate_json(told).may_have_moved


def _is_of_changed(connection: Connection, record: ChangeRecord) -> bool:
    """Return whether a reload asked only gateways whose hosts had other credentials, by its plan."""
    header = header_of(connection, record.plan) if record.plan is not None else None
    return header is not None and header.only_changed


def begin(connection: Connection, opening: ChangeOpening, name: str | None = None, *, above: int = 0) -> str:
    """Write a change down in the caller's transaction, under the next free name unless one is given.

    Its number is higher than that of every other change, and than `above`.
    """
    number = 1 + max(newest_number(connection, opening.fleet), above)
    name = name or next_name(connection, opening.fleet, number)
    values = opening.model_dump()
    connection.execute(
        insert(tables.changes).values(**values, name=name, number=number, began=datetime.now(UTC))
    )
    if opening.plan is not None:  # one start uses up what people have approved
        connection.execute(delete(tables.approvals).where(tables.approvals.c.plan == opening.plan))
    body = {key: value for key, value in values.items() if value is not None and key != "requested_by"}
    append(connection, opening.requested_by, Via.SYSTEM, "change began", name, body, fleet=opening.fleet)
    return name


def end(connection: Connection, ending: ChangeEnding) -> None:
    """Write down in the caller's transaction how a change ended; a late repeat changes nothing.

    Once it went back it never was promoted, whatever goes on with it later: the engine can be told to
    repeat a workflow by whoever reaches it.
    """
    table = tables.changes
    row = row_of(connection, ending.change)
    if row.outcome is not None and ending.outcome not in _LATER_ENDS.get(Outcome(row.outcome), ()):
        return
    body = {
        "kind": row.kind,
        "outcome": ending.outcome.value,
        "sentence": ending.sentence,
        "moved": row.moved,
    }
    key = f"end of {row.name}: {digest_of(ending.model_dump_json().encode())}"
    if append(connection, PENSTOCK, Via.SYSTEM, "change ended", row.name, body, key, fleet=row.fleet):
        values = {"outcome": ending.outcome.value, "sentence": ending.sentence, "ended": datetime.now(UTC)}
        other = {"release": ending.release, "release_digest": None} if ending.release else {}
        connection.execute(update(table).where(table.c.name == row.name).values(values | other))
        if row.kind in RELOADS and ending.outcome is Outcome.ROLLED_BACK and row.cause is not None:
            taken = update(table).where((table.c.name == row.cause) | (table.c.repeats == row.cause))
            connection.execute(taken.values(taken_back_by=row.name))


def next_name(connection: Connection, fleet: str, number: int) -> str:
    """Return the first name from that number on that no change has, in the transaction that takes it.

    Raises:
        BadInput: The fleet's name leaves no room for a number.
    """
    table = tables.changes
    while True:
        name = f"{fleet}-{number}"
        if len(name) > _LONGEST_NAME:
            raise BadInput(f"{fleet} is too long a name for a fleet: its changes cannot be numbered")
        if connection.execute(select(table.c.name).where(table.c.name == name)).first() is None:
            return name
        number += 1


def row_of(connection: Connection, name: str) -> "Row[Any]":
    """Return a change's row; BadInput when there is none."""
    table = tables.changes
    row = connection.execute(select(table).where(table.c.name == name)).one_or_none()
    if row is None:
        raise Unknown(f"no change {name} in the ledger", Offer(verb=Verb.HISTORY))
    return row


@contextmanager
def _newest_first(
    connection: Connection, fleet: str, kind: ChangeKind | None = None
) -> Iterator[Iterator[ChangeRecord]]:
    """Give the fleet's changes, or those of one kind, page by page: no more are read than are looked at."""
    table = tables.changes
    wanted = select(table).where(table.c.fleet == fleet).order_by(table.c.number.desc())
    if kind is not None:
        wanted = wanted.where(table.c.kind == kind.value)
    with connection.execute(wanted.execution_options(yield_per=_PAGE)) as rows:
        yield (_record(row) for row in rows)


def newest_number(connection: Connection, fleet: str) -> int:
    """Return the number of the fleet's newest change in the caller's transaction, 0 without any."""
    wanted = select(func.max(tables.changes.c.number)).where(tables.changes.c.fleet == fleet)
    return connection.execute(wanted).scalar_one() or 0


def _refuse_another(opening: ChangeOpening, known: "Row[Any]") -> None:
    asked = opening.model_dump()
    if not known.run:  # opened before runs were written down
        del asked["run"]
    differing = sorted(field for field, value in asked.items() if getattr(known, field) != value)
    if differing:
        raise Conflict(
            f"{known.name} was opened under the same key with another {' and '.join(differing)}; "
            "a new change needs a key of its own"
        )


def _refuse_ended(known: "Row[Any]") -> None:
    if known.outcome is not None:
        raise ChangeEnded(f"{known.name} has ended ({known.outcome}); what is wanted now is a new change")


def _record(row: "Row[Any]") -> ChangeRecord:
    return ChangeRecord(**{field: getattr(row, field) for field in ChangeRecord.model_fields})
