"""How fast the API server is asked: so many calls a second at most, and none while it wants a rest."""

import asyncio
import time

PER_SECOND = 50.0
"""Calls to one API server: a wave of a thousand gateways is two thousand writes."""

AT_ONCE = 10
"""Calls that may follow each other at once after a pause."""


class Pace:
    """Lets one call after another begin, each at its time."""

    def __init__(self, per_second: float = PER_SECOND, at_once: int = AT_ONCE) -> None:
        self._apart = 1 / per_second
        self._ahead = at_once * self._apart
        self._last = 0.0
        self._rested = 0.0

    async def turn(self) -> None:
        """Return when the next call may begin."""
        left = 1.0
        while left > 0:
            now = time.monotonic()
            self._last = max(self._last, now - self._ahead) + self._apart
            await asyncio.sleep(max(0.0, self._last - now))
            left = self._rested - time.monotonic()
            await asyncio.sleep(max(0.0, left))  # and then they begin one after another, too

    def rest(self, seconds: float) -> None:
        """Have no call begin for so long: the server said so."""
        self._rested = max(self._rested, time.monotonic() + seconds)
