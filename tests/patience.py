"""How long tests wait for what comes before their subject: a server that starts, a step that is taken up."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from temporalio.client import WorkflowQueryFailedError
from temporalio.service import RPCError, RPCStatusCode

from policies.model.errors import Unavailable

T = TypeVar("T")
PATIENCE = 100.0
"""Seconds until what has not come is not going to come, on a machine that is busy or half as fast as another.

It is for no wait whose length a test promises: what happens at once, before a lease ends or within seconds
keeps a bound of its own.
"""
LOOKED_AGAIN, ASKED_AGAIN = 0.02, 0.1
"""Seconds between two looks at what this process knows, and between two questions to another one."""


@contextmanager
def _although_busy() -> Iterator[None]:
    """Take it for no answer that an engine, or a worker, was too busy to answer in time."""
    try:
        yield
    except RPCError as error:
        if error.status not in (RPCStatusCode.CANCELLED, RPCStatusCode.DEADLINE_EXCEEDED):
            raise
    except WorkflowQueryFailedError as error:
        if "TMPRL1101" not in error.message:
            raise
    except Unavailable:
        pass


async def until(
    is_so: Callable[[], Awaitable[bool] | bool],
    seconds: float = PATIENCE,
    found: Callable[[], object] | None = None,
) -> None:
    """Wait until something is so that nobody reports; an engine that is too busy to answer is asked again.

    Raises:
        TimeoutError: It is not so in time; says what was `found` instead.
    """
    try:
        async with asyncio.timeout(seconds):
            while True:
                answer = is_so()
                if isinstance(answer, bool):
                    is_there, again = answer, LOOKED_AGAIN
                else:
                    is_there, again = False, ASKED_AGAIN
                    with _although_busy():
                        is_there = await answer
                if is_there:
                    return
                await asyncio.sleep(again)
    except TimeoutError as late:
        raise TimeoutError(f"not so within {seconds:g} s; found: {found()}" if found else str(late)) from late


async def answered(ask: Callable[[], Awaitable[T]]) -> T:
    """Return what an engine says that may be too busy to say it at once.

    Raises:
        TimeoutError: It has not answered in `PATIENCE` seconds.
    """
    async with asyncio.timeout(PATIENCE):
        while True:
            with _although_busy():
                return await ask()
            await asyncio.sleep(ASKED_AGAIN)


def wait_until(
    is_so: Callable[[], bool], seconds: float = PATIENCE, found: Callable[[], object] | None = None
) -> None:
    """Do the same where no other task of this process has to go on meanwhile."""
    ends = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > ends:
            raise TimeoutError(f"not so within {seconds:g} s" + (f"; found: {found()}" if found else ""))
        time.sleep(ASKED_AGAIN)
