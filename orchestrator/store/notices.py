"""Notices: what people are told, what of it waits, and how far the ledger was looked through for it.

A look through the ledger is one transaction with how far it has come, so a repeat after a kill at any line
finds the same keys.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Row, and_, delete, func, insert, or_, select, text, update

from orchestrator.store import tables
from orchestrator.store.addressed import AT_ONCE, Addressed, keep, tell_too
from orchestrator.store.book import Book
from orchestrator.store.database import reading, writing
from orchestrator.store.record import append
from policies.model.errors import Conflict, Unknown
from policies.model.notice import Notice, NoticeLevel, NoticeRow, Occasion
from policies.model.people import Via
from policies.notices.escalation import ENDING

_WAITS = text("notices.waits AND notices.settled IS NULL")
"""What is so until it is settled, in the words of the index: SQLite finds it by that only in these."""


class Waiting(NamedTuple):
    """A notice that is not settled."""

    notice: Notice
    subject: str
    seq: int
    acknowledged: bool
    escalations: int
    escalated: datetime | None


class Notices(Book):
    """What people were told, and are told."""

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
            return keep(connection, found)

    def add_notices(self, found: Sequence[Addressed]) -> tuple[str, ...]:
        """Keep these notices, each once; return the keys that are new."""
        with writing(self._engine) as connection:
            return keep(connection, found)

    def waiting_notices(self, subjects: Collection[str] | None = None) -> tuple[Waiting, ...]:
        """Return what waits, about these subjects or about anything, the oldest first."""
        table = tables.notices
        wanted = select(table).where(_WAITS).order_by(table.c.at)
        if subjects is not None:
            wanted = wanted.where(table.c.subject.in_(sorted(subjects)))
        with reading(self._engine) as connection:
            return tuple(_waiting(row) for row in connection.execute(wanted))

    def waiting_notices_of(self, fleet: str, states: Collection[str]) -> tuple[Waiting, ...]:
        """Return what waits of the fleet in one of these states, the oldest first."""
        table = tables.notices
        mine = (table.c.fleet == fleet, table.c.state.in_(sorted(states)))
        wanted = select(table).where(_WAITS, *mine)
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
                tell_too(connection, Notice.model_validate_json(row.body), sink, due)

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
                raise no_notice(key)
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
            raise no_notice(key)
        return Notice.model_validate_json(body)

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
            keys = [*connection.execute(select(notices.c.key).where(*old).limit(AT_ONCE)).scalars()]
            connection.execute(delete(deliveries).where(deliveries.c.notice.in_(keys)))
            return int(connection.execute(delete(notices).where(notices.c.key.in_(keys))).rowcount)


def no_notice(key: str) -> Unknown:
    """Return the refusal of a key that is none, as far as the caller may know."""
    return Unknown(f"there is no notice {key}; penstock notice list shows them")


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
