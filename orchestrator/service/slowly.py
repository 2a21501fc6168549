"""Work that takes seconds for a large fleet, in few threads of its own: no hold or rollback waits for it."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

THREADS = 2
"""The record may be verified for minutes while somebody compares files; more would only share a processor."""

SLOW = ThreadPoolExecutor(THREADS, thread_name_prefix="slow")

T = TypeVar("T")


async def slowly(work: Callable[[], T]) -> T:
    """Do it there, once those who asked before are served; everything else has the threads of its process."""
    return await asyncio.get_running_loop().run_in_executor(SLOW, work)
