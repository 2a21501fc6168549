"""Blocking work beside the loop, which does not outlive the step that asked for it."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def to_its_end(
    work: Callable[..., T], *arguments: object, give_up: Callable[[], None] | None = None, **named: object
) -> T:
    """Do blocking work beside the loop; a step that is cancelled is not over before its thread is.

    Else the thread would write on beside the next try of the step. `give_up` has it end early.
    """
    working = asyncio.ensure_future(asyncio.to_thread(work, *arguments, **named))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        if give_up is not None:
            give_up()
        working.add_done_callback(_heard)
        await asyncio.wait({working})
        raise


def _heard(working: "asyncio.Future[T]") -> None:
    """Take note of how the work ended, which nobody asks about any more."""
    if not working.cancelled():
        working.exception()
