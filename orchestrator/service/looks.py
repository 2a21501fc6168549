"""Looks: one survey of a fleet at a time, whose answer everybody gets who asks meanwhile.

A survey asks every gateway. Without this, each of many viewers had each gateway asked for himself.
"""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, Generic, TypeVar

from policies.model.fleet import Fleet

T = TypeVar("T")


class Looks(Generic[T]):
    """What is being looked at now, by fleet."""

    def __init__(self, kept: timedelta = timedelta(0)) -> None:
        """Begin with nothing under way; what a look has found is believed for so long."""
        self._kept = kept.total_seconds()
        self._under_way: dict[str, tuple[Fleet, asyncio.Task[T]]] = {}

    async def at(self, fleet: Fleet, look: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return what the look at this fleet that is under way finds, or begin one; raise what it raises.

        Who stops waiting ends nobody else's look. A fleet whose file has changed is looked at anew.
        """
        known, looking = self._under_way.get(fleet.name, (None, None))
        if looking is None or known != fleet:
            looking = asyncio.create_task(look())
            self._under_way[fleet.name] = (fleet, looking)
            looking.add_done_callback(lambda done: self._forget(fleet.name, done))
        return await asyncio.shield(looking)

    def _forget(self, fleet: str, done: asyncio.Task[T]) -> None:
        failed = done.cancelled() or done.exception() is not None  # nobody may be left to hear of it
        if self._kept and not failed:
            asyncio.get_running_loop().call_later(self._kept, self._drop, fleet, done)
        else:
            self._drop(fleet, done)

    def _drop(self, fleet: str, done: asyncio.Task[T]) -> None:
        if self._under_way.get(fleet, (None, None))[1] is done:
            del self._under_way[fleet]
