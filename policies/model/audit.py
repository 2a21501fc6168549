"""The audit record's entries, and its head as noted elsewhere."""

from datetime import datetime

from pydantic import Field

from policies.model.people import Via
from policies.model.value import Value

GENESIS = "0" * 64
"""What the first entry names as the hash before it."""


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
    fleet: str | None = None
    """Whose it is; None for what concerns the whole installation."""


class AuditHead(Value):
    """The newest entry at some time, noted outside the ledger."""

    seq: int = Field(ge=0)
    hash: str = GENESIS


class LateEntry(Value):
    """An entry of the audit record that is not in it yet."""

    key: str | None = None
    """Makes it one entry, however often it is sent."""
    at: datetime
    person: str
    via: Via
    action: str
    subject: str
    body: dict[str, object]
    fleet: str | None = None
    known_by: tuple[str, ...] = ()
    """What recognised the person, which the ledger remembers with the name."""
