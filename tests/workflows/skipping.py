"""The server that skips time, held to what it can do.

It refuses a workflow task that cancels an activity which has completed meanwhile (`ACTIVITY_UNKNOWN`
in the SDK's warnings), and the workflow then stands still. The real server takes such a task. Whatever
ends a step in the middle meets this sooner or later: a way back, an abort, a promotion, an ended watch.
So on this server no activity is ever cancelled: `Abandoning` is attached to its client, from where
every worker takes it. A workflow that gives a step up goes on at once in both cases and nothing but the
request to the server is missing: the step goes on unasked, as it may under any cancellation, which a
worker hears of late or never. What becomes of a cancelled step is tested on the real server (`real`).
"""

import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from temporalio import client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import (
    Interceptor,
    StartActivityInput,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
    WorkflowOutboundInterceptor,
)
from temporalio.workflow import ActivityCancellationType, ActivityHandle

from tests.workflows.watch import Server, watched

PROGRAM = "temporal-test-server"
KNOWN_AS = PROGRAM[:15]
"""Its name in /proc, which ends after 15 characters (proc_pid_stat(5))."""


class Abandoning(client.Interceptor, Interceptor):
    """Has workflows abandon the activities that they would cancel."""

    def workflow_interceptor_class(self, input: WorkflowInterceptorClassInput) -> "type[_Inbound]":  # noqa: A002
        return _Inbound


class _Inbound(WorkflowInboundInterceptor):
    def init(self, outbound: WorkflowOutboundInterceptor) -> None:
        super().init(_Outbound(outbound))


class _Outbound(WorkflowOutboundInterceptor):
    def start_activity(self, input: StartActivityInput) -> ActivityHandle[Any]:  # noqa: A002
        input.cancellation_type = ActivityCancellationType.ABANDON
        return super().start_activity(input)


@asynccontextmanager
async def skipping() -> AsyncIterator[WorkflowEnvironment]:
    """Run such a server, under watch."""
    others = running()
    program = shutil.which(PROGRAM, path=str(Path(sys.executable).parent))
    async with await WorkflowEnvironment.start_time_skipping(
        test_server_existing_path=program,
        data_converter=pydantic_data_converter,
        interceptors=[Abandoning()],
    ) as started:
        [pid] = running() - others
        with watched(Server("the time-skipping server", pid)):
            yield started


def running() -> set[int]:
    """Return the servers among this process' children: the SDK starts them and tells nobody their numbers."""
    found = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, facts = status.read_text().rpartition(") ")
        except OSError:  # ended meanwhile
            continue
        if int(facts.split()[1]) == os.getpid() and name.partition("(")[2] == KNOWN_AS:
            found.add(int(status.parent.name))
    return found
