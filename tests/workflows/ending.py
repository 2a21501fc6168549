"""Workers of tests whose end is waited for so long and no longer, and who say what they hang on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from types import CoroutineType
from typing import Any

from temporalio.worker import Worker

from orchestrator.processes.process import NotEnded, ending_within

WITHIN = timedelta(seconds=30)
"""Time within which a worker has ended, on a machine that has other things to do."""


class WorkerHangs(AssertionError):
    """A worker did not end; its message lists what every task of this process waits for."""


@asynccontextmanager
async def ending(worker: Worker) -> AsyncIterator[None]:
    """Run the worker for as long as the block lasts; raise WorkerHangs when it does not end after it."""
    try:
        async with ending_within(worker, WITHIN):
            yield
    except NotEnded as error:
        waiting = "\n".join(sorted(" > ".join(_waits_in(task)) for task in asyncio.all_tasks()))
        raise WorkerHangs(f"{error}; tasks:\n{waiting}") from error


def _waits_in(task: "asyncio.Task[Any]") -> list[str]:
    """Return the calls that the task is in, outermost first."""
    found: list[str] = []
    inner: object = task.get_coro()
    while isinstance(inner, CoroutineType) and inner.cr_frame is not None:
        found.append(f"{inner.__qualname__}:{inner.cr_frame.f_lineno}")
        inner = inner.cr_await
    return [*found, repr(inner)]
