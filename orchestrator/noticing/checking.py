"""Checking: a worker tests sinks for the API, and looks whether their files are as they must be.

The API, which people reach, has no credential of a sink.
"""

import asyncio
from contextlib import suppress

from activities.drivers.notices.port import Undelivered
from activities.drivers.notices.telling import failure_of, told
from orchestrator.noticing.rules import RulesFile
from orchestrator.store.ledger import Ledger
from orchestrator.store.sink_checks import SinkTest
from policies.model.errors import BadInput
from policies.model.notice import Delivery, NoticeLevel, Occasion


class Checking:
    """One worker's tests."""

    def __init__(self, ledger: Ledger, rules: RulesFile) -> None:
        """Take where tests are asked for, and who is told how."""
        self._ledger = ledger
        self._rules = rules
        self._busy: set[asyncio.Task[None]] = set()

    async def begin_tests(self) -> None:
        """Begin every test that is asked for, each in a task of its own: one receiver delays no other.

        Raises:
            Unavailable: The ledger does not answer.
        """
        while (asked := await asyncio.to_thread(self._ledger.claim_sink_test)) is not None:
            task = asyncio.create_task(self._test(asked))
            self._busy.add(task)
            task.add_done_callback(self._busy.discard)

    async def settle(self) -> None:
        """Wait until no test is under way."""
        await asyncio.gather(*self._busy)

    def look(self) -> None:
        """Write down which sinks could tell nobody anything, and why."""
        unready = self._rules.unready()
        self._ledger.record_sink_faults({sink: str(unready.get(sink, "")) for sink in self._rules.pushed()})

    async def _test(self, asked: SinkTest) -> None:
        try:
            answer, failed = await self._tell(asked.delivery), ""
        except Exception as raised:  # noqa: BLE001 - whatever it is, the caller is told
            error = failure_of(raised)
            answer, failed = str(error), type(error).__name__
        await asyncio.to_thread(self._ledger.answer_sink_test, asked.key, answer, failed)

    async def _tell(self, delivery: Delivery) -> str:
        sink, notice = await asyncio.to_thread(self._rules.sink, delivery.sink), delivery.notice
        if sink is None:
            raise BadInput(f"{delivery.sink} asks by itself, and is told nothing")
        said = await told(sink, delivery)
        over = notice.model_copy(update={"key": f"{notice.key}/over", "level": NoticeLevel.INFO})
        with suppress(Undelivered):  # what would call somebody until it is settled is settled at once
            settled = Delivery(sink=delivery.sink, notice=over, occasion=Occasion.SETTLED, resolved=(notice,))
            await told(sink, settled)
        return said
