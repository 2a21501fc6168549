"""How much of a relay one gateway may take: connections, calls, polls, and large messages at once."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakValueDictionary

from orchestrator.enrolment.names import Certified
from policies.model.errors import Unavailable

MOST_POLLS = 16
"""Polls at once of one gateway: an agent has five, and a new one begins before the old one's have ended."""

MOST_CALLS = 64
"""Calls at once of one gateway: an agent has a hundred steps, and each says now and then that it lives."""

MOST_CONNECTIONS = 8
"""Connections of one gateway that have calls on them; one without any is closed after a while."""

LARGEST_MESSAGE = 1 << 20
"""Bytes of a message of an agent: workflows take answers of 512 KiB, which sealing makes a little longer."""

SMALL_MESSAGE = 64 << 10
"""Bytes up to which a message is counted as a call alone; only what an agent says of a task has more."""

MOST_LARGE = 4
"""Messages at once of one gateway that are being received, or are large and not yet answered."""


class Busy(Unavailable):
    """This gateway takes as much of the relay already as one may have; it may try again."""


class Limits:
    """What each gateway has under way at this relay."""

    def __init__(self) -> None:
        self._calls = Counter[tuple[str, str]]()
        self._by_peer = Counter[tuple[str, str]]()
        self._peers = Counter[str]()
        self._rooms = WeakValueDictionary[str, asyncio.Semaphore]()

    def room(self, caller: Certified) -> asyncio.Semaphore:
        """Return what a message of this gateway waits for before it is received, and keeps while large."""
        return self._rooms.setdefault(str(caller), asyncio.Semaphore(MOST_LARGE))

    @contextmanager
    def taken(self, caller: Certified, peer: str, kind: str, most: int) -> Iterator[None]:
        """Count one call of that kind for as long as the body lasts.

        Raises:
            Busy: The gateway has as many already, or as many connections.
        """
        whose = str(caller)
        if self._calls[whose, kind] >= most:
            raise Busy(f"{caller} has {most} {kind} at this relay already")
        if not self._by_peer[whose, peer] and self._peers[whose] >= MOST_CONNECTIONS:
            raise Busy(f"{caller} has {MOST_CONNECTIONS} connections to this relay already")
        self._calls[whose, kind] += 1
        self._by_peer[whose, peer] += 1
        self._peers[whose] += self._by_peer[whose, peer] == 1
        try:
            yield
        finally:
            self._calls[whose, kind] -= 1
            self._by_peer[whose, peer] -= 1
            if not self._by_peer[whose, peer]:
                del self._by_peer[whose, peer]
                self._peers[whose] -= 1
            if not self._calls[whose, kind]:
                del self._calls[whose, kind]
            if not self._peers[whose]:
                del self._peers[whose]
