"""How long the cluster takes for a thing, so that it is not asked before there is anything to see."""

import asyncio
import time
from collections.abc import AsyncIterator

SOON = 0.9
"""Of the time that it took before, when the first question is asked."""
LONGEST = 1.0
"""Seconds until the first question at most, whatever it took before, and between two."""
GROWS = 0.25
"""Of the time that has gone by, how long it is until the next question."""
LEARNT = 0.02
"""Of what it took longer this time, how much the next one is given more: many at once take longer each."""


class Expected:
    """One kind of thing that is waited for: the next one is given nearly what the quick ones took."""

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
            await asyncio.sleep(min(GROWS * (time.monotonic() - begun), LONGEST))

    def came(self, begun: float) -> None:
        """Note that what was waited for since `begun`, by the monotonic clock, was just seen."""
        took = time.monotonic() - begun
        self._took = took if took < self._took else self._took + LEARNT * (took - self._took)
