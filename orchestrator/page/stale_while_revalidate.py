"""Stale while revalidate: what takes longer than a page may is shown as it was, while it is looked at again.

As `stale-while-revalidate` of RFC 5861 does for answers of HTTP, here for values of one process. Ages are
counted by a clock that nobody sets, so no step of the wall clock makes an old value fresh or keeps it.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

T = TypeVar("T")

PATIENCE_SECONDS = 0.25
"""How long a page waits for a value."""

FRESH_SECONDS = 20.0
"""How old it may be, before whoever asks next has it looked at again."""

KEPT_SECONDS = 600.0
"""How old it may be to be shown while it is looked at again."""

MOST = 64
"""How many are kept."""

NEVER = float("-inf")


@dataclass
class Found(Generic[T]):
    """What was found last, None before anything was; and whether it is being looked for now.

    `at` is for people to read; it says nothing about its age when the wall clock was set since.
    """

    value: T | None = None
    at: datetime | None = None
    again: bool = False


@dataclass
class _Kept(Generic[T]):
    """One value, the look for it, and when both were, by the clock that nobody sets."""

    found: Found[T]
    found_at: float = NEVER
    work: "asyncio.Task[None] | None" = None
    ended_at: float = NEVER


class StaleWhileRevalidate(Generic[T]):
    """Values that are looked for at their own pace, once for all who see the same."""

    def __init__(
        self,
        fresh: float = FRESH_SECONDS,
        kept: float = KEPT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin with nothing found.

        Args:
            fresh: How old a value may be in seconds, before whoever asks next has it looked at again.
            kept: How old it may be in seconds, to be shown while it is looked at again.
            clock: Counts seconds and never goes back.
        """
        self._fresh_seconds, self._kept_seconds = fresh, kept
        self._clock = clock
        self._kept = OrderedDict[Hashable, _Kept[T]]()

    async def find(self, key: Hashable, look: Callable[[], Coroutine[Any, Any, T]]) -> Found[T]:
        """Return what was found lately; else look, and wait a moment for it. Raise what the look raises."""
        kept = self._kept.setdefault(key, _Kept(Found()))
        self._kept.move_to_end(key)
        while len(self._kept) > MOST:
            self._kept.popitem(last=False)
        self._forget(kept)
        if kept.work is None and self._clock() - kept.found_at > self._fresh_seconds:
            kept.work = asyncio.create_task(self._look(kept, look))
            kept.work.add_done_callback(_heard)
        work = kept.work
        if work is not None:
            await asyncio.wait([work], timeout=PATIENCE_SECONDS)
            if work.done():
                if kept.work is work:
                    kept.work = None
                work.result()
        return Found(kept.found.value, kept.found.at, again=kept.work is not None)

    async def _look(self, kept: _Kept[T], look: Callable[[], Coroutine[Any, Any, T]]) -> None:
        """Look, and write down when that ended, which may be long before anybody asks for it again."""
        try:
            value = await look()
            kept.found, kept.found_at = Found(value, datetime.now(UTC)), self._clock()
        finally:
            kept.ended_at = self._clock()

    def _forget(self, kept: _Kept[T]) -> None:
        """Forget a value that is too old to be shown, and how a look ended that nobody has waited for."""
        now = self._clock()
        if now - kept.found_at > self._kept_seconds:
            kept.found = Found()
        if kept.work is not None and kept.work.done() and now - kept.ended_at > self._fresh_seconds:
            kept.work = None


def _heard(work: "asyncio.Task[None]") -> None:
    """Hear of its failure, also where nobody is left to hear of it."""
    if not work.cancelled():
        work.exception()
