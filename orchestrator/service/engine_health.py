"""Whether the engine answers and a worker runs: what every change of every fleet needs."""

import asyncio
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client, WorkflowExecutionDescription, WorkflowFailureError
from temporalio.service import RPCError

from orchestrator.service.updates import silence_of
from orchestrator.words.standing import NO_ENGINE
from policies.model.change import ChangeKind
from policies.model.command import Stored, StoredOrder
from workflows.adopt import Examine, ExamineOrder
from workflows.steps import CONTROL_QUEUE

POLLED_WITHIN = timedelta(seconds=75)
"""A worker asks for work at least once a minute."""

WITHIN = timedelta(seconds=1)
"""How long the engine may take to answer; a status waits for it."""

KEPT_SECONDS = 1.0
"""How long an answer is good for: everybody who reads a status shares it."""

CARRIED_OUT_SECONDS = 10.0
"""How long a step that a worker has carried out is good for callers who start no changes."""

ANSWERS_WITHIN = timedelta(seconds=3)
"""How long a worker that lives may take for a step that does nothing."""

NEVER_TAKEN = 2
"""Events of a workflow that no worker has begun: it was started, and its first task is scheduled."""

NO_WORKER = (
    "no worker has asked for work for more than a minute: no change begins, and a rollback is stored until a "
    "worker runs. Users keep their sessions; start a worker"
)

UNTAKEN = (
    f"no worker took a step within {ANSWERS_WITHIN.total_seconds():g} s, though one asked for work in the "
    f"last {POLLED_WITHIN.total_seconds():g} s: it has ended, or it is overloaded. No change goes on, and a "
    "rollback is stored until a worker runs. Users keep their sessions; start a worker"
)

UNENDED = (
    f"a worker took a step and did not end it within {ANSWERS_WITHIN.total_seconds():g} s: it is overloaded, "
    "or it does not fit this API; its log names why"
)


@dataclass
class EngineHealth:
    """Asks the engine whether changes can run; the answer is shared for a second."""

    client: Client
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _asked_at: float = float("-inf")
    _concern: str | None = None
    _carried_out_at: float = float("-inf")
    """When a worker has carried out a step last."""

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

    async def refusal(self, *, anew: bool = True) -> str | None:
        """Have a worker carry out a step that does nothing; return why no change goes on, None when it did.

        The engine remembers a worker's last question for minutes after the worker has died. Only a step that
        was carried out shows that a worker lives. The engine records each step. So the last one that
        succeeded counts for some seconds, unless it is asked `anew`.

        Raises:
            RPCError: The engine does not answer.
            RuntimeError: The engine cannot be reached by a first connection.
        """
        if not await self.workers():
            return NO_WORKER
        if not anew and time.monotonic() - self._carried_out_at < CARRIED_OUT_SECONDS:
            return None
        step = await self.client.start_workflow(
            Examine.run,
            ExamineOrder(gateways=()),
            id=f"examine/doctor/{secrets.token_hex(4)}",
            task_queue=CONTROL_QUEUE,
            execution_timeout=ANSWERS_WITHIN * 2,
            rpc_timeout=WITHIN,
        )
        answer = asyncio.create_task(step.result())
        await asyncio.wait([answer], timeout=ANSWERS_WITHIN.total_seconds())
        if answer.done():
            with suppress(WorkflowFailureError):  # a worker has answered, whatever the answer is
                await answer
            self._carried_out_at = time.monotonic()
            return None
        answer.cancel()
        taken = not was_never_taken(await step.describe(rpc_timeout=WITHIN))
        return UNENDED if taken else UNTAKEN

    async def _look(self) -> str | None:
        try:
            return None if await self.workers() else NO_WORKER
        except RPCError as error:
            return f"{silence_of(error)}: {NO_ENGINE}"
        except RuntimeError:
            return f"the engine cannot be reached: {NO_ENGINE}"


def cannot_be_opened(stored: Stored) -> str:
    """Return that what the engine has stored is not known here, and what mends that."""
    return (
        f"The order that is stored since {stored.at:%H:%M:%S} UTC cannot be opened here, so it is not known "
        f"what it does: {stored.unopened}. Put the key that it was sealed with back into the payload key "
        "file; `penstock keys api` makes the file of an API"
    )


def no_worker_begins(order: StoredOrder) -> str:
    """Return that a stored order moves nothing until a worker runs."""
    if order.kind is None:
        return cannot_be_opened(order)
    what = "rollback" if order.kind is ChangeKind.GO_BACK else order.kind.value
    return (
        f"No worker has begun the {what} that {order.person} ordered at {order.at:%H:%M:%S} UTC: every "
        "gateway serves what it served before. The order is stored, and begins when a worker runs; start one"
    )


def was_never_taken(description: WorkflowExecutionDescription) -> bool:
    """Whether no worker has begun even the workflow's first task."""
    return description.raw_description.workflow_execution_info.history_length <= NEVER_TAKEN
