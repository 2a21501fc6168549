"""Give freed memory back to the system.

The engine's client frees its copies of a history in many small pieces, from many threads, and the C library
keeps such pieces for itself, in a heap for each thread (mallopt(3), malloc_trim(3)). Of 209 MB that a worker
held while 2,000 gateways were changed, 90 had been freed and not given back.
"""

import asyncio
import ctypes
from datetime import timedelta

EVERY = timedelta(seconds=10)
"""How often freed memory is given back; it takes some milliseconds."""

_ARENA_MAX = -8
"""`M_ARENA_MAX` of the C library's malloc.h."""


class _Library:
    """The C library's memory, where it is GNU's; elsewhere nothing happens."""

    def __init__(self) -> None:
        library = ctypes.CDLL(None)
        self._option = getattr(library, "mallopt", None)
        self._trim = getattr(library, "malloc_trim", None)

    def make_no_more_heaps(self) -> None:
        """Let threads that have no heap of their own yet take memory from those that there are."""
        if self._option is not None:
            self._option(_ARENA_MAX, 1)

    def give_back(self) -> None:
        """Return what is free to the system."""
        if self._trim is not None:
            self._trim(0)


def make_no_more_heaps() -> None:
    """Let this process's threads share the heaps that there are; said before the engine's client has any."""
    _Library().make_no_more_heaps()


async def keep_giving_back() -> None:
    """Make no further heaps for threads, and return what is free to the system for as long as this runs."""
    library = _Library()
    library.make_no_more_heaps()
    while True:
        await asyncio.sleep(EVERY.total_seconds())
        await asyncio.to_thread(library.give_back)
