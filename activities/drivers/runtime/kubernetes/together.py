"""Many who wait for the cluster share one question: whoever asks is answered by the next list that begins."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

SHARE_OF_TIME = 1
"""A list that took a second is followed by one without, so that large fleets' lists stay rare."""
LONGEST_PAUSE = 2.0
"""Seconds without one at most, however many wait: who looks at a node gives up after a few."""


@dataclass(frozen=True)
class _Waiting(Generic[K, V]):
    """One who waits."""

    key: K
    due: float
    """When it is worth while to begin a question for this one alone, by the monotonic clock."""
    answer: "asyncio.Future[V | None]"


class Together(Generic[K, V]):
    """One kind of question, asked for all that wait for it at once."""

    def __init__(
        self,
        read: Callable[[set[K]], Awaitable[Mapping[K, V]]],
        *,
        gather: float,
        apart: float,
        each: float = 0.0,
    ) -> None:
        """Ask by `read`, `gather` seconds after the first who waits, and `apart` seconds from the last time.

        For `each` who waited then it is so much longer: what many wait for does not come to all at once.
        """
        self._read = read
        self._gather = gather
        self._apart = apart
        self._each = each
        self._waiting: list[_Waiting[K, V]] = []
        self._asking: asyncio.Task[None] | None = None
        self._not_before = 0.0
        self._sooner = asyncio.Event()

    async def ask(self, key: K, after: float = 0.0) -> V | None:
        """Return what a question that begins after this moment finds, None where it finds nothing.

        `after` is for how many seconds none is begun for this one alone; the others' answers it, too.

        Raises:
            Whatever the question raises, for everybody who waited for it.
        """
        answer: asyncio.Future[V | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(key, time.monotonic() + max(after, self._gather), answer))
        self._sooner.set()
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._serve())
        return await answer

    async def _serve(self) -> None:
        while self._waiting:
            self._sooner.clear()
            begins = max(self._not_before, min(one.due for one in self._waiting))
            with suppress(TimeoutError):
                await asyncio.wait_for(self._sooner.wait(), max(0.0, begins - time.monotonic()))
                continue  # somebody new, who may not want to wait so long
            asked = [one for one in self._waiting if not one.answer.done()]
            self._waiting = []
            if asked:
                await self._answer(asked)

    async def _answer(self, asked: list[_Waiting[K, V]]) -> None:
        begun = time.monotonic()
        found: Mapping[K, V] = {}
        wrong: BaseException | None = None
        try:
            found = await self._read({one.key for one in asked})
        except BaseException as error:  # noqa: BLE001 - it is everybody's who waits, and raised there
            wrong = error
        now = time.monotonic()
        pause = max(self._apart + self._each * len(asked), SHARE_OF_TIME * (now - begun))
        self._not_before = now + min(pause, max(self._apart, LONGEST_PAUSE))
        for one in asked:
            with suppress(asyncio.InvalidStateError):  # who has given up meanwhile
                if wrong is None:
                    one.answer.set_result(found.get(one.key))
                else:
                    one.answer.set_exception(wrong)
        if isinstance(wrong, asyncio.CancelledError):
            raise wrong
