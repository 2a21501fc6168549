"""Gateways that fail by themselves on a release that has passed: each is tried until it is taken back."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from datetime import timedelta
from functools import partial

from temporalio import workflow

from activities.ledger import MOST_TOGETHER, EventEntry
from policies.model.value import Name, Value
from policies.notices.entries import NOT_TAKEN_BACK, TAKEN_BACK
from workflows import steps
from workflows.control import Notices

SLOWEST_TRY = timedelta(minutes=5)
"""Between two tries: those of a week fit into one history."""

REST = timedelta(minutes=1)
"""After a rollback of these gateways that has ended without them: reconcile has its turn meanwhile."""

Attempt = Callable[[tuple[Name, ...]], Awaitable[Mapping[Name, str]]]
"""Takes gateways back, and returns why which of them are not back; empty for one that only waits.

It gets no more gateways than one step may name.
"""


class Failed(Value):
    """Gateways that have failed by themselves, for a history that is cut."""

    waiting: tuple[Name, ...] = ()
    """Those that are not back yet."""
    back: tuple[Name, ...] = ()
    """Those that were taken back: the next watch may report them once more."""
    reported: tuple[Name, ...] = ()
    """Those of which operators were notified that they are not back."""


class FailedAlone:
    """Gateways that have failed by themselves, and why each is not back yet."""

    def __init__(self, fleet: Name, change: Name, known: Failed, notices: Notices) -> None:
        """Go on with those that had failed before."""
        self._notices = notices
        self._fleet = fleet
        self._change = change
        self._reported = {*known.reported}
        self._found = dict.fromkeys(known.waiting, workflow.now())
        self._back = {*known.back}
        self._rests = self._wakes = False

    @property
    def waiting(self) -> tuple[Name, ...]:
        """The gateways that are not back yet."""
        return tuple(sorted(self._found))

    @property
    def reported(self) -> tuple[Name, ...]:
        """The gateways of which operators were notified that they are not back."""
        return tuple(sorted(self._reported))

    def dump(self) -> Failed:
        """Return everything remembered, for a history that is cut."""
        return Failed(waiting=self.waiting, back=tuple(sorted(self._back)), reported=self.reported)

    def hear(self, failed: Iterable[Name]) -> tuple[Name, ...]:
        """Take over which gateways have failed; return those that are new."""
        new = sorted({*failed} - self._found.keys() - self._back)
        self._found |= dict.fromkeys(new, workflow.now())
        return tuple(new)

    def rest(self) -> None:
        """Have the next try wait: a rollback of these gateways has ended without them."""
        self._rests = True

    def forget(self) -> None:
        """Try no gateway any more: the change that promoted them is taken back as a whole."""
        self._found.clear()

    async def keep_trying(self, attempt: Attempt, is_over: Callable[[], bool]) -> None:
        """Try until each is back, more and more slowly; a gateway that fails meanwhile is tried at once."""
        pause = steps.NEXT_ROUND
        while not is_over():
            await workflow.wait_condition(lambda: bool(self._found))
            names, self._rests, self._wakes = self.waiting, False, False
            for first in range(0, len(names), MOST_TOGETHER):
                together = names[first : first + MOST_TOGETHER]
                await self._take(together, await attempt(together))
            if not self._found:
                pause = steps.NEXT_ROUND
                continue
            pause = max(pause, REST) if self._rests else pause
            with suppress(TimeoutError):
                await workflow.wait_condition(partial(self._is_changed, names), timeout=pause)
            pause = min(pause * 2, SLOWEST_TRY)

    def _is_changed(self, tried: tuple[Name, ...]) -> bool:
        return self._wakes or self.waiting != tried

    def wake(self) -> None:
        """Try them again at once: a change has taken over some of them, perhaps."""
        self._wakes = True

    async def leave(self, names: Iterable[Name], why: str) -> None:
        """Try these no more, and settle their notices: from now on another part answers for them."""
        for name in sorted({*names}):
            self._found.pop(name, None)
            if name in self._reported:
                await self._write_down(TAKEN_BACK, name, why)

    async def close(self, why: str) -> None:
        """Settle the notices of gateways that are not back: from now on another part answers for them."""
        await self.leave(self._reported, why)

    async def _take(self, names: tuple[Name, ...], missing: Mapping[Name, str]) -> None:
        """Take over how a try has ended."""
        for name in sorted(self._found.keys() & {*names}):
            if name not in missing:
                del self._found[name]
                self._back.add(name)
                if name in self._reported:
                    await self._write_down(TAKEN_BACK, name, f"{name} is taken back from {self._change}")
            elif missing[name] and workflow.now() - self._found[name] >= steps.NOT_BACK_FOR:
                await self._report(name, missing[name])

    async def _report(self, name: Name, why: str) -> None:
        """Notify operators that the gateway still serves what it fails on."""
        if name in self._reported:
            return
        sentence = (
            f"{name} failed by itself after its promotion by {self._change} and is not taken back: {why}. "
            "It is tried again"
        )
        self._reported.add(name)  # before: whoever waits here may be cancelled, and the entry is written
        if not await self._write_down(NOT_TAKEN_BACK, name, sentence):
            self._reported.discard(name)

    async def _write_down(self, action: str, name: Name, sentence: str) -> bool:
        entry = EventEntry(
            action=action,
            fleet=self._fleet,
            subject=f"{self._fleet}/{name}",
            sentence=sentence,
            key=f"{workflow.info().run_id} {action} {name} {workflow.now().isoformat()}",
        )
        if action == TAKEN_BACK:
            self._reported.discard(name)
        return await self._notices.tell(entry)
