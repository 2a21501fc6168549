"""Notices with whom each goes to, kept in the transaction of whoever found them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, and_, insert, select, update

from orchestrator.store import tables
from orchestrator.store.record import head_of
from policies.model.notice import Notice, Occasion

AT_ONCE = 500
"""Keys that one statement names."""


class Addressed(NamedTuple):
    """A notice with whom it goes to and what becomes of it."""

    notice: Notice
    subject: str
    waits: bool
    """Whether it is so until it is settled."""
    sinks: Mapping[str, tuple[Occasion, datetime]]
    """Why each of them is told, and when."""


def keep(connection: Connection, found: Sequence[Addressed]) -> tuple[str, ...]:
    """Keep these notices, each once, and settle what they settle; return the keys that are new."""
    table, deliveries, seq = tables.notices, tables.notice_deliveries, head_of(connection).seq
    known = _known(connection, [one.notice.key for one in found])
    new = [one for key, one in {one.notice.key: one for one in reversed(found)}.items() if key not in known]
    new.reverse()
    if not new:
        return ()
    connection.execute(insert(table), [_row(one, seq) for one in new])
    if rows := [row for one in new for row in _rows(one.notice, one.sinks)]:
        connection.execute(insert(deliveries), rows)
    for one in new:
        notice = one.notice
        if over := [key for key in (notice.resolves, *notice.also_resolves) if key is not None]:
            settled = and_(table.c.key.in_(over), table.c.settled.is_(None))
            connection.execute(update(table).where(settled).values(settled=notice.at))
            told = and_(deliveries.c.notice.in_(over), deliveries.c.delivered.is_not(None))
            connection.execute(update(deliveries).where(told).values(due=None, claim=None))
    return tuple(one.notice.key for one in new)


def tell_too(connection: Connection, notice: Notice, sink: str, due: datetime) -> None:
    """Have one more sink told of a notice that is kept, unless it is told of it anyway."""
    table = tables.notice_deliveries
    there = select(table.c.sink).where(table.c.notice == notice.key, table.c.sink == sink)
    if connection.execute(there).first() is None:
        connection.execute(insert(table), _rows(notice, {sink: (Occasion.SAID, due)}, due))


def _row(one: Addressed, seq: int) -> dict[str, Any]:
    notice = one.notice
    return {
        "key": notice.key,
        "fleet": notice.fleet,
        "change": notice.change,
        "subject": one.subject,
        "state": notice.state,
        "level": notice.level.value,
        "body": notice.model_dump_json(),
        "at": notice.at,
        "seq": seq,
        "waits": one.waits,
    }


def _rows(
    notice: Notice, sinks: Mapping[str, tuple[Occasion, datetime]], at: datetime | None = None
) -> list[dict[str, Any]]:
    of_notice = {"notice": notice.key, "fleet": notice.fleet, "level": notice.level.value}
    return [
        {**of_notice, "sink": sink, "occasion": occasion.value, "at": at or notice.at, "due": due}
        for sink, (occasion, due) in sinks.items()
    ]


def _known(connection: Connection, keys: Sequence[str]) -> set[str]:
    table, found = tables.notices, set[str]()
    for first in range(0, len(keys), AT_ONCE):
        part = keys[first : first + AT_ONCE]
        found.update(connection.execute(select(table.c.key).where(table.c.key.in_(part))).scalars())
    return found
