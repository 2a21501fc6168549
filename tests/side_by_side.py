"""Tests that mostly wait for real clocks, played a few at a time: each passes or fails by itself."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Generic, TypeVar

import pytest

S = TypeVar("S")
Scene = Callable[[S], Awaitable[None]]
Playing = dict[str, "asyncio.Task[None]"]
"""Each test under way, by its name."""


class SideBySide(Generic[S]):
    """The tests of one module that are played so, each on a stage of its own."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._scenes: dict[str, Scene[S]] = {}

    def plays(self, scene: Scene[S]) -> Callable[[Playing], Awaitable[None]]:
        """Have this test played beside the others; it takes the stage as its only argument."""
        name = scene.__name__
        self._scenes[name] = scene

        async def test(playing: Playing) -> None:
            await playing[name]

        test.__name__, test.__qualname__, test.__doc__ = name, name, scene.__doc__
        return test

    @asynccontextmanager
    async def playing(
        self, items: Iterable[pytest.Item], stage: Callable[[], AbstractAsyncContextManager[S]]
    ) -> AsyncIterator[Playing]:
        """Play those of these items for the length of the body, in order; what then still plays is ended."""
        names = {item.name for item in items}
        room = asyncio.Semaphore(self._at_once)

        async def play(scene: Scene[S]) -> None:
            async with room, stage() as set_up:
                await scene(set_up)

        begun = {
            name: asyncio.create_task(play(scene)) for name, scene in self._scenes.items() if name in names
        }
        try:
            yield begun
        finally:
            for task in begun.values():
                task.cancel()
            await asyncio.gather(*begun.values(), return_exceptions=True)
