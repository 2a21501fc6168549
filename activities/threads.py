"""Blocking work beside the loop, which does not outlive the step that asked for it."""

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from functools import partial
from typing import Any, Generic, TypeVar

T = TypeVar("T")


async def to_its_end(
    work: Callable[..., T],
    *arguments: object,
    give_up: Callable[[], None] | None = None,
    threads: Executor | None = None,
) -> T:
    """Do blocking work beside the loop; a step that is cancelled is not over before its thread is.

    Else the thread would write on beside the next try of the step.

    Args:
        work: What is done, with these arguments.
        arguments: Of the work.
        give_up: Has the work end early.
        threads: Where it is done; in the threads of the loop where none are given.
    """
    called = partial(contextvars.copy_context().run, partial(work, *arguments))
    working = asyncio.ensure_future(asyncio.get_running_loop().run_in_executor(threads, called))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        if give_up is not None:
            give_up()
        working.add_done_callback(_heard)
        await asyncio.wait({working})
        raise


class OwnLoop(Generic[T]):
    """A step as blocking work for a thread, in which the step has an event loop of its own.

    A step that blocks its loop, or takes all threads of its loop, delays nothing else in the process.
    """

    def __init__(self, step: Callable[[], Coroutine[Any, Any, T]]) -> None:
        """Make the step a function that a thread calls once."""
        self._step = step
        self._turn = threading.Lock()
        self._given_up = False
        self._cancel: Callable[[], object] | None = None

    def __call__(self) -> T:
        """Return what the step returns.

        Raises:
            CancelledError: It was given up.
        """
        return asyncio.run(self._run())

    def give_up(self) -> None:
        """Cancel the step, from any thread; one that has not begun does nothing."""
        with self._turn:
            self._given_up = True
            if self._cancel is not None:
                self._cancel()

    async def _run(self) -> T:
        task = asyncio.ensure_future(self._step())
        with self._turn:
            self._cancel = partial(asyncio.get_running_loop().call_soon_threadsafe, task.cancel)
            if self._given_up:
                task.cancel()
        try:
            return await task
        finally:
            with self._turn:
                self._cancel = None


def _heard(working: "asyncio.Future[T]") -> None:
    """Take note of how the work ended, which nobody asks about any more."""
    if not working.cancelled():
        working.exception()
