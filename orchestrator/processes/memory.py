"""Give freed memory back to the system.

The engine's client frees its copies of a history in many small pieces, from many threads, and the C library
keeps such pieces for itself, in a heap for each thread (mallopt(3), malloc_trim(3)). Of 209 MB that a worker
held while 2,000 gateways were changed, 90 had been freed and not given back; with one heap it was 30, of
blocks that had been large: a table that grows is copied, and leaves a hole.
"""

import asyncio
import ctypes
from datetime import timedelta

EVERY = timedelta(seconds=10)
"""How often freed memory is given back; it takes some milliseconds."""

LARGE = 64 * 1024
"""Bytes from which on a block has a mapping of its own, which the system has back once it is freed.

Left to itself the library raises this to as much as 32 MB (mallopt(3), "dynamic mmap threshold").
"""

_ARENA_MAX = -8
"""`M_ARENA_MAX` of the C library's malloc.h."""

_MMAP_THRESHOLD = -3
"""`M_MMAP_THRESHOLD` of the same."""


class _Library:
    """The C library's memory, where it is GNU's; elsewhere nothing happens."""

    def __init__(self) -> None:
        library = ctypes.CDLL(None)
        self._option = getattr(library, "mallopt", None)
        self._trim = getattr(library, "malloc_trim", None)

    def keep_heaps_small(self) -> None:
        """Let threads that have no heap of their own yet share those that there are, for small blocks."""
        if self._option is not None:
            self._option(_ARENA_MAX, 1)
            self._option(_MMAP_THRESHOLD, LARGE)

    def give_back(self) -> None:
        """Return what is free to the system."""
        if self._trim is not None:
            self._trim(0)


def keep_heaps_small() -> None:
    """Let this process's threads share the heaps that there are; said before the engine's client has any."""
    _Library().keep_heaps_small()


async def keep_giving_back() -> None:
    """Keep heaps small, and return what is free to the system for as long as this runs."""
    library = _Library()
    library.keep_heaps_small()
    while True:
        await asyncio.sleep(EVERY.total_seconds())
        await asyncio.to_thread(library.give_back)
