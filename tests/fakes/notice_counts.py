"""Counts of notices: what was to be sent and what came, by state, and what is missing."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from orchestrator.store.ledger import Ledger
from policies.model.notice import NoticeRow


@dataclass(frozen=True)
class NoticeCounts:
    """How many there were of each state."""

    sent: Mapping[str, int]
    """To each sink that had to have them, by state."""
    received: Mapping[str, int]
    """Distinct ones that came, by state."""
    raw: int
    """How often anything came, repeats too."""
    missing: tuple[str, ...]
    """What did not come where it had to."""


def counted(ledger: Ledger, fleets: Collection[str], received: Mapping[str, Collection[str]]) -> NoticeCounts:
    """Return what these sinks were to have and what came there.

    Args:
        ledger: With the outbox.
        fleets: Of which fleets.
        received: By sink the keys of what came, as often as it did.
    """
    rows = [row for row in ledger.notice_rows(fleets, 10_000) if row.sink in received]
    sent, came, missing = Counter[str](), Counter[str](), list[str]()
    for row in rows:
        state = row.notice.state
        sent[state] += 1
        if _key(row) in received[row.sink]:
            came[state] += 1
        else:
            missing.append(f"{row.sink}: {row.notice.key}")
    raw = sum(len(keys) for keys in received.values())
    return NoticeCounts(dict(sent), dict(came), raw, tuple(missing))


def _key(row: NoticeRow) -> str:
    return row.folded_into or row.notice.key
