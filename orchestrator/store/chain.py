"""The audit record: entries chained by hash, so that a changed or missing one is noticed by anybody.

Each entry's hash covers its own fields and the hash before it. Cutting off the newest entries
leaves a chain that is whole in itself; only a head noted elsewhere shows that.
"""

import hashlib
import json
from collections.abc import Iterable

from pydantic import Field

from policies.model.value import Value

GENESIS = "0" * 64


class AuditEntry(Value):
    """Who did what to what, through which door, after which other entry.

    `at` is ISO 8601 in UTC and `body` is JSON text, both kept as written so that the hash
    can be recomputed from an exported file alone.
    """

    seq: int = Field(ge=1)
    at: str
    person: str
    via: str
    action: str
    subject: str
    body: str
    previous: str
    hash: str


class AuditHead(Value):
    """The newest entry at some time, noted outside the ledger."""

    seq: int = Field(ge=0)
    hash: str = GENESIS


def chain(
    head: AuditHead, at: str, person: str, via: str, action: str, subject: str, body: str
) -> AuditEntry:
    """Return the entry that follows the head."""
    entry = AuditEntry(
        seq=head.seq + 1,
        at=at,
        person=person,
        via=via,
        action=action,
        subject=subject,
        body=body,
        previous=head.hash,
        hash="",
    )
    return entry.model_copy(update={"hash": hash_of(entry)})


def hash_of(entry: AuditEntry) -> str:
    """Return SHA-256 over the entry's fields in their order, as a JSON list, in hex."""
    fields = [value for name, value in entry.model_dump().items() if name != "hash"]
    return hashlib.sha256(json.dumps(fields, separators=(",", ":")).encode()).hexdigest()


def broken(entries: Iterable[AuditEntry], noted: AuditHead | None = None) -> str | None:
    """Return the first thing wrong with the record in a sentence, None when it is whole.

    Args:
        entries: The whole record, oldest first.
        noted: A head noted earlier elsewhere; without one, a record that was cut short looks whole.
    """
    head = AuditHead(seq=0)
    found = noted is None or noted.seq == 0
    for entry in entries:
        if entry.seq != head.seq + 1:
            return f"audit entry {head.seq + 1} is missing"
        if entry.previous != head.hash:
            return f"audit entry {entry.seq} does not follow entry {head.seq}"
        if entry.hash != hash_of(entry):
            return f"audit entry {entry.seq} was changed"
        head = AuditHead(seq=entry.seq, hash=entry.hash)
        if noted and noted.seq == entry.seq:
            if noted.hash != entry.hash:
                return f"audit entry {entry.seq} is not the one noted elsewhere"
            found = True
    if noted and not found:
        return f"audit entries {head.seq + 1} to {noted.seq} are missing at the end"
    return None
