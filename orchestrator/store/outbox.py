"""The outbox: one row for each sink that is to have a notice, claimed, sent, and then noted.

A row that is sent is claimed first, for a while: a worker that dies in between leaves it to the next, and the
receiver tells the repeat by its key.
"""

import secrets
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, and_, case, exists, func, or_, select, update

from orchestrator.store import tables
from orchestrator.store.addressed import Addressed, keep
from orchestrator.store.book import Book
from orchestrator.store.database import reading, writing
from policies.model.notice import Delivery, Notice, NoticeLevel, Occasion


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


class Outbox(Book):
    """What is on its way to which sink."""

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
        """Return what a sink that asks by itself has not acknowledged yet.

        Who is to be woken comes first, then of every change the oldest, so that much of one hides no other.
        """
        wanted = _due(sink, datetime.now(UTC), fairly=True)
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
        said: dict[str, Any] = {"due": again, "claim": None, "given_up": None if again else now}
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
            keep(connection, [into])
            which = (table.c.sink == sink, table.c.notice == into.notice.key)
            connection.execute(update(table).where(*which).values(stands_for=int(count), due=due))

    def sink_health(self, errors_of: Collection[str] | None = None) -> Mapping[str, SinkHealth]:
        """Return how every sink takes what it is told, of those that were ever told of anything waiting.

        Args:
            errors_of: Of which fleets' notices it is said what a receiver answered; of all when left out.
        """
        table, now = tables.notice_deliveries, datetime.now(UTC)
        waits = and_(table.c.due.is_not(None), table.c.due <= now, table.c.delivered.is_(None))
        failing = and_(table.c.due.is_not(None), table.c.tries > 0)
        counted = (
            func.sum(_one(waits)),
            func.min(table.c.at, type_=tables.Moment()).filter(waits | failing),
            func.sum(_one(failing)),
            func.sum(_one(table.c.given_up.is_not(None))),
        )
        open_rows = or_(table.c.due.is_not(None), table.c.given_up.is_not(None))
        wanted = select(table.c.sink, *counted).where(open_rows).group_by(table.c.sink)
        newest = func.row_number().over(partition_by=table.c.sink, order_by=table.c.at.desc()).label("newest")
        failed = select(table.c.sink, table.c.error, newest).where(open_rows, table.c.error != "")
        if errors_of is not None:
            failed = failed.where(table.c.fleet.in_(sorted(errors_of)))
        ranked = failed.subquery()
        why = select(ranked.c.sink, ranked.c.error).where(ranked.c.newest == 1)
        with reading(self._engine) as connection:
            errors = {sink: str(error) for sink, error in connection.execute(why)}
            return {
                sink: SinkHealth(int(waiting), oldest, int(bad), int(gone), errors.get(sink, ""))
                for sink, waiting, oldest, bad, gone in connection.execute(wanted)
            }

    def sinks_due(self, now: datetime) -> tuple[str, ...]:
        """Return the sinks for which something is to be done."""
        table = tables.notice_deliveries
        with reading(self._engine) as connection:
            wanted = select(table.c.sink).where(table.c.due <= now).distinct()
            return tuple(connection.execute(wanted).scalars())

    def old_infos(self, before: datetime, most: int) -> Mapping[str, tuple[str, ...]]:
        """Return what no sink took since before that moment and needs nobody, by sink, the oldest first."""
        deliveries, notices = tables.notice_deliveries, tables.notices
        wanted = (
            select(deliveries.c.sink, deliveries.c.notice)
            .join(notices, notices.c.key == deliveries.c.notice)
            .where(
                deliveries.c.due.is_not(None),
                deliveries.c.delivered.is_(None),
                deliveries.c.level == "info",
                deliveries.c.occasion == "said",
                or_(deliveries.c.tries > 0, deliveries.c.due < before),
                notices.c.at < before,
                or_(~notices.c.waits, notices.c.settled.is_not(None)),
            )
            .order_by(notices.c.at)
            .limit(most)
        )
        found: dict[str, list[str]] = {}
        with reading(self._engine) as connection:
            for sink, key in connection.execute(wanted):
                found.setdefault(sink, []).append(key)
        return {sink: tuple(keys) for sink, keys in found.items()}


def _due(sink: str, now: datetime, *, fairly: bool = False) -> Any:
    """Return the question for what is to be done at the sink: who is to be woken first, then the oldest."""
    table, notices = tables.notice_deliveries, tables.notices
    told = [table.c.occasion, table.c.tries, notices.c.waits, notices.c.settled]
    wanted = select(notices.c.key, notices.c.body, *told).join(table, table.c.notice == notices.c.key)
    oldest = (notices.c.at, notices.c.key)
    about = func.coalesce(notices.c.change, notices.c.fleet)
    turn = [func.row_number().over(partition_by=about, order_by=oldest)] if fairly else []
    wakes = case((table.c.level == NoticeLevel.PAGE.value, 0), else_=1)
    return wanted.where(table.c.sink == sink, table.c.due <= now).order_by(wakes, *turn, *oldest)


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
