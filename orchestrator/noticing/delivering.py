"""Delivering: every sink is told what is due there, one sink held up by none of the others.

What is sent is claimed before and noted after: a worker that is killed in between leaves it to whoever comes
when the claim has ended, and the receiver knows the repeat by its key.
"""

import asyncio
import logging
from collections import Counter
from datetime import UTC, datetime, timedelta

from activities.drivers.notices.port import DEADLINE, Sink, Undelivered
from activities.drivers.notices.telling import GRACE, failure_of, told
from orchestrator.noticing.rules import RulesFile
from orchestrator.store.ledger import Ledger
from policies.model.errors import PenstockError
from policies.model.notice import Delivery
from policies.notices.retries import again_after

AT_ONCE = 10
"""Notices that are claimed together."""

CLAIMED_FOR = AT_ONCE * (DEADLINE + GRACE) + timedelta(seconds=30)
"""How long nobody else sends what was claimed: longer than all of it can take."""

_log = logging.getLogger(__name__)


class Delivering:
    """One worker's deliveries."""

    def __init__(self, ledger: Ledger, rules: RulesFile, claimed_for: timedelta = CLAIMED_FOR) -> None:
        """Take the outbox, and who is told how."""
        self._ledger = ledger
        self._rules = rules
        self._claimed_for = claimed_for
        self._busy: dict[str, asyncio.Task[None]] = {}
        self.failures: Counter[str] = Counter()
        """How often each sink did not take what it was told, since this process began."""
        self.delivered: Counter[str] = Counter()
        """How many notices each sink took."""

    @property
    def sinks(self) -> frozenset[str]:
        """The sinks that are told by this process, as notices.yaml has them now."""
        return self._rules.pushed()

    async def begin_due(self) -> None:
        """Begin to tell every sink what is due there, each in a task of its own; those at it go on.

        Raises:
            Unavailable: The ledger does not answer.
        """
        due = await asyncio.to_thread(self._ledger.sinks_due, datetime.now(UTC))
        pushed = await asyncio.to_thread(self._rules.pushed)
        self._busy = {name: task for name, task in self._busy.items() if not task.done()}
        for name in sorted(pushed & {*due}):
            if name not in self._busy:
                self._busy[name] = asyncio.create_task(self._safely(name))

    async def settle(self) -> None:
        """Wait until nobody is being told any more."""
        await asyncio.gather(*self._busy.values())

    def stop(self) -> None:
        """End what is under way; what was not noted is sent again."""
        for task in self._busy.values():
            task.cancel()

    async def _safely(self, name: str) -> None:
        try:
            while await self.tell_some(name):
                pass
        except (PenstockError, OSError) as error:
            _log.warning("notices for %s wait: %s", name, error)
        except Exception:  # noqa: BLE001 - whatever it is, the other sinks go on and this one is tried again
            _log.exception("notices for %s wait", name)

    async def tell_some(self, name: str) -> bool:
        """Tell one sink the first of what is due; return whether it took all of that and more may be due."""
        claim, deliveries = await asyncio.to_thread(
            self._ledger.claim_notices, name, AT_ONCE, self._claimed_for
        )
        if not deliveries:
            return False
        gone: str | None = None
        for delivery in deliveries:
            if gone is not None:  # it is not asked again for each of the others
                await self._failed(delivery, claim, gone, _again(0), tried=False)
                continue
            try:
                sink = self._rules.sink(name)
                if sink is None:
                    return False
                await told(sink, delivery)
            except Exception as raised:  # noqa: BLE001 - whatever it is, those behind it do not wait for it
                error = failure_of(raised)
                self.failures[name] += 1
                await self._failed(delivery, claim, str(error), _again(delivery.tries + 1))
                _log.warning("%s was not told of %s: %s", name, delivery.notice.key, error)
                if not (isinstance(error, Undelivered) and error.reached):
                    gone = str(error)
                continue
            self.delivered[name] += 1
            await self._noted(sink, delivery, claim)
        return gone is None

    async def _noted(self, sink: Sink, delivery: Delivery, claim: str) -> None:
        still = delivery.waits and delivery.settled is None

        def note() -> int:
            return self._ledger.notices_delivered(
                delivery.sink,
                [delivery.notice.key],
                claim=claim,
                repeat=sink.repeats_after if still else None,
            )

        await asyncio.to_thread(note)

    async def _failed(
        self, delivery: Delivery, claim: str, why: str, again: datetime | None, *, tried: bool = True
    ) -> None:
        key = delivery.notice.key

        def note() -> None:
            self._ledger.notice_failed(delivery.sink, key, claim, why, again, tried=tried)

        await asyncio.to_thread(note)


def _again(tries: int) -> datetime | None:
    """Return when it is tried again after so many tries in vain, None when it is given up."""
    wait = again_after(tries)
    return datetime.now(UTC) + wait if wait is not None else None
