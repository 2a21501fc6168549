"""Notices: what people are told, and the outbox with one row for each sink that is to have it.

A look through the ledger is one transaction with how far it has come, so a repeat after a kill at any line
finds the same keys. A row that is sent is claimed first, for a while: a worker that dies in between leaves it
to the next, and the receiver tells the repeat by its key.
"""

import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, and_, case, delete, exists, func, insert, or_, select, update

from orchestrator.store import tables
from orchestrator.store.book import Book
from orchestrator.store.database import reading, writing
from orchestrator.store.record import append, head_of
from policies.model.errors import Conflict, Unknown
from policies.model.notice import Delivery, Notice, NoticeLevel, NoticeRow, Occasion
from policies.model.people import Via
from policies.notices.escalation import ENDING

_AT_ONCE = 500
"""Keys that one statement names."""


class Addressed(NamedTuple):
    """A notice with whom it goes to and what becomes of it."""

    notice: Notice
    subject: str
    waits: bool
    """Whether it is so until it is settled."""
    sinks: Mapping[str, tuple[Occasion, datetime]]
    """Why each of them is told, and when."""


class Waiting(NamedTuple):
    """A notice that is not settled."""

    notice: Notice
    subject: str
    seq: int
    acknowledged: bool
    escalations: int
    escalated: datetime | None


class SinkHealth(NamedTuple):
    """How one sink takes what it is told."""

    waiting: int
    """Notices that are due and were not delivered."""
    oldest: datetime | None
    """Since when the first of them waits."""
    failing: int
    """Those that were tried in vain."""
    given_up: int
    error: str
    """What kept the newest that failed."""


