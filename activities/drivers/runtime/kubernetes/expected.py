"""How long the cluster takes for a thing, so that it is not asked before there is anything to see."""

import time
from collections.abc import Iterator

SOON = 0.9
"""Of the time that it took before, when the first question is asked."""
LONGEST_FIRST = 10.0
"""Seconds until the first question at most, whatever it took before."""
LONGEST = 1.0
"""Seconds between two at most."""
GROWS = 0.15
"""Of the time that has gone by, how long it is until the next question."""
LEARNT = 0.02
"""Of what it took longer this time, how much the next one is given more: many at once take longer each."""


class Expected:
    """One kind of thing that is waited for: the next one is given nearly what the quick ones took."""

    def __init__(self) -> None:
        self._took = 0.0

    def looks(self, within: float, *, begun_before: bool = False) -> Iterator[float]:
        """Yield for each look how many seconds it need not come before; what ends the loop early has come.

        One that comes sooner puts off none of the later ones. The last begins after `within` seconds. What
        was begun before may be there already, and is looked for at once.
        """
        begun = now = time.monotonic()
        first = 0.0 if begun_before else min(self._took * SOON, LONGEST_FIRST, within)
        due, last = now + first, False
        while not last:
            last = now - begun > within
            yield max(0.0, due - now)
            now = time.monotonic()
            if now >= due:
                due = now + min(GROWS * (now - begun), LONGEST)

    def came(self, begun: float) -> None:
        """Note that what was waited for since `begun`, by the monotonic clock, was just seen."""
        took = time.monotonic() - begun
        self._took = took if took < self._took else self._took + LEARNT * (took - self._took)
