"""Refusals of unauthenticated clients: counted in memory, and written into the audit record in sum.

The record is kept for ever and a client network costs nothing, so the record grows by a bounded number of
entries an hour, however many clients show tokens or logins that are good for nothing.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from orchestrator.crowd import crowd_of
from orchestrator.store.trail import Trail
from policies.model.errors import Unavailable

HOUR_SECONDS = 3600.0
MOST_ENTRIES = 20
"""Client networks with an entry of their own in an hour; all others have one entry together."""

MOST_NETWORKS = 2_000
"""Client networks that are counted one by one; the refusals of more are counted together."""

SOMEWHERE = "somewhere"
OTHERS = "other networks"


@dataclass
class _Tally:
    """Refusals of one client network that are in no entry so far."""

    since: datetime
    count: int = 0
    why: str = ""


@dataclass(frozen=True)
class _Key:
    via: str
    action: str
    network: str


class Refusals:
    """Counts the refusals of one process."""

    def __init__(self, trail: Trail, clock: Callable[[], float] = time.monotonic) -> None:
        """Write into this record; `clock` counts seconds."""
        self._trail = trail
        self._clock = clock
        self._turn = threading.Lock()
        self._pending: dict[_Key, _Tally] = {}
        self._written = set[_Key]()
        self._hour_began: float | None = None

    def note(self, via: str, action: str, address: str, why: str) -> None:
        """Count one refusal; nothing is written now.

        Args:
            via: Through which frontend, as in `Via`.
            action: What was refused, as the record names it.
            address: Where the client called from.
            why: Why it was refused.
        """
        with self._turn:
            key = _Key(via, action, crowd_of(address) or SOMEWHERE)
            if key not in self._pending and len(self._pending) >= MOST_NETWORKS:
                key = _Key(via, action, OTHERS)
            tally = self._pending.setdefault(key, _Tally(datetime.now(UTC)))
            tally.count += 1
            tally.why = why

    def write(self) -> int:
        """Write what is due, an entry an hour for each client network at most; return how many entries.

        Raises:
            Unavailable: The ledger does not answer; what is due stays.
        """
        with self._turn:
            due = self._due()
        for written, (key, tally, networks) in enumerate(due):
            body: dict[str, object] = {"count": tally.count, "since": _moment(tally.since), "why": tally.why}
            if networks:
                body["networks"] = networks
            try:
                self._trail.audit("penstock", key.via, key.action, key.network, body)
            except Unavailable:
                self._put_back(due[written:])
                raise
        return len(due)

    def _due(self) -> list[tuple[_Key, _Tally, int]]:
        """Take what is to be written now: the client networks with the most refusals first."""
        now = self._clock()
        if self._hour_began is None or now - self._hour_began >= HOUR_SECONDS:
            over, self._hour_began = self._hour_began is not None, now
            self._written.clear()
        else:
            over = False
        fresh = [key for key in self._pending if key not in self._written and key.network != OTHERS]
        fresh.sort(key=lambda key: -self._pending[key].count)
        chosen = fresh[: MOST_ENTRIES - len(self._written)]
        self._written.update(chosen)
        due = [(key, self._pending.pop(key), 0) for key in chosen]
        return due + (self._others() if over else [])

    def _others(self) -> list[tuple[_Key, _Tally, int]]:
        """Take all that is left, in one entry for each kind of refusal."""
        sums: dict[_Key, tuple[_Tally, int]] = {}
        for key, tally in self._pending.items():
            of_all = _Key(key.via, key.action, OTHERS)
            found, networks = sums.get(of_all, (_Tally(tally.since), 0))
            found.count += tally.count
            found.why, found.since = tally.why, min(found.since, tally.since)
            sums[of_all] = (found, networks + 1)
        self._pending.clear()
        return [(key, tally, networks) for key, (tally, networks) in sums.items()]

    def _put_back(self, unwritten: list[tuple[_Key, _Tally, int]]) -> None:
        with self._turn:
            for key, tally, _ in unwritten:
                self._written.discard(key)
                found = self._pending.setdefault(key, _Tally(tally.since))
                found.count += tally.count
                found.why, found.since = found.why or tally.why, min(found.since, tally.since)


def _moment(at: datetime) -> str:
    return at.isoformat(timespec="seconds")