class Notices(Book):
    """The outbox, and how far the ledger was looked through for it."""

    # --- what people are to be told ------------------------------------------------------

    def begin_notice_look(self, name: str, holder: str, lasts: timedelta) -> str | None:
        """Return how far the last look came, empty before the first; None while another one looks."""
        table, now = tables.notice_looks, datetime.now(UTC)
        with writing(self._engine) as connection:
            row = connection.execute(select(table).where(table.c.name == name)).one_or_none()
            held = {"holder": holder, "until": now + lasts}
            if row is None:
                connection.execute(insert(table).values(name=name, cursor="", **held))
                return ""
            if row.until > now and row.holder != holder:
                return None
            connection.execute(update(table).where(table.c.name == name).values(held))
            return str(row.cursor)

    def end_notice_look(
        self, name: str, holder: str, cursor: str, found: Sequence[Addressed]
    ) -> tuple[str, ...]:
        """Keep what a look has found together with how far it came; return the keys that are new.

        From then on anybody may look.

        Raises:
            Conflict: Another one looks since; nothing was kept.
        """
        looks, now = tables.notice_looks, datetime.now(UTC)
        mine = and_(looks.c.name == name, looks.c.holder == holder)
        with writing(self._engine) as connection:
            if connection.execute(update(looks).where(mine).values(cursor=cursor, until=now)).rowcount == 0:
                raise Conflict("another worker looks for notices now")
            return _add(connection, found)

    def add_notices(self, found: Sequence[Addressed]) -> tuple[str, ...]:
        """Keep these notices, each once; return the keys that are new."""
        with writing(self._engine) as connection:
            return _add(connection, found)

    def waiting_notices(self, subjects: Collection[str] | None = None) -> tuple[Waiting, ...]:
        """Return what waits, about these subjects or about anything, the oldest first."""
        table = tables.notices
        wanted = select(table).where(table.c.waits, table.c.settled.is_(None)).order_by(table.c.at)
        if subjects is not None:
            wanted = wanted.where(table.c.subject.in_(sorted(subjects)))
        with reading(self._engine) as connection:
            return tuple(_waiting(row) for row in connection.execute(wanted))

    def waiting_notices_of(self, fleet: str) -> tuple[Waiting, ...]:
        """Return what waits of the fleet, the oldest first."""
        table = tables.notices
        wanted = select(table).where(table.c.waits, table.c.settled.is_(None), table.c.fleet == fleet)
        with reading(self._engine) as connection:
            return tuple(_waiting(row) for row in connection.execute(wanted.order_by(table.c.at)))

    def notice_counts(self, subjects: Collection[str]) -> Mapping[tuple[str, str], int]:
        """Return how often each of these subjects was in each state that people were told of."""
        table = tables.notices
        wanted = select(table.c.subject, table.c.state, func.count()).group_by(table.c.subject, table.c.state)
        with reading(self._engine) as connection:
            rows = connection.execute(wanted.where(table.c.subject.in_(sorted(subjects))))
            return {(subject, state): int(count) for subject, state, count in rows}

    def sinks_told(self, keys: Collection[str]) -> Mapping[str, frozenset[str]]:
        """Return which sinks each of these notices goes to."""
        table = tables.notice_deliveries
        found: dict[str, set[str]] = {}
        wanted = select(table.c.notice, table.c.sink).where(table.c.notice.in_(sorted(keys)))
        with reading(self._engine) as connection:
            for key, sink in connection.execute(wanted):
                found.setdefault(key, set()).add(sink)
        return {key: frozenset(sinks) for key, sinks in found.items()}

    def escalate_notice(self, key: str, sink: str | None, due: datetime) -> None:
        """Count one more step of a page that nobody acknowledged, and have that sink told, too."""
        table = tables.notices
        with writing(self._engine) as connection:
            row = connection.execute(select(table).where(table.c.key == key)).one_or_none()
            if row is None or row.settled is not None or row.acknowledged is not None:
                return
            step = {"escalations": row.escalations + 1, "escalated": due}
            connection.execute(update(table).where(table.c.key == key).values(step))
            if sink is not None:
                _deliver(connection, row.key, row.fleet, row.level, {sink: (Occasion.SAID, due)}, due)

    def acknowledge_notice(self, key: str, person: str, via: Via) -> NoticeRow:
        """Write down that this person has it: nobody else is woken; a repeat changes nothing.

        Raises:
            Unknown: There is no such notice.
        """
        table, deliveries = tables.notices, tables.notice_deliveries
        now = datetime.now(UTC)
        with writing(self._engine) as connection:
            row = connection.execute(select(table).where(table.c.key == key)).one_or_none()
            if row is None:
                raise Unknown(f"there is no notice {key}; penstock notice list shows them")
            if row.acknowledged is None:
                which = or_(table.c.key == key, table.c.key == f"{key}{ENDING}")
                done = {"acknowledged": now, "acknowledged_by": person}
                connection.execute(update(table).where(which, table.c.acknowledged.is_(None)).values(done))
                told = and_(
                    or_(deliveries.c.notice == key, deliveries.c.notice == f"{key}{ENDING}"),
                    deliveries.c.delivered.is_not(None),
                    deliveries.c.level == NoticeLevel.PAGE.value,
                    deliveries.c.due.is_(None),
                )
                again = {"due": now, "occasion": Occasion.ACKNOWLEDGED.value, "tries": 0, "claim": None}
                if row.settled is None:
                    connection.execute(update(deliveries).where(told).values(again))
                append(connection, person, via, "notice acknowledged", key, {}, fleet=row.fleet)
            found = Notice.model_validate_json(row.body)
        return NoticeRow(
            notice=found,
            sink="all",
            settled=row.settled,
            acknowledged=row.acknowledged or now,
            acknowledged_by=row.acknowledged_by or person,
        )

    # --- what is on its way --------------------------------------------------------------

    def claim_notices(self, sink: str, most: int, lasts: timedelta) -> tuple[str, tuple[Delivery, ...]]:
        """Return what is due at the sink, nobody else's for so long, with the claim that says so."""
        table, claim, now = tables.notice_deliveries, secrets.token_hex(8), datetime.now(UTC)
        with writing(self._engine) as connection:
            rows = connection.execute(_due(sink, now).limit(most)).all()
            if rows:
                mine = and_(table.c.sink == sink, table.c.notice.in_([row.key for row in rows]))
                connection.execute(update(table).where(mine).values(due=now + lasts, claim=claim))
            return claim, _deliveries(connection, sink, rows)

    def outbox(self, sink: str, most: int, fleets: Collection[str] | None = None) -> tuple[Delivery, ...]:
        """Return what a sink that asks by itself has not acknowledged yet, the oldest first."""
        wanted = _due(sink, datetime.now(UTC))
        if fleets is not None:
            wanted = wanted.where(tables.notice_deliveries.c.fleet.in_(sorted(fleets)))
        with reading(self._engine) as connection:
            return _deliveries(connection, sink, connection.execute(wanted.limit(most)).all())

    def notices_delivered(
        self,
        sink: str,
        keys: Collection[str],
        *,
        claim: str | None = None,
        repeat: timedelta | None = None,
        fleets: Collection[str] | None = None,
    ) -> int:
        """Write down that the sink has these; return of how many that was new.

        Args:
            sink: Which.
            keys: Of which notices.
            claim: Whose turn it was; what another one sends now stays that one's.
            repeat: After how long the sink is told again while it is still so; never when left out.
            fleets: Only those of these fleets.
        """
        table, notices, now = tables.notice_deliveries, tables.notices, datetime.now(UTC)
        which = [table.c.sink == sink, table.c.notice.in_(sorted(keys)), table.c.due.is_not(None)]
        if claim is not None:
            which.append(table.c.claim == claim)
        if fleets is not None:
            which.append(table.c.fleet.in_(sorted(fleets)))
        with writing(self._engine) as connection:
            done = {"delivered": func.coalesce(table.c.delivered, now), "due": None, "claim": None}
            values = done | {"error": "", "tries": 0}
            count = connection.execute(update(table).where(*which).values(values)).rowcount
            if repeat is not None:
                still = exists().where(
                    notices.c.key == table.c.notice, notices.c.waits, notices.c.settled.is_(None)
                )
                again = {"due": now + repeat, "occasion": Occasion.REPEATED.value}
                mine = [table.c.sink == sink, table.c.notice.in_(sorted(keys)), still]
                mine.append(table.c.occasion != Occasion.SETTLED.value)
                connection.execute(update(table).where(*mine).values(again))
            return int(count)

    def notice_failed(
        self, sink: str, key: str, claim: str, error: str, again: datetime | None, *, tried: bool = True
    ) -> None:
        """Write down that the sink did not take it, and when it is tried again: never when None."""
        table, now = tables.notice_deliveries, datetime.now(UTC)
        which = (table.c.sink == sink, table.c.notice == key, table.c.claim == claim)
        said = {"due": again, "claim": None, "given_up": None if again else now}
        if tried:
            said |= {"error": error, "tries": table.c.tries + 1}
        with writing(self._engine) as connection:
            connection.execute(update(table).where(*which).values(said))

    def fold_notices(self, sink: str, keys: Collection[str], into: Addressed, due: datetime) -> None:
        """Have one notice in place of these at the sink; what was delivered meanwhile is left alone."""
        table = tables.notice_deliveries
        still = (table.c.sink == sink, table.c.notice.in_(sorted(keys)), table.c.delivered.is_(None))
        with writing(self._engine) as connection:
            count = connection.execute(select(func.sum(table.c.stands_for)).where(*still)).scalar_one() or 0
            folded = {"due": None, "claim": None, "folded_into": into.notice.key}
            connection.execute(update(table).where(*still).values(folded))
            _add(connection, [into])
            which = (table.c.sink == sink, table.c.notice == into.notice.key)
            connection.execute(update(table).where(*which).values(stands_for=int(count), due=due))

    # --- what people ask -----------------------------------------------------------------

    def notice_rows(
        self, fleets: Collection[str], limit: int, *, open_only: bool = False
    ) -> tuple[NoticeRow, ...]:
        """Return what sinks were told of these fleets and what waits, the newest first."""
        deliveries, notices = tables.notice_deliveries, tables.notices
        wanted = (
            select(notices, *_told_columns())
            .join(deliveries, deliveries.c.notice == notices.c.key)
            .where(deliveries.c.fleet.in_(sorted(fleets)))
            .order_by(notices.c.at.desc(), notices.c.key, deliveries.c.sink)
            .limit(limit)
        )
        if open_only:
            undelivered = and_(deliveries.c.due.is_not(None), deliveries.c.delivered.is_(None))
            wanted = wanted.where(or_(undelivered, deliveries.c.given_up.is_not(None)))
        with reading(self._engine) as connection:
            return tuple(_row(row) for row in connection.execute(wanted))

    def notice(self, key: str) -> Notice:
        """Return one notice.

        Raises:
            Unknown: There is none of that key.
        """
        table = tables.notices
        with reading(self._engine) as connection:
            body = connection.execute(select(table.c.body).where(table.c.key == key)).scalar_one_or_none()
        if body is None:
            raise Unknown(f"there is no notice {key}; penstock notice list shows them")
        return Notice.model_validate_json(body)

    def sink_health(self) -> Mapping[str, SinkHealth]:
        """Return how every sink takes what it is told, of those that were ever told of anything waiting."""
        table, now = tables.notice_deliveries, datetime.now(UTC)
        waits = and_(table.c.due.is_not(None), table.c.due <= now, table.c.delivered.is_(None))
        failing = and_(table.c.due.is_not(None), table.c.tries > 0)
        counted = (
            func.sum(_one(waits)),
            func.min(table.c.at, type_=tables.Moment()).filter(waits | failing),
            func.sum(_one(failing)),
            func.sum(_one(table.c.given_up.is_not(None))),
            func.max(table.c.error),
        )
        open_rows = or_(table.c.due.is_not(None), table.c.given_up.is_not(None))
        wanted = select(table.c.sink, *counted).where(open_rows).group_by(table.c.sink)
        with reading(self._engine) as connection:
            return {
                sink: SinkHealth(int(waiting), oldest, int(bad), int(gone), str(error or ""))
                for sink, waiting, oldest, bad, gone, error in connection.execute(wanted)
            }

    def expire_notices(self, before: datetime, unsent_before: datetime) -> int:
        """Let go of what is over since that time, and of what no sink took for so long; return how many rows.

        What could not be told is given up first, so that it is seen once more.
        """
        deliveries, notices = tables.notice_deliveries, tables.notices
        with writing(self._engine) as connection:
            stale = (deliveries.c.due.is_not(None), deliveries.c.delivered.is_(None))
            lost = update(deliveries).where(*stale, deliveries.c.at < unsent_before)
            given = {"due": None, "claim": None, "given_up": datetime.now(UTC)}
            connection.execute(lost.values(given))
            old = (notices.c.at < before, or_(notices.c.waits.is_(False), notices.c.settled.is_not(None)))
            keys = [*connection.execute(select(notices.c.key).where(*old).limit(_AT_ONCE)).scalars()]
            connection.execute(delete(deliveries).where(deliveries.c.notice.in_(keys)))
            return int(connection.execute(delete(notices).where(notices.c.key.in_(keys))).rowcount)


