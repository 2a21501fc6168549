"""A change's story, written to the ledger as it grows, where every frontend reads it."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

from temporalio import workflow

from activities.ledger import LedgerActivities, StoryEntry
from policies.model.change import ChangeOrder
from policies.status.story import Story
from workflows import control, steps

WRITTEN_EVERY = timedelta(milliseconds=500)
"""Between two entries; what happens meanwhile is in the next one. What a person ordered waits for none."""

SLOW, SLOWEST = timedelta(minutes=1), timedelta(minutes=10)
"""Between two tries while the ledger does not answer: each pause is twice the one before, up to the first.

Up to the second once the history is long: the ledger may be away for days while a wave runs, in which the
history of a change is not cut.
"""

BYTES_A_SECOND = 16 * 1024
"""Of entries that are written one after the other: each is kept in the change's history."""


class StoryRecord:
    """What of the story stands in the ledger, and what has yet to be written."""

    def __init__(self, order: Callable[[], ChangeOrder], story: Story, written: int = 0) -> None:
        """Go on after as many events as were written before."""
        self._order = order
        self._story = story
        self._told: object = None
        self._over = False
        self._is_ordered = False
        self._writing = asyncio.Lock()
        self._pause = WRITTEN_EVERY
        self._unanswered = timedelta(0)
        """The pause since the ledger does not answer."""
        self.written = written

    async def keep(self) -> None:
        """Write whatever is new until the story is over and all of it is written, or cannot be."""
        while not self._over or self._is_new:
            await workflow.wait_condition(lambda: self._over or self._is_new)
            if await self.write():
                self._unanswered = timedelta(0)
            elif self._over:
                return
            else:
                slowest = SLOWEST if steps.history_is_too_long() else SLOW
                self._unanswered = min(max(2 * self._unanswered, WRITTEN_EVERY), slowest)
            pause = max(self._pause, self._unanswered)
            with suppress(TimeoutError):
                await workflow.wait_condition(
                    lambda: self._over or (self._is_ordered and self._is_new), timeout=pause
                )

    def hurry(self) -> None:
        """Write at once what a person ordered, who waits until every screen shows it."""
        self._is_ordered = True

    def end(self) -> None:
        """Let `keep` write what is left and return."""
        self._over = True

    @property
    def _is_new(self) -> bool:
        return bool(self._story.name) and self._story.dump() is not self._told

    async def write(self) -> bool:
        """Write what is new by now; False when the ledger does not take it."""
        async with self._writing:
            return await self._write()

    async def _write(self) -> bool:
        if not self._is_new:
            return True
        told, self._is_ordered = self._story.dump(), False
        first = max(self.written, told.earlier_events)
        entry = StoryEntry(
            order=self._order(),
            told=told.model_copy(update={"events": ()}),
            first=first,
            events=told.events[first - told.earlier_events :],
        )
        self._pause = max(WRITTEN_EVERY, timedelta(seconds=len(entry.model_dump_json()) / BYTES_A_SECOND))
        if not await control.note(LedgerActivities.record_story, entry, "the story"):
            return False
        self._told = told
        self.written = first + len(entry.events)
        return True
