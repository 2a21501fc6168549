"""Running a worker until it is told to stop: the options every worker shares, and a calm end on SIGTERM."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from temporalio.client import Client
from temporalio.worker import Worker

from workflows.sandbox import RUNNER

GRACE = timedelta(seconds=20)
"""How long running activities may finish after SIGTERM."""


def identity() -> str:
    """Return who this process is in the engine's history."""
    return f"{socket.gethostname()}:{os.getpid()}"


AT_ONCE = 5
"""Tasks of workflows taken at a time: Python works on one, and the engine's clock runs for all of them."""

MOST_CACHED = 400
"""Workflows kept in memory, half a megabyte each; one that was dropped is replayed when it goes on."""


def make_worker(
    client: Client,
    task_queue: str,
    *,
    workflows: Sequence[type] = (),
    activities: Sequence[Callable[..., Any]] = (),
) -> Worker:
    """Return a worker that notices a dead predecessor within a second, not ten (temporal.md section 1)."""
    return Worker(
        client,
        task_queue=task_queue,
        workflows=workflows,
        activities=activities,
        workflow_runner=RUNNER,
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=1),
        max_heartbeat_throttle_interval=timedelta(seconds=1),
        default_heartbeat_throttle_interval=timedelta(seconds=1),
        graceful_shutdown_timeout=GRACE,
        max_concurrent_activities=100,
        max_concurrent_workflow_tasks=AT_ONCE,
        max_cached_workflows=MOST_CACHED,
        identity=identity(),
    )


async def run_until_told(worker: Worker) -> None:
    """Run until SIGTERM or SIGINT, then let running activities finish."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, told.set)
    async with worker:
        print(f"ready: {worker.task_queue}", flush=True)  # noqa: T201 - the supervisor waits for this line
        await told.wait()


def leave(code: int) -> None:
    """End the process without the interpreter's own shutdown, which can abort after using the engine.

    sdk-python issue 300; temporal.md section 15 has the counts.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
