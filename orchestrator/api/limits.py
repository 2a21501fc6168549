"""How often each caller may ask: buckets that fill up again, in this process.

What goes in the safe direction has a bucket of its own, so that a noisy script never keeps anybody
from holding a change or taking it back.
"""

import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import TypeVar

from policies.model.errors import TooMany

T = TypeVar("T")

MOST_STREAMS = 16
"""Streams of one person, whose other connections are there to hold a change."""

STREAM_AFTER_SECONDS = 15.0

MOST_DESCRIPTIONS = 2
"""Descriptions of one person that are read and looked through at a time: each takes many times its length."""

DESCRIPTION_AFTER_SECONDS = 2.0

MOST_CALLERS = 10_000
"""Buckets kept; the one that was used longest ago goes first, and is full when it comes again."""


class Kind(Enum):
    """What is asked."""

    LOOK = "look"
    CHANGE = "change"
    SAFE = "safe"
    STRANGER = "stranger"
    LOGIN = "login"
    COMPLAINT = "complaint"
    TICKET = "ticket"
    CHAT = "chat"
    SHEET = "sheet"
    """Sheets of orders in the safe direction: an operator reads one before giving the order."""
    INVALID = "invalid"
    """Requests of a known caller that make no sense."""

    @property
    def size(self) -> int:
        """How many may come at once, and in a minute."""
        return PER_MINUTE[self]

    @property
    def per_second(self) -> float:
        """How fast the bucket fills up again."""
        return self.size / 60


PER_MINUTE = {
    Kind.LOOK: 600,
    Kind.CHANGE: 20,
    Kind.SAFE: 20,
    Kind.STRANGER: 30,
    Kind.LOGIN: 120,
    Kind.COMPLAINT: 600,
    Kind.TICKET: 120,
    Kind.CHAT: 300,
    Kind.SHEET: 60,
    Kind.INVALID: 60,
}
"""A frame that is drawn twice a second asks 240 times a minute."""


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
            raise _empty(who, kind, level)

    def require(self, who: str, kind: Kind) -> None:
        """Return while one could be taken from the bucket, and take none; TooMany when it is empty."""
        found = self._buckets.get((who, kind))
        if found is None:
            return
        level = found[0] + (self._clock() - found[1]) * kind.per_second
        if level < 1:
            raise _empty(who, kind, level)

    def give_back(self, who: str, kind: Kind) -> None:
        """Put back what was taken for something that turned out well, and is counted for nobody."""
        level, filled = self._buckets.get((who, kind), (float(kind.size), self._clock()))
        self._buckets[who, kind] = (min(float(kind.size), level + 1), filled)


def _empty(who: str, kind: Kind, level: float) -> TooMany:
    after = (1 - level) / kind.per_second
    return TooMany(f"{who} asks more often than {kind.size} times a minute", after)


class AtOnce:
    """How many of something each person has under way; whoever has none is forgotten."""

    def __init__(self, most: int, refusal: str, after: float) -> None:
        """Take how many there may be, what is said after a person's name to one more, and seconds to wait."""
        self._most, self._refusal, self._after = most, refusal, after
        self._under_way = Counter[str]()

    def refuse_another(self, person: str) -> None:
        """Return while the person may have one more; TooMany otherwise."""
        if self._under_way[person] >= self._most:
            raise TooMany(f"{person} {self._refusal}", self._after)

    @contextmanager
    def one(self, person: str) -> Iterator[None]:
        """Count one more for the length of the body."""
        self._under_way[person] += 1
        try:
            yield
        finally:
            self._under_way[person] -= 1
            if not self._under_way[person]:
                del self._under_way[person]

    async def counted(self, person: str, stream: AsyncIterator[T]) -> AsyncIterator[T]:
        """Yield what the stream yields, and count it for as long as it does."""
        with self.one(person):
            async for one in stream:
                yield one


def streams() -> AtOnce:
    """Return what counts the streams that everybody follows."""
    return AtOnce(MOST_STREAMS, f"follows {MOST_STREAMS} streams already", STREAM_AFTER_SECONDS)


def descriptions() -> AtOnce:
    """Return what counts the descriptions that are read and looked through."""
    said = f"sends {MOST_DESCRIPTIONS} descriptions already; send this one after them"
    return AtOnce(MOST_DESCRIPTIONS, said, DESCRIPTION_AFTER_SECONDS)
