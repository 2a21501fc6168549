"""How often each caller may ask: buckets that fill up again, in this process.

What goes in the safe direction has a bucket of its own, so that a noisy script never keeps anybody
from holding a change or taking it back.
"""

import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable
from enum import Enum
from typing import TypeVar

from policies.model.errors import PenstockError

T = TypeVar("T")

MOST_STREAMS = 16
"""Streams of one person, whose other connections are there to hold a change."""

STREAM_AFTER_SECONDS = 15.0

MOST_CALLERS = 10_000
"""Buckets kept; the one that was used longest ago goes first, and is full when it comes again."""


class Kind(Enum):
    """What is asked."""

    LOOK = "look"
    CHANGE = "change"
    SAFE = "safe"
    STRANGER = "stranger"
    COMPLAINT = "complaint"

    @property
    def size(self) -> int:
        """How many may come at once, and in a minute."""
        return PER_MINUTE[self]

    @property
    def per_second(self) -> float:
        """How fast the bucket fills up again."""
        return self.size / 60


PER_MINUTE = {Kind.LOOK: 600, Kind.CHANGE: 20, Kind.SAFE: 20, Kind.STRANGER: 30, Kind.COMPLAINT: 600}
"""A frame that is drawn twice a second asks 240 times a minute."""


class TooMany(PenstockError):
    """Somebody asks too often; nothing was done, and it may be tried again in a moment."""

    retryable = True

    def __init__(self, sentence: str, after: float) -> None:
        super().__init__(sentence)
        self.after = after
        """Seconds until it may be tried again."""


class Limits:
    """The buckets of everybody who has asked lately."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: OrderedDict[tuple[str, Kind], tuple[float, float]] = OrderedDict()

    def take(self, who: str, kind: Kind) -> None:
        """Take one from the bucket; TooMany when it is empty."""
        now = self._clock()
        level, filled = self._buckets.pop((who, kind), (float(kind.size), now))
        level = min(float(kind.size), level + (now - filled) * kind.per_second)
        taken = level >= 1
        self._buckets[who, kind] = (level - 1 if taken else level, now)
        while len(self._buckets) > MOST_CALLERS:
            self._buckets.popitem(last=False)
        if not taken:
            after = (1 - level) / kind.per_second
            raise TooMany(f"{who} asks more often than {kind.size} times a minute", after)


class Streams:
    """How many streams everybody follows now."""

    def __init__(self) -> None:
        self._followed = Counter[str]()

    def refuse_another(self, person: str) -> None:
        """Return while the person may follow one more; TooMany otherwise."""
        if self._followed[person] >= MOST_STREAMS:
            raise TooMany(f"{person} follows {MOST_STREAMS} streams already", STREAM_AFTER_SECONDS)

    async def counted(self, person: str, stream: AsyncIterator[T]) -> AsyncIterator[T]:
        """Yield what the stream yields, and count it for as long as it does."""
        self._followed[person] += 1
        try:
            async for one in stream:
                yield one
        finally:
            self._followed[person] -= 1