def _add(connection: Connection, found: Sequence[Addressed]) -> tuple[str, ...]:
    table, deliveries = tables.notices, tables.notice_deliveries
    seq, new = head_of(connection).seq, []
    known = _known(connection, [one.notice.key for one in found])
    for one in found:
        notice = one.notice
        if notice.key in known:
            continue
        known.add(notice.key)
        new.append(notice.key)
        connection.execute(
            insert(table).values(
                key=notice.key,
                fleet=notice.fleet,
                change=notice.change,
                subject=one.subject,
                state=notice.state,
                level=notice.level.value,
                body=notice.model_dump_json(),
                at=notice.at,
                seq=seq,
                waits=one.waits,
            )
        )
        over = [key for key in (notice.resolves, *notice.also_resolves) if key is not None]
        if over:
            settled = and_(table.c.key.in_(over), table.c.settled.is_(None))
            connection.execute(update(table).where(settled).values(settled=notice.at))
            told = and_(deliveries.c.notice.in_(over), deliveries.c.delivered.is_not(None))
            connection.execute(update(deliveries).where(told).values(due=None, claim=None))
        _deliver(connection, notice.key, notice.fleet, notice.level.value, one.sinks, notice.at)
    return tuple(new)


def _known(connection: Connection, keys: Sequence[str]) -> set[str]:
    table, found = tables.notices, set[str]()
    for first in range(0, len(keys), _AT_ONCE):
        part = keys[first : first + _AT_ONCE]
        found.update(connection.execute(select(table.c.key).where(table.c.key.in_(part))).scalars())
    return found


