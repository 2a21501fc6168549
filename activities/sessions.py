"""Sessions: counting them, waiting for them to end, and ending them when a deadline or a person says so."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Protocol

from temporalio import activity

from activities.failures import as_application_errors
from policies.words.errors import Unavailable
from policies.words.operation import Operation
from policies.words.word import Word

POLL = timedelta(seconds=1)


class DrainOrder(Word):
    """Wait until the slot's last session has ended, or until the deadline."""

    operation: Operation
    slot: str
    deadline: datetime


class EndOrder(Word):
    """End the slot's sessions in batches; only a deadline or a person orders this."""

    operation: Operation
    slot: str
    batch: int
    reason: str


class Drained(Word):
    """How a wait for sessions ended."""

    empty: bool
    left: int | None
    """Sessions still alive; None when they could not be counted, which is never the same as zero."""


class SessionTable(Protocol):
    """The live sessions of the instances of one gateway."""

    async def count(self, slot: str) -> int | None:
        """Return how many sessions live in the slot; 0 for a slot where nothing runs, None when unknown."""
        ...

    async def end(self, operation: Operation, slot: str, batch: int) -> int:
        """End up to `batch` sessions; return how many were ended."""
        ...


class SessionActivities:
    """Session steps on one gateway; safe to repeat after any crash."""

    def __init__(self, sessions: SessionTable) -> None:
        self._sessions = sessions

    @activity.defn(name="drain_instance")
    async def drain_instance(self, order: DrainOrder) -> Drained:
        """Return when the slot was seen empty twice in a row, or when the deadline has passed."""
        seen_empty = 0
        with as_application_errors():
            while True:
                left = await self._sessions.count(order.slot)
                activity.heartbeat(left)
                seen_empty = seen_empty + 1 if left == 0 else 0
                if seen_empty > 1:
                    return Drained(empty=True, left=0)
                if datetime.now(UTC) >= order.deadline:
                    return Drained(empty=False, left=left)
                await asyncio.sleep(POLL.total_seconds())

    @activity.defn(name="end_sessions")
    async def end_sessions(self, order: EndOrder) -> int:
        """End the slot's sessions batch by batch; return how many were ended in all."""
        ended = 0
        with as_application_errors():
            while (left := await self._sessions.count(order.slot)) != 0:
                if left is None:
                    raise Unavailable(
                        f"the sessions in slot {order.slot} cannot be counted; nothing was ended"
                    )
                ended += await self._sessions.end(order.operation, order.slot, order.batch)
                activity.heartbeat(ended)
                await asyncio.sleep(POLL.total_seconds())
        return ended
