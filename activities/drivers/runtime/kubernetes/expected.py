"""How long the cluster takes for a thing, so that it is not asked before there is anything to see."""

import asyncio
import time
from collections.abc import AsyncIterator

SOON = 0.9
"""Of the time that it took before, when the first question is asked."""
LONGEST = 10.0
"""Seconds until the first question at most, whatever it took before."""


class Expected:
    """One kind of thing that is waited for: what the last one took is what the next one is given."""

    def __init__(self) -> None:
        self._took = 0.0

    async def rounds(self, within: float) -> AsyncIterator[bool]:
        """Yield whenever it is time to look, True for the last time; what ends the loop early has come."""
        begun = time.monotonic()
        await asyncio.sleep(min(self._took * SOON, LONGEST, within))
        while True:
            last = time.monotonic() - begun > within
            yield last
            if last:
                return

    def came(self, begun: float) -> None:
        """Note that what was waited for since `begun`, by the monotonic clock, was just seen."""
        self._took = min(time.monotonic() - begun, LONGEST)
