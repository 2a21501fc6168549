"""Running a worker until it is told to stop: the options every worker shares, and a calm end on SIGTERM."""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Protocol

from temporalio.client import Client
from temporalio.worker import Worker

from orchestrator.processes.beside import begun_again
from orchestrator.processes.labels import Labelled
from orchestrator.processes.leaving import leave
from orchestrator.processes.memory import keep_giving_back
from orchestrator.processes.stopping import told_to_stop
from orchestrator.processes.supervisor import say_ready
from workflows.sandbox import RUNNER

GRACE = timedelta(seconds=20)
"""How long running activities may finish after SIGTERM."""

LAST_WORDS = timedelta(seconds=5)
"""How long they may take to end once they are cancelled; then the process ends without them.

What does not end has hung, in a step or in the engine's client (sdk-rust issue 1537). The engine gives
such steps to the next process, and an agent that is waited for cannot renew a lease meanwhile.
"""


def identity() -> str:
    """Return who this process is in the engine's history."""
    return f"{socket.gethostname()}:{os.getpid()}"


AT_ONCE = 20
"""Tasks of workflows taken at a time: Python works on one, and the engine's clock runs for all of them.

Most of them wait for an engine that is busy with the same workflow's steps: with five, nothing else was
begun for seconds while 1,800 gateways went back.
"""

TASK_POLLS = 20
"""Polls for tasks of workflows at once; each keeps waiting while the engine is busy with its workflow."""

FETCHED_WITHIN = timedelta(seconds=1.5)
"""How long a task waits for the worker that has its workflow in memory, before any may replay it.

The engine notices a dead worker no sooner, of which ten seconds would be too long (temporal.md section 1);
after one second, a worker of a large fleet was given most of its own tasks to replay. With three, the next
worker was ready before its tasks were; 6,000 gateways were back in 54 s with three and in 62 with this.
"""

POLLS = 5
"""Polls for steps at once; as many as the engine's client has by itself."""

STEPS_AT_ONCE = 100
"""Steps carried out at a time; each may use a thread or a program."""

MOST_CACHED = 200
"""Workflows kept in memory, one or two megabytes each; one that was dropped is replayed when it goes on.

The largest wave of 10,000 gateways fits, because none of its parts may wait for a replay on the way back.
"""


def make_worker(
    client: Client,
    task_queue: str,
    *,
    workflows: Sequence[type] = (),
    activities: Sequence[Callable[..., Any]] = (),
    polls: int = POLLS,
    steps_at_once: int = STEPS_AT_ONCE,
) -> Worker:
    """Return a worker that takes over from a dead predecessor within seconds (`FETCHED_WITHIN`).

    It waits for steps with so many polls at once, and carries out so many of them. The process ends with
    code 1 when the worker fails and does not end.
    """

    async def failed(error: BaseException) -> None:
        """Leave time for the steps under way; a worker that ends by itself raises where it was run."""
        within = (GRACE + LAST_WORDS).total_seconds()
        asyncio.get_running_loop().call_later(within, _leave_if_running, worker, error)

    worker = Worker(
        client,
        task_queue=task_queue,
        workflows=workflows,
        activities=activities,
        workflow_runner=RUNNER,
        sticky_queue_schedule_to_start_timeout=FETCHED_WITHIN,
        max_heartbeat_throttle_interval=timedelta(seconds=1),
        default_heartbeat_throttle_interval=timedelta(seconds=1),
        graceful_shutdown_timeout=GRACE,
        max_concurrent_activities=steps_at_once,
        max_concurrent_activity_task_polls=polls,
        max_concurrent_workflow_tasks=AT_ONCE,
        max_concurrent_workflow_task_polls=TASK_POLLS,
        max_cached_workflows=MOST_CACHED,
        identity=identity(),
        interceptors=[Labelled()],
        on_fatal_error=failed,
    )
    return uninterrupted(worker)


def _leave_if_running(worker: Worker, error: BaseException) -> None:
    """End the process: a failed worker polls no more, and its supervisor knows nothing of it."""
    if worker.is_running:
        sys.stderr.write(
            f"penstock: {worker.task_queue}: the worker has failed and does not end; the process ends, so "
            f"that its supervisor starts it again: {error}\n"
        )
        leave(1)


def uninterrupted(worker: Worker) -> Worker:
    """Return the worker, which interrupts none of its workflows.

    The SDK takes a workflow for deadlocked that has not come back after two seconds, which a busy machine, or
    one that stands still, needs for any. It interrupts its thread, and while that still works on the
    workflow's tasks it has another thread end them. What comes of it can neither go on nor be ended: the
    change stands still until the worker is started again.
    """
    of_workflows = worker._workflow_worker  # noqa: SLF001 - the SDK has no option for it
    if of_workflows is not None:
        of_workflows._deadlock_timeout_seconds = None  # noqa: SLF001
    return worker


class Runs(Protocol):
    """What works for a queue until it is told to end."""

    @property
    def task_queue(self) -> str:
        """The queue."""

    async def run(self) -> None:
        """Work until told to shut down."""

    async def shutdown(self) -> None:
        """End, and return when that is done."""


class NotEnded(Exception):
    """A worker was told to end and has not; what it still has to do hangs."""


@asynccontextmanager
async def ending_within(worker: Runs, time: timedelta) -> AsyncIterator[asyncio.Task[None]]:
    """Run the worker while the block lasts, and yield its task, which is done early when the worker fails.

    Raises:
        NotEnded: it has not ended so long after the block.
    """
    running = asyncio.create_task(worker.run(), name=f"worker of {worker.task_queue}")
    try:
        yield running
    finally:
        ending = asyncio.create_task(worker.shutdown())
        await asyncio.wait({running}, timeout=time.total_seconds())
        if not running.done():
            raise NotEnded(f"the worker of {worker.task_queue} has not ended within {time}")
        ending.cancel()
        running.result()


async def run_until_told(worker: Runs) -> None:
    """Run until SIGTERM or SIGINT, then let running activities finish; leave what hangs, with code 1."""
    told = told_to_stop()
    giving_back = asyncio.create_task(begun_again("giving memory back", keep_giving_back))
    try:
        async with ending_within(worker, GRACE + LAST_WORDS) as running:
            say_ready(worker.task_queue)
            waiting = asyncio.create_task(told.wait())
            await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
    except NotEnded:
        sys.stderr.write(
            f"penstock: {worker.task_queue}: a step did not end when it was cancelled; the process ends "
            "without it, and the engine gives the step to the next one\n"
        )
        leave(1)
    finally:
        giving_back.cancel()
