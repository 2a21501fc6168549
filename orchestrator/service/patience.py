"""Patience: the safe direction has threads of its own, and waits for the ledger so long and no longer.

A ledger whose writer hangs, or whose server is frozen, keeps nobody from holding a change or taking it back.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from policies.model.errors import Unavailable

T = TypeVar("T")

WITHIN_SECONDS = 1.0
"""How long one answer may take."""

LEFT_ALONE_SECONDS = 2.0
"""How long it is not asked again after it did not answer: one request asks more than once."""


SAFE_THREADS = 8
RECOGNISING = 12
RECOGNISERS = ThreadPoolExecutor(RECOGNISING, thread_name_prefix="recognise")
"""In which callers with a credential are recognised: one look-up each, which waits for no writer."""

ROOT = ThreadPoolExecutor(1, thread_name_prefix="root")
"""In which root is recognised at the local socket, who may hold and roll back."""

NEIGHBOURS = ThreadPoolExecutor(2, thread_name_prefix="neighbour")
"""In which people at the local socket are recognised: from a file, whatever the ledger does."""

UNKNOWN_USERS = ThreadPoolExecutor(1, thread_name_prefix="unknown")
"""In which all other users of this host are recognised, most of whom are refused."""

AUTHORISERS = ThreadPoolExecutor(SAFE_THREADS, thread_name_prefix="authorise")
"""In which it is looked up who may hold or roll back."""


async def recognised(work: Callable[[], T]) -> T:
    """Return what the look-up of a caller returns."""
    return await asyncio.get_running_loop().run_in_executor(RECOGNISERS, work)


async def recognised_here(work: Callable[[], T], *, is_root: bool, is_known: bool) -> T:
    """Return what the look-up of a caller at the local socket returns."""
    threads = ROOT if is_root else NEIGHBOURS if is_known else UNKNOWN_USERS
    return await asyncio.get_running_loop().run_in_executor(threads, work)


async def authorised(work: Callable[[], T]) -> T:
    """Return what the look-up of a caller's rights to hold or roll back returns."""
    return await asyncio.get_running_loop().run_in_executor(AUTHORISERS, work)


class Patience:
    """Asks in threads of its own, which nothing else uses up."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(SAFE_THREADS, thread_name_prefix="safe")
        self._left_alone_until = 0.0

    async def ask(self, work: Callable[[], T]) -> T:
        """Return what the work returns.

        Raises:
            Unavailable: It did not answer in time; it may still be done.
        """
        if time.monotonic() < self._left_alone_until:
            raise Unavailable("the ledger does not answer")
        try:
            async with asyncio.timeout(WITHIN_SECONDS):
                return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except (TimeoutError, Unavailable) as error:
            self._left_alone_until = time.monotonic() + LEFT_ALONE_SECONDS
            raise Unavailable(str(error) or "the ledger does not answer") from error
