"""Appending to the audit record inside the transaction of what is recorded."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime

from sqlalchemy import Connection, insert, select

from orchestrator.store import tables
from orchestrator.store.chain import chain
from policies.model.audit import AuditHead
from policies.model.value import sentence


def append(
    connection: Connection,
    person: str,
    via: str,
    action: str,
    subject: str,
    body: object,
    key: str | None = None,
    *,
    fleet: str | None = None,
) -> bool:
    """Append one entry in the caller's transaction unless the key has one; return whether it is new.

    `why` in the body becomes one line of bounded length: it may repeat what an unauthenticated client sent.
    """
    keys = tables.audit_keys
    if key is not None and connection.execute(select(keys.c.seq).where(keys.c.key == key)).first():
        return False
    why = body.get("why") if isinstance(body, Mapping) else None
    if isinstance(body, Mapping) and isinstance(why, str):
        body = {**body, "why": sentence(why)}
    said = json.dumps(body, sort_keys=True, separators=(",", ":"))
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    entry = chain(head_of(connection), at, person, via, action, subject, said, fleet)
    connection.execute(insert(tables.audit).values(entry.model_dump()))
    if key is not None:
        connection.execute(insert(keys).values(key=key, seq=entry.seq))
    return True


def head_of(connection: Connection) -> AuditHead:
    """Return the newest entry's number and hash."""
    table = tables.audit
    row = connection.execute(select(table.c.seq, table.c.hash).order_by(table.c.seq.desc()).limit(1)).first()
    return AuditHead(seq=row.seq, hash=row.hash) if row else AuditHead(seq=0)
