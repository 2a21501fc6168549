"""Notices with whom each goes to, kept in the transaction of whoever found them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

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
        deliver(connection, notice.key, notice.fleet, notice.level.value, one.sinks, notice.at)
    return tuple(new)


def _known(connection: Connection, keys: Sequence[str]) -> set[str]:
    table, found = tables.notices, set[str]()
    for first in range(0, len(keys), AT_ONCE):
        part = keys[first : first + AT_ONCE]
        found.update(connection.execute(select(table.c.key).where(table.c.key.in_(part))).scalars())
    return found


def deliver(
    connection: Connection,
    key: str,
    fleet: str,
    level: str,
    sinks: Mapping[str, tuple[Occasion, datetime]],
    at: datetime,
) -> None:
    """Have these sinks told of the notice, those that are not to be told of it yet."""
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
