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

    def __init__(self, kept: timedelta = timedelta(0), kept_for_each: timedelta = timedelta(0)) -> None:
        """Begin with nothing under way.

        Args:
            kept: How long an answer is shared after it was found, at least.
            kept_for_each: The same for each gateway of the fleet; the longer of both counts.
        """
        self._kept, self._kept_for_each = kept, kept_for_each
        self._under_way: dict[tuple[str, str], tuple[Fleet, asyncio.Task[T]]] = {}
        self._next: dict[str, tuple[Fleet, asyncio.Task[T]]] = {}
        self._anew: dict[str, asyncio.Task[T]] = {}

    async def at(self, fleet: Fleet, look: Callable[[], Coroutine[Any, Any, T]], about: str = "") -> T:
        """Return what the look at this fleet that is under way finds, or begin one; raise what it raises.

        Looks at different parts of a fleet are kept apart by `about`, for example a gateway's name. Who stops
        waiting ends nobody else's look. A fleet whose file has changed is looked at anew.
        """
        key = (fleet.name, about)
        known, looking = self._under_way.get(key, (None, None))
        if looking is None or known != fleet:
            looking = asyncio.create_task(look())
            self._under_way[key] = (fleet, looking)
            looking.add_done_callback(lambda done: self._forget(key, fleet, done))
        return await asyncio.shield(looking)

    async def anew(self, fleet: Fleet, look: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return what a look finds that begins after this was asked for; raise what it raises.

        One such look at a fleet is under way at a time. Everybody who asks meanwhile gets the one after it.
        """
        known, coming = self._next.get(fleet.name, (None, None))
        if coming is None or known != fleet:
            coming = asyncio.create_task(self._after_the_last(fleet, look))
            coming.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._next[fleet.name] = (fleet, coming)
        return await asyncio.shield(coming)

    async def _after_the_last(self, fleet: Fleet, look: Callable[[], Coroutine[Any, Any, T]]) -> T:
        mine: Any = asyncio.current_task()
        while (before := self._anew.get(fleet.name)) is not None:
            await asyncio.wait([before])
        self._anew[fleet.name] = mine
        if self._next.get(fleet.name, (None, None))[1] is mine:
            del self._next[fleet.name]  # who asks from here on asks too late for this one
        try:
            return await look()
        finally:
            del self._anew[fleet.name]

    def _forget(self, key: tuple[str, str], fleet: Fleet, done: asyncio.Task[T]) -> None:
        failed = done.cancelled() or done.exception() is not None  # nobody may be left to hear of it
        kept = max(self._kept, len(fleet.gateways) * self._kept_for_each)
        if kept and not failed:
            asyncio.get_running_loop().call_later(kept.total_seconds(), self._drop, key, done)
        else:
            self._drop(key, done)

    def _drop(self, key: tuple[str, str], done: asyncio.Task[T]) -> None:
        if self._under_way.get(key, (None, None))[1] is done:
            del self._under_way[key]
