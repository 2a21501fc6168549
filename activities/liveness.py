"""Heartbeats for steps that work longer than a moment, so that a killed process is noticed at once."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from temporalio import activity

from activities.failures import as_application_errors

T = TypeVar("T")

BEAT_SECONDS = 1.0


@asynccontextmanager
async def heartbeating() -> AsyncIterator[None]:
    """Heartbeat every second while the body runs."""
    beat = asyncio.create_task(_beat())
    try:
        yield
    finally:
        beat.cancel()


async def _beat() -> None:
    while True:
        await asyncio.sleep(BEAT_SECONDS)  # most steps are over before, and spare the engine a beat
        activity.heartbeat()


@asynccontextmanager
async def answering() -> AsyncIterator[None]:
    """Do a step's work with heartbeats, and with its errors as the engine's."""
    with as_application_errors():
        async with heartbeating():
            yield


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


async def in_a_thread(work: Callable[..., T], *arguments: object) -> T:
    """Do a step's blocking work beside the loop; else as `answering` does."""
    async with answering():
        return await asyncio.to_thread(work, *arguments)
