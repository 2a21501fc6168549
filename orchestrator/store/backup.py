"""Backups: the whole ledger as a file of lines, which any penstock restores into either kind of database.

The first line says which schema it is of, then each row has a line, a table after the other in the order
in which they refer to each other, and the last line has the count of rows and the digest of all before it.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime
from typing import Any

from alembic.migration import MigrationContext
from sqlalchemy import Connection, Date, Engine, LargeBinary, Table, insert, select, text

from orchestrator.store.database import reading, writing
from orchestrator.store.rebuilding import note_restored
from orchestrator.store.record import head_of
from orchestrator.store.tables import Moment, Serial, metadata
from policies.model.errors import BadInput, Conflict

FORMAT = 1
AT_ONCE = 500
"""Rows that are written at once."""


def backed_up(engine: Engine) -> Iterator[str]:
    """Yield the lines of a backup, of one moment of the ledger."""
    hashed, rows = hashlib.sha256(), 0

    def line(said: object) -> str:
        written = json.dumps(said, separators=(",", ":"), sort_keys=True) + "\n"
        hashed.update(written.encode())
        return written

    with reading(engine) as connection:
        _one_moment(connection)
        at = datetime.now(UTC).isoformat()
        yield line({"format": FORMAT, "revision": _revision(connection), "at": at})
        for table in metadata.sorted_tables:
            ordered = select(table).order_by(*table.primary_key.columns)
            found = connection.execution_options(yield_per=AT_ONCE).execute(ordered)
            for row in found.mappings():
                rows += 1
                yield line({"table": table.name, "row": {key: _said(value) for key, value in row.items()}})
    yield json.dumps({"rows": rows, "sha256": hashed.hexdigest()}) + "\n"


def require_whole(lines: Iterable[str]) -> int:
    """Return how many rows a backup has.

    Raises:
        BadInput: It is none, was cut short, or was changed.
    """
    hashed, rows, ended, last = hashlib.sha256(), -1, False, ""
    for line in lines:
        if last:
            hashed.update(last.encode())
        rows, last = rows + 1, line
    try:
        end = json.loads(last)
        ended = end["sha256"] == hashed.hexdigest() and end["rows"] == rows - 1
    except (ValueError, KeyError, TypeError):
        ended = False
    if not ended:
        raise BadInput("this is no whole backup of a ledger: its last line does not fit what is before it")
    return rows - 1


def restore(engine: Engine, lines: Iterable[str], by: str | None = None) -> int:
    """Write a backup that is whole into a ledger without any row; return the number of its last audit entry.

    Args:
        engine: The database of that ledger.
        lines: The backup.
        by: The person who has the services use it. The audit log of every fleet then has an entry that
            its ledger was restored. None for a copy that is only read.

    Raises:
        BadInput: It is of another schema than this penstock's.
        Conflict: The ledger is not empty.
    """
    with writing(engine) as connection:
        _require_empty(connection)
        waiting: list[dict[str, Any]] = []
        table: Table | None = None
        made = datetime.now(UTC)
        for number, line in enumerate(lines):
            said = json.loads(line)
            if number == 0:
                _require_schema(connection, said)
                made = datetime.fromisoformat(said["at"])
            elif "table" in said:
                here = metadata.tables[said["table"]]
                if here is not table or len(waiting) >= AT_ONCE:
                    _write(connection, table, waiting)
                    table, waiting = here, []
                waiting.append({name: _value(here, name, value) for name, value in said["row"].items()})
        _write(connection, table, waiting)
        _count_on(connection)
        last = head_of(connection).seq
        if by is not None:
            note_restored(connection, made, by)
    return last


def _one_moment(connection: Connection) -> None:
    """Have all that is read be of the same moment; SQLite's transactions are so by themselves."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))


def _revision(connection: Connection) -> str:
    return ",".join(sorted(MigrationContext.configure(connection).get_current_heads()))


def _require_schema(connection: Connection, head: dict[str, Any]) -> None:
    wanted = {"format": FORMAT, "revision": _revision(connection)}
    if {key: head.get(key) for key in wanted} != wanted:
        raise BadInput(
            f"the backup is of schema {head.get('revision')} and this penstock has {wanted['revision']}: "
            "restore it with the penstock that made it, and open it with this one"
        )


def _require_empty(connection: Connection) -> None:
    for table in metadata.sorted_tables:
        if connection.execute(select(table).limit(1)).first() is not None:
            raise Conflict(f"the ledger is not empty ({table.name}): restore into a new one")


def _write(connection: Connection, table: Table | None, rows: list[dict[str, Any]]) -> None:
    if table is not None and rows:
        connection.execute(insert(table), rows)


def _count_on(connection: Connection) -> None:
    """Have PostgreSQL number new rows after the restored ones; SQLite does by itself."""
    if connection.dialect.name != "postgresql":
        return
    for table in metadata.sorted_tables:
        for column in table.primary_key.columns:
            if column.type is Serial:
                highest = f"(SELECT coalesce(max({column.name}), 0) + 1 FROM {table.name})"  # noqa: S608 - our own names
                counter = f"pg_get_serial_sequence('{table.name}', '{column.name}')"
                connection.execute(text(f"SELECT setval({counter}, {highest}, false)"))


def _said(value: object) -> object:
    if isinstance(value, date):  # and every time of a day is one
        return value.isoformat()
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def _value(table: Table, name: str, said: Any) -> Any:
    kind = table.c[name].type
    if said is None:
        return None
    if isinstance(kind, Moment):
        return datetime.fromisoformat(said)
    if isinstance(kind, Date):
        return date.fromisoformat(said)
    return base64.b64decode(said) if isinstance(kind, LargeBinary) else said
