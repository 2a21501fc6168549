"""How much of a relay one gateway may take: connections, calls and polls at once."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.enrolment.names import Certified
from policies.model.errors import Unavailable

MOST_POLLS = 16
"""Polls at once of one gateway: an agent has five, and a new one begins before the old one's have ended."""

MOST_CALLS = 256
"""Calls at once of one gateway: an agent has a hundred steps, and each says now and then that it lives."""

MOST_CONNECTIONS = 8
"""Connections of one gateway that have calls on them; one without any is closed after a while."""


class Busy(Unavailable):
    """This gateway takes as much of the relay already as one may have; it may try again."""


class Limits:
    """What each gateway has under way at this relay."""

    def __init__(self) -> None:
        self._calls = Counter[tuple[str, str]]()
        self._by_peer = Counter[tuple[str, str]]()
        self._peers = Counter[str]()

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
