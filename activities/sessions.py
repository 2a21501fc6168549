"""Sessions: counting them, waiting for them to end, and ending them when a deadline or a person says so."""

import asyncio
import time
from contextlib import suppress
from datetime import timedelta
from typing import Protocol

from temporalio import activity

from activities.failures import as_application_errors
from activities.liveness import answering
from policies.drains import is_silent, loss_between, remembered
from policies.model.drain import Look, Loss
from policies.model.errors import Unavailable
from policies.model.operation import Operation
from policies.model.value import Count, Message, Name

POLL = timedelta(seconds=1)


SELDOM = timedelta(seconds=30)
"""Between two beats of a drain where nobody says how long the engine waits for one."""


def beat_of(patience: timedelta | None) -> timedelta:
    """Return how often a drain tells the engine that it lives: often enough that one beat may be lost.

    Args:
        patience: How long the engine waits for a beat: longer, the more gateways drain together.
    """
    return SELDOM if patience is None else patience * 2 / 5


class DrainOrder(Message):
    """Wait until the slot's last session has ended, or for so long; `last` is what was seen before.

    With `connected_only` nobody waits for sessions whose connection broke and who may come back.
    """

    operation: Operation
    slot: Name
    within: timedelta
    last: Look | None = None
    connected_only: bool = False


class EndOrder(Message):
    """End sessions of the slot until so many are left; only broken tunnels, a deadline or a person order it.

    A repeat that finds so many already ends nobody.
    """

    operation: Operation
    slot: Name
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
    lost: Count = 0
    loss: Loss | None = None


class Ended(Message):
    """How many sessions were ended, and what is true after it."""

    ended: Count
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

        An instance that has become silent ends the wait, so that it is reported.

        A drain that a newer change has overtaken ends as Fenced: drains of every change of the
        last hours would fill the agent's hands.
        """
        info = activity.info()
        seen = Drained.model_validate(info.heartbeat_details[0]) if info.heartbeat_details else None
        beat, beaten = beat_of(info.heartbeat_timeout).total_seconds(), time.monotonic()
        # Both moments are of the engine's clock: what earlier attempts and the pauses between them took.
        began = beaten - (info.started_time - info.scheduled_time).total_seconds()
        known = order.last is not None and is_silent(order.last)
        with as_application_errors():
            try:
                was_empty = False
                while True:
                    now, seen = await self._look(order, seen)
                    empty = now.look.sessions == 0 and (order.connected_only or not now.look.resumable)
                    if empty and was_empty:
                        return now.model_copy(update={"empty": True})
                    is_over = time.monotonic() - began >= order.within.total_seconds()
                    if is_over or (is_silent(now.look) and not known):
                        return now
                    was_empty = empty
                    await _pause()
                    if time.monotonic() - beaten >= beat:
                        beaten = time.monotonic()
                        _remember(seen)
            except (Unavailable, asyncio.CancelledError):
                _remember(seen)
                raise

    async def _look(self, order: DrainOrder, before: Drained | None) -> tuple[Drained, Drained]:
        """Return what is true of the slot now, and what is to be remembered of it."""
        await self._sessions.check(order.operation)
        look = await self._sessions.look(order.slot)
        last, lost, loss = (before.look, before.lost, before.loss) if before else (order.last, 0, None)
        if last is not None and (taken := loss_between(last, look)):
            lost, loss = lost + (last.sessions or 0), taken
        now = Drained(empty=False, look=look, lost=lost, loss=loss)
        return now, now.model_copy(update={"look": remembered(last, look)})

    @activity.defn(name="end_sessions")
    async def end_sessions(self, order: EndOrder) -> Ended:
        """Ensure that at most so many sessions are left; when they cannot be counted nobody is ended."""
        async with answering():
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


async def _pause() -> None:
    """Wait until the next look; Unavailable as soon as this agent is told to end."""
    with suppress(TimeoutError):
        await asyncio.wait_for(activity.wait_for_worker_shutdown(), POLL.total_seconds())
    if activity.is_worker_shutdown():
        raise Unavailable("the agent is ending; its next one goes on with the drain")


def _remember(seen: Drained | None) -> None:
    """Tell the engine what the next attempt is to know."""
    if seen is not None:
        activity.heartbeat(seen.model_dump(mode="json"))
