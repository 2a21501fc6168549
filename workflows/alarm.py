"""An alarm: what does not happen in time is noticed, whatever the clock says."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

from temporalio import workflow


class Alarm:
    """Rings so long after it was set, by a timer of the engine.

    The time of a run stands still while the engine's clock is behind what it was, and would not come.
    """

    def __init__(self, ring: Callable[[], None] = lambda: None) -> None:
        """Be silent until it is set."""
        self._ring = ring
        self._waiting: asyncio.Task[None] | None = None
        self.rings = False
        """Whether the time it was set for is over."""

    def set(self, length: timedelta | None) -> None:
        """Ring so long from now on, and not when it was to before; never where that is None."""
        self.stop()
        self.rings = length is not None and length <= timedelta(0)
        if length is not None and not self.rings:
            self._waiting = asyncio.create_task(self._wait(length))

    def stop(self) -> None:
        """Leave it as it is: a workflow that ends waits for nothing more."""
        if self._waiting is not None:
            self._waiting.cancel()
        self._waiting = None

    async def _wait(self, length: timedelta) -> None:
        await workflow.sleep(length)
        self._waiting, self.rings = None, True
        self._ring()
