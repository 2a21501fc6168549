"""Compensation: work that is finished however often its workflow is cancelled meanwhile."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from temporalio import workflow

T = TypeVar("T")


def heed_cancellation() -> None:
    """Raise CancelledError when the workflow was cancelled; called by loops, one turn after the other.

    A step or a signal that was under way takes a cancellation as its own failure, and who goes on without
    it would go on for ever.
    """
    if workflow.cancellation_reason() is not None:
        raise asyncio.CancelledError


async def to_the_end(work: Awaitable[T]) -> T:
    """Finish the work and return its result; a cancellation of the caller is heard and not obeyed."""
    task = asyncio.ensure_future(work)
    while True:
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise
