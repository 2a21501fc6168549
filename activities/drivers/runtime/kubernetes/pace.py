"""How fast the API server is asked, and for what first; no call begins while it wants a rest."""

import asyncio
import heapq
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

PER_SECOND = 36.0
"""Calls to one API server that begin: a wave of a thousand gateways is two thousand writes."""
AT_ONCE = 6
"""Calls that may follow each other at once after a pause."""
UNDER_WAY = 8
"""Calls without an answer at most. With the two above that is 50 in any second, also after a standstill."""
LATER = 10.0
"""Seconds by which a call that can wait lets others begin before it."""


class Pace:
    """Lets one call after another begin, each at its time, while few of them are under way."""

    def __init__(
        self, per_second: float = PER_SECOND, at_once: int = AT_ONCE, under_way: int = UNDER_WAY
    ) -> None:
        self._apart = 1 / per_second
        self._ahead = at_once * self._apart
        self._last = 0.0
        self._rested = 0.0
        self._free = asyncio.Semaphore(under_way)
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self._letting: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def turn(self, *, can_wait: bool = False) -> AsyncIterator[None]:
        """Make one call in the body; one that can wait lets those begin first that come seconds after it."""
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        due = time.monotonic() + (LATER if can_wait else 0.0)
        heapq.heappush(self._waiting, (due, next(self._order), mine))
        if self._letting is None or self._letting.done():
            self._letting = asyncio.create_task(self._let())
        try:
            await mine
            yield
        finally:
            if mine.done() and not mine.cancelled():
                self._free.release()

    def rest(self, seconds: float) -> None:
        """Have no call begin for so long: the server said so."""
        self._rested = max(self._rested, time.monotonic() + seconds)

    async def _let(self) -> None:
        while self._waiting:
            await self._free.acquire()
            await self._moment()
            while self._waiting:
                _, _, first = heapq.heappop(self._waiting)
                if not first.done():  # who has given up meanwhile is
                    first.set_result(None)
                    break
            else:
                self._free.release()

    async def _moment(self) -> None:
        """Return when the next call may begin."""
        left = 1.0
        while left > 0:
            now = time.monotonic()
            self._last = max(self._last, now - self._ahead) + self._apart
            await asyncio.sleep(max(0.0, self._last - now))
            left = self._rested - time.monotonic()
            await asyncio.sleep(max(0.0, left))  # and then they begin one after another, too
