"""The server that skips time, held to what it can do.

It refuses a workflow task that cancels an activity which has completed meanwhile (`ACTIVITY_UNKNOWN`
in the SDK's warnings), and the workflow then stands still; the real server takes such a task. Whatever
ends a step in the middle meets this sooner or later: a way back, an abort, a promotion, an ended watch.

So this server is never asked to cancel an activity. `GivingUp` is attached to its client, from where
every worker takes it. By it a workflow that cancels a step goes on as ever, the server hears nothing, and the
step is told in this process instead: an attempt under way is cancelled, a later one is refused.
For the workflow and for the step it is as if the server had passed the word on.

It does the same to a workflow task that cancels a timer which has fired meanwhile ("invalid history builder
state for action", temporalio/sdk-java#3088). So it is never asked to cancel a timer either: the workflow
forgets the timer, which fires later and wakes nobody. Only what takes hours is tested here all the same;
everything else runs on the real server.
"""

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

from temporalio import activity, client, workflow
from temporalio.exceptions import ActivityError, ApplicationError, CancelledError, RetryState
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import (
    ActivityInboundInterceptor,
    ExecuteActivityInput,
    ExecuteWorkflowInput,
    Interceptor,
    StartActivityInput,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
    WorkflowOutboundInterceptor,
)
from temporalio.workflow import ActivityHandle

from orchestrator.engine.sealing import data_converter
from tests.workflows.watch import Server, watched

PROGRAM = "temporal-test-server"
KNOWN_AS = PROGRAM[:15]
"""Its name in /proc, which ends after 15 characters (proc_pid_stat(5))."""


Step = tuple[str | None, str]
"""An activity: the run of its workflow, and its id there."""

_given_up: set[Step] = set()
_under_way: dict[Step, tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = {}


class GivingUp(client.Interceptor, Interceptor):
    """Has activities be given up by word in this process, and never by way of the server."""

    def workflow_interceptor_class(self, input: WorkflowInterceptorClassInput) -> "type[_Inbound]":  # noqa: A002
        return _Inbound

    def intercept_activity(self, next: ActivityInboundInterceptor) -> "_Attempt":  # noqa: A002
        return _Attempt(next)


class _Inbound(WorkflowInboundInterceptor):
    def init(self, outbound: WorkflowOutboundInterceptor) -> None:
        super().init(_Outbound(outbound))

    async def execute_workflow(self, input: ExecuteWorkflowInput) -> Any:  # noqa: A002
        loop = cast("Any", asyncio.get_running_loop())
        # The SDK's loop of workflows sends the word to the server here, and has no other hook.
        loop._timer_handle_cancelled = lambda timer: loop._pending_timers.pop(timer._seq, None)
        return await super().execute_workflow(input)


class _Outbound(WorkflowOutboundInterceptor):
    def __init__(self, next: WorkflowOutboundInterceptor) -> None:  # noqa: A002
        super().__init__(next)
        self._started = 0

    def start_activity(self, input: StartActivityInput) -> ActivityHandle[Any]:  # noqa: A002
        self._started += 1
        input.activity_id = input.activity_id or f"step {self._started}"
        step = (workflow.info().run_id, input.activity_id)
        running = super().start_activity(input)
        running.add_done_callback(lambda done: done.cancelled() or done.exception())  # seen, by us at least
        return cast("ActivityHandle[Any]", asyncio.create_task(_outcome(step, running)))


async def _outcome(step: Step, running: ActivityHandle[Any]) -> Any:
    """Return what came of a step; cancelled, end as a cancelled step does and let the step itself be."""
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        if getattr(asyncio.get_running_loop(), "_deleting", False):  # a worker forgets, nobody gives up
            raise
        _pass_on(step)
        raise ActivityError(
            "Activity cancelled",
            scheduled_event_id=0,
            started_event_id=0,
            identity="",
            activity_type="",
            activity_id=step[1],
            retry_state=RetryState.CANCEL_REQUESTED,
        ) from CancelledError("Cancelled")


def _pass_on(step: Step) -> None:
    """Tell an activity that its workflow has given it up; called in the workflow's thread."""
    _given_up.add(step)
    if under_way := _under_way.get(step):
        loop, attempt = under_way
        loop.call_soon_threadsafe(attempt.cancel)


class _Attempt(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        info, attempt = activity.info(), asyncio.current_task()
        step = (info.workflow_run_id, info.activity_id)
        assert attempt is not None
        _under_way[step] = asyncio.get_running_loop(), attempt
        try:
            if step not in _given_up:  # asked after it is known, so that no word falls in between
                return await super().execute_activity(input)
        except asyncio.CancelledError:
            if step not in _given_up:
                raise
        finally:
            del _under_way[step]
        raise ApplicationError("its workflow has given it up", non_retryable=True)


@asynccontextmanager
async def skipping() -> AsyncIterator[WorkflowEnvironment]:
    """Run such a server, under watch."""
    others = running()
    program = shutil.which(PROGRAM, path=str(Path(sys.executable).parent))
    async with await WorkflowEnvironment.start_time_skipping(
        test_server_existing_path=program,
        data_converter=data_converter(None),
        interceptors=[GivingUp()],
    ) as started:
        [pid] = running() - others
        with watched(Server("the time-skipping server", pid)):
            yield started
    _given_up.clear()


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
