"""Whether the engine answers and a worker runs: what every change of every fleet needs."""

import asyncio
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.service import RPCError

from orchestrator.service.updates import silence_of
from orchestrator.words.standing import NO_ENGINE
from workflows.steps import CONTROL_QUEUE

POLLED_WITHIN = timedelta(seconds=75)
"""A worker asks for work at least once a minute."""

WITHIN = timedelta(seconds=1)
"""How long the engine may take to answer; a status waits for it."""

KEPT_SECONDS = 1.0
"""How long an answer is good for: everybody who reads a status shares it."""

NO_WORKER = (
    "no worker has asked for work for more than a minute: no change begins, and a rollback is stored until a "
    "worker runs. Users keep their sessions; start a worker"
)


@dataclass
class EngineHealth:
    """Asks the engine whether changes can run; the answer is shared for a second."""

    client: Client
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _asked_at: float = float("-inf")
    _concern: str | None = None

    async def concern(self) -> str | None:
        """Return why no change of any fleet can run now, and what to do; None when changes can run."""
        async with self._turn:
            if time.monotonic() - self._asked_at >= KEPT_SECONDS:
                self._concern = await self._look()
                self._asked_at = time.monotonic()
            return self._concern

    async def workers(self) -> int:
        """Return how many workers asked for work lately.

        Raises:
            RPCError: The engine does not answer.
            RuntimeError: The engine cannot be reached by a first connection.
        """
        asked = DescribeTaskQueueRequest(
            namespace=self.client.namespace,
            task_queue=TaskQueue(name=CONTROL_QUEUE),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
        )
        found = await self.client.workflow_service.describe_task_queue(asked, timeout=WITHIN)
        now = datetime.now(UTC)
        return sum(now - one.last_access_time.ToDatetime(UTC) <= POLLED_WITHIN for one in found.pollers)

    async def _look(self) -> str | None:
        try:
            return None if await self.workers() else NO_WORKER
        except RPCError as error:
            return f"{silence_of(error)}: {NO_ENGINE}"
        except RuntimeError:
            return f"the engine cannot be reached: {NO_ENGINE}"
