"""The audit record: entries chained by hash, so that a changed or missing one is noticed by anybody.

Each entry's hash covers its own fields and the hash before it. Cutting off the newest entries
leaves a chain that is whole in itself; only a head noted elsewhere shows that. `verifier.py` checks it.
"""

import hashlib
import json

from policies.model.audit import AuditEntry, AuditHead


def chain(
    head: AuditHead,
    at: str,
    person: str,
    via: str,
    action: str,
    subject: str,
    body: str,
    fleet: str | None = None,
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
        fleet=fleet,
    )
    return entry.model_copy(update={"hash": hash_of(entry)})


def hash_of(entry: AuditEntry) -> str:
    """Return SHA-256 over the entry's fields in their order, as a JSON list, in hex.

    The fleet is among them where there is one: entries of before it was written down have none.
    """
    fields = [value for name, value in entry.model_dump(exclude_none=True).items() if name != "hash"]
    return hashlib.sha256(json.dumps(fields, separators=(",", ":")).encode()).hexdigest()
