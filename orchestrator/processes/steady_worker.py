"""A worker that a refusal of the relay does not end: it waits, and begins again with what lies in the files.

The engine's client ends a worker for good when its polls are refused for a minute. The host's own work,
which keeps leases and the steering table, has to go on meanwhile; and the host may be enrolled anew.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta

from temporalio.client import Client
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

from orchestrator.engine.silence import cause_of, refusal_in
from orchestrator.enrolment.renewal import exchange
from policies.model.errors import PenstockError

AGAIN = timedelta(minutes=1)
"""How long until a worker that was refused begins again."""

_log = logging.getLogger(__name__)


def _said_here(record: logging.LogRecord) -> bool:
    """Keep out the trace with which the engine's client tells that a worker has failed."""
    return not record.getMessage().startswith("Worker failed, shutting down")


def _in_one_line(record: logging.LogRecord) -> bool:
    """Have a refusal be one line: where in the code it was raised helps no operator."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, ApplicationError) and isinstance(error.__cause__, PenstockError):
        step = getattr(record, "temporal_activity", {}).get("activity_type", "a step")
        record.msg, record.args = "%s ended with %s: %s", (step, error.type, error.message)
        record.exc_info = record.exc_text = None
    return True


class SteadyWorker:
    """One worker after another for the same queue, until told to shut down."""

    def __init__(self, first: Worker, make: Callable[[], Awaitable[Worker]]) -> None:
        """Begin with the first; `make` connects anew, and raises a PenstockError where it cannot."""
        self._worker = first
        self._make = make
        self._told = asyncio.Event()
        self._said = ""
        logging.getLogger("temporalio.worker._worker").addFilter(_said_here)
        logging.getLogger("temporalio.activity").addFilter(_in_one_line)

    @property
    def task_queue(self) -> str:
        """The queue that is worked for."""
        return self._worker.task_queue

    def exchange(self, client: Client) -> None:
        """Make the next calls through this client; a worker that has ended gets a newer one by itself."""
        if self._worker.is_running:
            exchange(self._worker, client)

    async def run(self) -> None:
        """Work until told to shut down."""
        while not self._told.is_set():
            try:
                await self._worker.run()
            except RuntimeError as error:  # all that the engine's client says of polls that it gave up
                self._say(refusal_in(error) or cause_of(error))
                await self._begin_again()

    async def shutdown(self) -> None:
        """End the worker that runs now, and begin no other."""
        self._told.set()
        await self._worker.shutdown()

    async def _begin_again(self) -> None:
        """Have another worker, as soon as one can be made; return without one when told to shut down."""
        while not await self._told_within(AGAIN):
            try:
                self._worker = await self._make()
            except PenstockError as error:
                self._say(str(error))
            else:
                self._said = ""
                _log.warning("the worker of %s begins again", self.task_queue)
                return

    async def _told_within(self, time: timedelta) -> bool:
        try:
            await asyncio.wait_for(self._told.wait(), time.total_seconds())
        except TimeoutError:
            return False
        return True

    def _say(self, why: str) -> None:
        """Say why no orders come; the same words are said once, also within others."""
        if not self._said or self._said not in why:
            self._said = why
            _log.warning("%s gets no orders, and tries again every %s: %s", self.task_queue, AGAIN, why)
