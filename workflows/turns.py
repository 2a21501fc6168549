"""Turns: of many who have to do something one does it at a time, with a pause after each."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta

from temporalio import workflow


class Turns:
    """First come, first served; who waits may be called away, and has then lost the place."""

    def __init__(self, next_at: datetime) -> None:
        self.next_at = next_at
        """No turn begins earlier."""
        self._taken = asyncio.Lock()

    @asynccontextmanager
    async def turn(self, called_away: Callable[[], bool]) -> AsyncIterator[bool]:
        """Wait for the turn, which lasts as long as the block; yield False when called away before it."""
        waiting = asyncio.create_task(self._taken.acquire())
        try:
            await workflow.wait_condition(lambda: waiting.done() or called_away())
            pause = self.next_at - workflow.now()
            if waiting.done() and pause > timedelta(0):
                with suppress(TimeoutError):
                    await workflow.wait_condition(called_away, timeout=pause)
            yield waiting.done() and not called_away()
        finally:
            if not waiting.done():
                waiting.cancel()
            elif not waiting.cancelled():
                self._taken.release()

    def pause(self, length: timedelta) -> None:
        """Let the next turn begin so much later."""
        self.next_at = workflow.now() + length