def _deliver(
    connection: Connection,
    key: str,
    fleet: str,
    level: str,
    sinks: Mapping[str, tuple[Occasion, datetime]],
    at: datetime,
) -> None:
    table = tables.notice_deliveries
    there = {*connection.execute(select(table.c.sink).where(table.c.notice == key)).scalars()}
    rows = [
        {
            "notice": key,
            "sink": sink,
            "fleet": fleet,
            "level": level,
            "occasion": occasion.value,
            "at": at,
            "due": due,
        }
        for sink, (occasion, due) in sinks.items()
        if sink not in there
    ]
    if rows:
        connection.execute(insert(table), rows)


def _due(sink: str, now: datetime) -> Any:
    """Return the question for what is to be done at the sink, the oldest first."""
    table, notices = tables.notice_deliveries, tables.notices
    told = [table.c.occasion, table.c.tries, notices.c.waits, notices.c.settled]
    wanted = select(notices.c.key, notices.c.body, *told).join(table, table.c.notice == notices.c.key)
    return wanted.where(table.c.sink == sink, table.c.due <= now).order_by(notices.c.at, notices.c.key)


def _deliveries(connection: Connection, sink: str, rows: "Iterable[Row[Any]]") -> tuple[Delivery, ...]:
    """Return rows of the outbox with what each of them settles that the sink was told of."""
    found = [(Notice.model_validate_json(row.body), row) for row in rows]
    over = {key for notice, _ in found for key in (notice.resolves, *notice.also_resolves) if key}
    deliveries, notices = tables.notice_deliveries, tables.notices
    wanted = (
        select(notices.c.key, notices.c.body)
        .join(deliveries, deliveries.c.notice == notices.c.key)
        .where(deliveries.c.sink == sink, notices.c.key.in_(sorted(over)))
    )
    told = {key: Notice.model_validate_json(body) for key, body in connection.execute(wanted)} if over else {}
    return tuple(
        Delivery(
            sink=sink,
            notice=notice,
            occasion=Occasion(row.occasion),
            resolved=tuple(told[key] for key in (notice.resolves, *notice.also_resolves) if key in told),
            waits=row.waits,
            settled=row.settled,
            tries=row.tries,
        )
        for notice, row in found
    )


def _one(condition: Any) -> Any:
    return case((condition, 1), else_=0)


def _told_columns() -> list[Any]:
    table = tables.notice_deliveries
    return [
        table.c.sink,
        table.c.tries,
        table.c.due,
        table.c.delivered,
        table.c.given_up,
        table.c.folded_into,
        table.c.error,
    ]


def _row(row: "Row[Any]") -> NoticeRow:
    told = {name: getattr(row, name) for name in NoticeRow.model_fields if name != "notice"}
    return NoticeRow(notice=Notice.model_validate_json(row.body), **told)


def _waiting(row: "Row[Any]") -> Waiting:
    return Waiting(
        notice=Notice.model_validate_json(row.body),
        subject=row.subject,
        seq=row.seq,
        acknowledged=row.acknowledged is not None,
        escalations=row.escalations,
        escalated=row.escalated,
    )
