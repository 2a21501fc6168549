"""Sessions: counting them, waiting for them to end, and ending them when a deadline or a person says so."""

import asyncio
import time
from contextlib import suppress
from datetime import timedelta
from typing import Protocol

from temporalio import activity

from activities.failures import as_application_errors
from policies.drains import loss_between, remembered
from policies.words.drain import Look, Loss
from policies.words.errors import Unavailable
from policies.words.operation import Operation
from policies.words.word import Message

POLL = timedelta(seconds=1)


SELDOM = timedelta(seconds=30)
"""Between two beats of a drain where nobody says how long the engine waits for one."""


def beat_of(patience: timedelta | None) -> timedelta:
    """Return how often a drain tells the engine that it lives: often enough that one beat may be lost.

    Args:
        patience: How long the engine waits for a beat; who starts many drains gives them more.
    """
    return SELDOM if patience is None else patience * 2 / 5


async def _told_to_end_within(pause: timedelta) -> bool:
    """Wait so long, or until this agent is told to end; return whether it is."""
    with suppress(TimeoutError):
        await asyncio.wait_for(activity.wait_for_worker_shutdown(), pause.total_seconds())
    return activity.is_worker_shutdown()


class DrainOrder(Message):
    """Wait until the slot's last session has ended, or for so long; `last` is what was seen before."""

    operation: Operation
    slot: str
    within: timedelta
    last: Look | None = None


class EndOrder(Message):
    """End sessions of the slot until so many are left; only broken tunnels, a deadline or a person order it.

    A repeat that finds so many already ends nobody.
    """

    operation: Operation
    slot: str
    leave: int
    exempt_too: bool
    reason: str


class Drained(Message):
    """How a wait for sessions went.

    `lost` counts the sessions that went away with their process, as last counted, and `loss`
    says what took it.
    """

    empty: bool
    look: Look
    lost: int = 0
    loss: Loss | None = None


class Ended(Message):
    """How many sessions were ended, and what is true after it."""

    ended: int
    look: Look


class SessionTable(Protocol):
    """The live sessions of the instances of one gateway."""

    async def count(self, slot: str) -> int | None:
        """Return how many sessions live in the slot; 0 for a slot where nothing runs, None when unknown."""
        ...

    async def look(self, slot: str) -> Look:
        """Return the slot's sessions, how many are exempt, and which process of which boot has them."""
        ...

    async def check(self, operation: Operation) -> None:
        """Raise Fenced when a newer change owns the gateway: it has a drain of its own at its end."""
        ...

    async def end(self, operation: Operation, slot: str, batch: int, *, exempt_too: bool = False) -> int:
        """End up to `batch` sessions, the oldest first and exempt ones only if told; return how many."""
        ...


class SessionActivities:
    """Session steps on one gateway; safe to repeat after any crash."""

    def __init__(self, sessions: SessionTable) -> None:
        self._sessions = sessions

    @activity.defn(name="drain_instance")
    async def drain_instance(self, order: DrainOrder) -> Drained:
        """Return when the slot was seen empty twice in a row, or when the time is over.

        The slot is looked at every second, the engine hears of it seldom (`beat_of`): so many
        drains run at once. A new attempt goes on where the one before was, and waits no longer in
        all; an agent that is told to end hands its drains over at once.

        What was seen last is in the heartbeat, so that an agent that comes back after a reboot
        still knows how many sessions it cost. Lost with an agent that is killed is what it saw
        since its last beat: sessions that began or ended after it are counted wrong in `lost`.

        A drain that a newer change has overtaken ends as Fenced: drains of every change of the
        last hours would fill the agent's hands.
        """
        info = activity.info()
        told = info.heartbeat_details
        seen = Drained.model_validate(told[0]) if told else None
        last, lost, loss = (seen.look, seen.lost, seen.loss) if seen else (order.last, 0, None)
        # Both moments are of the engine's clock: what earlier attempts and the pauses between them took.
        waited = (info.started_time - info.scheduled_time).total_seconds()
        seen_empty, beaten = 0, time.monotonic()
        began = beaten - waited
        with as_application_errors():
            while True:
                await self._sessions.check(order.operation)
                look = await self._sessions.look(order.slot)
                if last is not None and (taken := loss_between(last, look)):
                    lost, loss = lost + (last.sessions or 0), taken
                last = remembered(last, look)
                seen_empty = seen_empty + 1 if look.sessions == 0 else 0
                drained = Drained(empty=seen_empty > 1, look=look, lost=lost, loss=loss)
                if drained.empty or time.monotonic() - began >= order.within.total_seconds():
                    return drained
                ending = await _told_to_end_within(POLL)
                if ending or time.monotonic() - beaten >= beat_of(info.heartbeat_timeout).total_seconds():
                    beaten = time.monotonic()
                    activity.heartbeat(drained.model_copy(update={"look": last}).model_dump(mode="json"))
                if ending:
                    raise Unavailable(f"the agent is ending; its next one drains slot {order.slot} on")

    @activity.defn(name="end_sessions")
    async def end_sessions(self, order: EndOrder) -> Ended:
        """Ensure that at most so many sessions are left; when they cannot be counted nobody is ended."""
        with as_application_errors():
            look = await self._sessions.look(order.slot)
            if look.sessions is None:
                raise Unavailable(f"the sessions in slot {order.slot} cannot be counted; nobody was ended")
            batch, ended = look.sessions - order.leave, 0
            if batch > 0:
                ended = await self._sessions.end(
                    order.operation, order.slot, batch, exempt_too=order.exempt_too
                )
                look = await self._sessions.look(order.slot)
            return Ended(ended=ended, look=look)
