"""Where spans come from: workflows and steps as they end, and requests that begin or steer a change.

No span is ever open: each is made when what it tells of has ended, by whichever worker sees that. A worker
that dies loses no more than the spans that were under way to the collector.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NoReturn

from temporalio import activity, workflow
from temporalio.client import Interceptor as ClientInterceptor
from temporalio.client import (
    OutboundInterceptor,
    StartWorkflowInput,
    StartWorkflowUpdateInput,
    WorkflowHandle,
    WorkflowUpdateHandle,
)
from temporalio.worker import (
    ActivityInboundInterceptor,
    ContinueAsNewInput,
    ExecuteActivityInput,
    ExecuteWorkflowInput,
    HandleUpdateInput,
    StartActivityInput,
    StartChildWorkflowInput,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
    WorkflowOutboundInterceptor,
)
from temporalio.worker import Interceptor as WorkerInterceptor
from temporalio.workflow import ActivityHandle, ChildWorkflowHandle

from orchestrator.processes.journal import TRACE
from orchestrator.tracing.spans import (
    HEADER,
    Place,
    Span,
    Tell,
    attributes_of,
    beginning_of,
    new_span,
    place_in,
    span_of,
    trace_of,
)

CHANGE = "Change"
"""The workflow that has a trace of its own, whoever starts it."""

_TELL = "penstock_tell_span"
_GATEWAY_QUEUE_PARTS = 3
_CHANGE_ID_PARTS = 2

RunOf = Callable[[str], str | None]
"""Returns the first run of the change of that fleet that is under way, or was last."""


def _nobody_knows(fleet: str) -> str | None:
    del fleet
    return None


class Tracing(ClientInterceptor, WorkerInterceptor):
    """Tells spans of what this client starts, and of what a worker with this client does."""

    def __init__(self, tell: Tell, run_of: RunOf = _nobody_knows) -> None:
        """Take where spans go, and who knows of which run a change is; it may take long."""
        self.tell = tell
        self.run_of = run_of

    def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:  # noqa: A002 - the SDK's name
        """Stand in front of every call."""
        return _TracedClient(super().intercept_client(next), self)

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002
        """Stand in front of every step."""
        return _TracedSteps(super().intercept_activity(next), self.tell)

    def workflow_interceptor_class(
        self,
        input: WorkflowInterceptorClassInput,  # noqa: A002 - the SDK's name
    ) -> type[WorkflowInboundInterceptor] | None:
        """Stand in front of every workflow, which tells its spans outside of itself."""
        input.unsafe_extern_functions[_TELL] = self.tell
        return _TracedWorkflows


class _TracedClient(OutboundInterceptor):
    def __init__(self, next: OutboundInterceptor, tracing: Tracing) -> None:  # noqa: A002 - the SDK's name
        super().__init__(next)
        self._tracing = tracing

    async def start_workflow(self, input: StartWorkflowInput) -> WorkflowHandle[Any, Any]:  # noqa: A002
        began = time.time_ns()
        handle = await super().start_workflow(input)
        if input.workflow == CHANGE and handle.first_execution_run_id is not None:
            place = beginning_of(handle.first_execution_run_id)
            TRACE.set(f"{place.trace:032x}")  # of what the request logs from here on
            said = attributes_of(input.id, input.args)
            self._tracing.tell(Span("ask for a change", place, None, began, time.time_ns(), said))
        return handle

    async def start_workflow_update(self, input: StartWorkflowUpdateInput) -> WorkflowUpdateHandle[Any]:  # noqa: A002
        began, failed = time.time_ns(), ""
        try:
            return await super().start_workflow_update(input)
        except Exception as error:
            failed = type(error).__name__
            raise
        finally:
            ended = time.time_ns()
            parts = input.id.split("/")
            if len(parts) == _CHANGE_ID_PARTS and parts[0] == "change":
                asyncio.get_running_loop().run_in_executor(
                    None, self._tell_command, input.update, parts[1], (began, ended), failed
                )

    def _tell_command(self, update: str, fleet: str, during: tuple[int, int], failed: str) -> None:
        """Tell of a command once somebody has looked up of which run it was; nobody waits for that."""
        run = self._tracing.run_of(fleet)
        if run is None:
            return
        whole = beginning_of(run)
        said: dict[str, str | int] = {"penstock.fleet": fleet, "penstock.step": update}
        place = Place(whole.trace, new_span())
        self._tracing.tell(Span(f"give {update}", place, whole.span, *during, said, failed))


class _TracedSteps(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, tell: Tell) -> None:  # noqa: A002 - the SDK's name
        super().__init__(next)
        self._tell = tell

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002 - its name
        whole = place_in(input.headers)
        if whole is None:  # whoever asked for it traces nothing
            return await self.next.execute_activity(input)
        info, began, failed = activity.info(), time.time_ns(), ""
        place = Place(whole.trace, new_span())
        TRACE.set(f"{place.trace:032x}")  # a step is a task of its own, and its failure is logged after it
        try:
            return await self.next.execute_activity(input)
        except BaseException as error:
            failed = getattr(error, "type", None) or type(error).__name__
            raise
        finally:
            said = attributes_of(info.workflow_id or "", input.args)
            said |= {"penstock.step": info.activity_type, "penstock.attempt": info.attempt}
            queue = info.task_queue.split("/")
            if len(queue) == _GATEWAY_QUEUE_PARTS and queue[0] == "gateway":
                said |= {"penstock.fleet": queue[1], "penstock.gateway": queue[2]}
            self._tell(Span(info.activity_type, place, whole.span, began, time.time_ns(), said, failed))


class _TracedWorkflows(WorkflowInboundInterceptor):
    def init(self, outbound: WorkflowOutboundInterceptor) -> None:
        """Have what this workflow starts belong to its span."""
        super().init(_TracedOrders(outbound))

    async def execute_workflow(self, input: ExecuteWorkflowInput) -> Any:  # noqa: A002 - its name
        info = workflow.info()
        said = attributes_of(info.workflow_id, input.args)
        own, given = _place(), _given()
        parent = given.span if given is not None else None
        place = Place(own.trace, _begin_of(info.run_id))
        self._tell(f"{info.workflow_type} begins", place, own.span, info.start_time, said)
        try:
            done = await super().execute_workflow(input)
        except workflow.ContinueAsNewError:
            self._tell(info.workflow_type, own, parent, info.start_time, said)
            raise
        except (Exception, asyncio.CancelledError) as error:  # not what lets go of it here, and goes on
            failed = type(error).__name__
            self._tell(info.workflow_type, own, parent, info.start_time, said, failed)
            raise
        said |= {key: value for key, value in attributes_of(info.workflow_id, [done]).items() if value}
        self._tell(info.workflow_type, own, parent, info.start_time, said)
        return done

    async def handle_update_handler(self, input: HandleUpdateInput) -> Any:  # noqa: A002 - its name
        began = workflow.now()
        try:
            return await super().handle_update_handler(input)
        finally:
            said = attributes_of(workflow.info().workflow_id, ())
            own = _place()
            place = Place(own.trace, _update_of(workflow.info().workflow_id, input.id))
            said["penstock.step"] = input.update
            self._tell(f"hear {input.update}", place, own.span, began, said)

    def _tell(
        self,
        name: str,
        place: Place,
        parent: int | None,
        began: datetime,
        said: Mapping[str, str | int],
        failed: str = "",
    ) -> None:
        """Tell once what has ended now; who replays tells nothing of what was told."""
        if workflow.unsafe.is_replaying():
            return
        start = round(began.timestamp() * 1e9)
        ended = workflow.time_ns() if not name.endswith(" begins") else start
        tell: Tell = workflow.extern_functions()[_TELL]
        tell(Span(name, place, parent, start, max(start, ended), dict(said), failed))


class _TracedOrders(WorkflowOutboundInterceptor):
    def start_activity(self, input: StartActivityInput) -> ActivityHandle[Any]:  # noqa: A002
        input.headers = {**input.headers, HEADER: _place().header()}
        return super().start_activity(input)

    async def start_child_workflow(self, input: StartChildWorkflowInput) -> ChildWorkflowHandle[Any, Any]:  # noqa: A002
        input.headers = {**input.headers, HEADER: _place().header()}
        return await super().start_child_workflow(input)

    def continue_as_new(self, input: ContinueAsNewInput) -> NoReturn:  # noqa: A002
        given = workflow.info().headers.get(HEADER)
        input.headers = {**input.headers, HEADER: given} if given is not None else input.headers
        super().continue_as_new(input)


def _given() -> Place | None:
    """Return to which span this workflow belongs; None where whoever started it traces nothing."""
    info = workflow.info()
    if info.workflow_type != CHANGE:
        return place_in(info.headers)
    return beginning_of(info.first_execution_run_id) if info.parent is None else None


def _place() -> Place:
    """Return the place of this run's own span."""
    info, given = workflow.info(), _given()
    return Place(
        trace_of(info.first_execution_run_id) if given is None else given.trace, span_of(info.run_id)
    )


def _begin_of(run: str) -> int:
    return span_of(f"{run} begins")


def _update_of(identity: str, update: str) -> int:
    return span_of(f"{identity} {update}")
