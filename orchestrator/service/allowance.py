"""Allowances: how often one thing may be done for each of its keys, counted in this process."""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

MOST_KEYS = 10_000
"""Keys that are counted; the one that was used longest ago is dropped first, and begins anew."""


class Allowance:
    """Lets something happen so many times at once, and again as fast as the allowance refills."""

    def __init__(self, size: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin full.

        Args:
            size: How many times at once.
            seconds: In how many seconds an empty allowance is full again.
            clock: Counts seconds and never goes back.
        """
        self._size, self._seconds, self._clock = size, seconds, clock
        self._left = OrderedDict[Hashable, tuple[float, float]]()

    def take(self, key: Hashable) -> float:
        """Take one of what the key has left; return 0.0, or in how many seconds there is one to take."""
        now = self._clock()
        left, counted = self._left.pop(key, (float(self._size), now))
        left = min(float(self._size), left + (now - counted) * self._size / self._seconds)
        wait = max(0.0, 1 - left) * self._seconds / self._size
        self._left[key] = (left if wait else left - 1, now)
        while len(self._left) > MOST_KEYS:
            self._left.popitem(last=False)
        return wait
