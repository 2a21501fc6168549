"""Fan-out: one child workflow a part, no more at once than the engine serves within a step's time."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")

PARTS_AT_ONCE = 12
"""Six hundred gateways: at a hundred steps a second each is asked long before its question expires."""


async def side_by_side(starts: Iterable[Callable[[], Awaitable[T]]], at_once: int = PARTS_AT_ONCE) -> list[T]:
    """Run all and return their results in order; the next begins when one of those under way has ended."""
    turns = asyncio.Semaphore(at_once)

    async def in_turn(start: Callable[[], Awaitable[T]]) -> T:
        async with turns:
            return await start()

    return await asyncio.gather(*map(in_turn, starts))
