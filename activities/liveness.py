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


async def in_a_thread(work: Callable[..., T], *arguments: object) -> T:
    """Do a step's blocking work beside the loop; else as `answering` does."""
    async with answering():
        return await asyncio.to_thread(work, *arguments)
