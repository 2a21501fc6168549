"""Refusals that are counted in memory, and written into the audit record in sum.

The record is kept for ever, and a client network or a chat account costs nothing. So the record grows by a
bounded number of entries an hour, however many clients show tokens, logins or messages that are refused.
"""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from orchestrator.crowd import crowd_of
from orchestrator.store.trail import Trail
from policies.model.change import PENSTOCK
from policies.model.errors import Unavailable
from policies.model.value import sentence

HOUR_SECONDS = 3600.0
MOST_ENTRIES = 20
"""Client networks and accounts with an entry of their own in an hour; all others have one entry together."""

MOST_CLIENTS = 2_000
"""Client networks and accounts that are counted one by one; the refusals of more are counted together."""

WRITE_SECONDS = 10.0
"""How often a process writes what is due."""

SOMEWHERE = "somewhere"
OTHERS = "others"


@dataclass(frozen=True)
class Counted:
    """Refusals that have one entry together: the head of that entry."""

    person: str
    via: str
    action: str
    subject: str


@dataclass
class Tally:
    """How many refusals are in no entry so far."""

    since: datetime
    count: int = 0
    why: str = ""
    clients: int = 0
    """Of how many clients they are; 0 where the entry is about one."""


class Tallies:
    """Refusals by the entry that they are written into."""

    def __init__(self, trail: Trail, clock: Callable[[], float] = time.monotonic) -> None:
        """Write into this record; `clock` counts seconds."""
        self._trail = trail
        self._clock = clock
        self._hour_ends = clock() + HOUR_SECONDS
        self.turn = threading.RLock()
        """Held while several calls belong together."""
        self.pending: dict[Counted, Tally] = {}

    def add(self, counted: Counted, why: str) -> None:
        """Count one refusal more; of a long reason only its beginning stays in memory."""
        self._add_up([(counted, Tally(datetime.now(UTC), 1, sentence(why)))])

    def is_new_hour(self) -> bool:
        """Return whether an hour is over since this last returned that it is."""
        with self.turn:
            if (now := self._clock()) < self._hour_ends:
                return False
            self._hour_ends = now + HOUR_SECONDS
            return True

    def write(self, chosen: Iterable[Counted], written: set[Counted] | None = None) -> int:
        """Write an entry for each of these, add it to `written`, and return how many entries.

        Raises:
            Unavailable: The ledger does not answer; the refusals without an entry are pending again.
        """
        with self.turn:
            due = [(one, self.pending.pop(one)) for one in chosen]
        for number, (one, tally) in enumerate(due):
            since = tally.since.isoformat(timespec="seconds")
            body: dict[str, object] = {"count": tally.count, "since": since, "why": tally.why}
            if tally.clients:
                body["clients"] = tally.clients
            try:
                self._trail.audit(one.person, one.via, one.action, one.subject, body)
            except Unavailable:
                self._add_up(due[number:])
                raise
            if written is not None:
                written.add(one)
        return len(due)

    def join(self, subject: str) -> list[Counted]:
        """Make one sum of all pending refusals of one action, with that subject; return the sums."""
        with self.turn:
            single, self.pending = self.pending, {}
            self._add_up(
                (replace(one, subject=subject), replace(tally, clients=tally.clients or 1))
                for one, tally in single.items()
            )
            return list(self.pending)

    def _add_up(self, more: Iterable[tuple[Counted, Tally]]) -> None:
        with self.turn:
            for one, tally in more:
                found = self.pending.setdefault(one, Tally(tally.since, why=tally.why))
                if tally.since >= found.since:
                    found.why = tally.why
                found.since = min(found.since, tally.since)
                found.count += tally.count
                found.clients += tally.clients


class Refusals:
    """Counts the refusals of unauthenticated clients of one process."""

    def __init__(self, trail: Trail, clock: Callable[[], float] = time.monotonic) -> None:
        """Write into this record; `clock` counts seconds."""
        self._tallies = Tallies(trail, clock)
        self._writing = threading.Lock()
        self._written = set[Counted]()

    def note(self, via: str, action: str, client: str, why: str) -> None:
        """Count one refusal; nothing is written now.

        Args:
            via: Through which frontend, as in `Via`.
            action: What was refused, as the record names it.
            client: The address or the account of the client.
            why: Why it was refused.
        """
        counted = Counted(PENSTOCK, via, action, crowd_of(client) or SOMEWHERE)
        with self._tallies.turn:
            if counted not in self._tallies.pending and len(self._tallies.pending) >= MOST_CLIENTS:
                counted = replace(counted, subject=OTHERS)
            self._tallies.add(counted, why)

    def write(self) -> int:
        """Write what is due, an entry an hour for each client at most; return how many entries.

        Raises:
            Unavailable: The ledger does not answer; what is due stays.
        """
        with self._writing:
            over = self._tallies.is_new_hour()
            if over:
                self._written.clear()
            count = self._tallies.write(self._most_refused(), self._written)
            return count + (self._tallies.write(self._tallies.join(OTHERS)) if over else 0)

    def _most_refused(self) -> list[Counted]:
        """Return the clients that have an entry of their own now."""
        with self._tallies.turn:
            pending = self._tallies.pending
            fresh = [one for one in pending if one not in self._written and one.subject != OTHERS]
            fresh.sort(key=lambda one: -pending[one].count)
        return fresh[: MOST_ENTRIES - len(self._written)]
