"""Watching a change: its workflows' histories, live, through every restart of the engine.

A boundary is a line of a history at which something could have been half done. History writes
the start of an activity only when it ends, so `under way` is met by the clock: some time after
the activity was scheduled. A trial with a share of the addresses is a step of its own at each
share, and so is what a wave orders its batches: the next share, and the end of the trial.
"""

import asyncio
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client
from temporalio.converter import (
    ActivitySerializationContext,
    SerializationContext,
    WorkflowSerializationContext,
)
from temporalio.service import RPCError

from policies.model.report import EVERYBODY

BEGUN, UNDER_WAY, DONE = "begun", "under way", "done"
_ENDS = {
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCELED,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TIMED_OUT,
}
_ORDERS = {"share", "end"}
"""Signals by which a wave tells its batches what becomes of the trial."""
CHANGE, WAY_BACK = "change", "way back"
"""What a change is called, and one that takes back what an earlier one promoted."""


@dataclass(frozen=True, order=True)
class Boundary:
    """Which line of whose history, the first time it appears in a change."""

    role: str
    step: str
    moment: str

    def __str__(self) -> str:
        return f"{self.role}: {self.step} {self.moment}"


@dataclass(frozen=True)
class Seen:
    """A boundary that was met, when, and on which gateway if it was a gateway's step."""

    boundary: Boundary
    gateway: str | None
    at: datetime

    @property
    def meets(self) -> set[Boundary]:
        """What this line begins, too: a step that has begun is under way a moment later."""
        boundary = self.boundary
        if boundary.moment != BEGUN or boundary.step.startswith("child"):
            return {boundary}
        return {boundary, Boundary(boundary.role, boundary.step, UNDER_WAY)}


class Watch:
    """Follows a change and everything below it; `role` is the change's own."""

    def __init__(self, client: Client, heard: Callable[[Seen], None], role: str = CHANGE) -> None:
        self._client = client
        self._heard = heard
        self._role = role
        self._tasks: set[asyncio.Task[None]] = set()
        self.histories: dict[str, list[HistoryEvent]] = {}
        self.seen: list[Seen] = []

    def follow(self, workflow: str, run: str | None = None) -> asyncio.Task[None]:
        """Follow this workflow until it has ended, and every child it starts."""
        self.histories[workflow] = []
        task = asyncio.create_task(self._follow(workflow, run))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def stop(self) -> None:
        """Stop following."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _follow(self, workflow: str, run: str | None) -> None:
        events = self.histories[workflow]
        handle = self._client.get_workflow_handle(workflow, run_id=run)
        while not events or events[-1].event_type not in _ENDS:
            with suppress(RPCError):
                number = 0
                async for event in handle.fetch_history_events(wait_new_event=True):
                    if number == len(events):
                        events.append(event)
                        await self._hear(workflow, event)
                    number += 1
            await asyncio.sleep(0.03)

    async def _hear(self, workflow: str, event: HistoryEvent) -> None:
        found = await self._boundary(workflow, event)
        if found is not None:
            seen = Seen(*found, moment_of(event))
            self.seen.append(seen)
            self._heard(seen)
        child = event.start_child_workflow_execution_initiated_event_attributes.workflow_id
        if child and child not in self.histories:
            self.follow(child)

    async def _boundary(self, workflow: str, event: HistoryEvent) -> tuple[Boundary, str | None] | None:
        role, events = role_of(workflow, self._role), self.histories[workflow]
        match event.event_type:
            case EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
                moment, scheduled = BEGUN, event
            case EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:
                number = event.activity_task_completed_event_attributes.scheduled_event_id
                moment, scheduled = DONE, events[number - 1]
            case EventType.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_STARTED:
                started = event.child_workflow_execution_started_event_attributes
                return Boundary(role, f"child {started.workflow_type.name}", BEGUN), None
            case EventType.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_COMPLETED:
                ended = event.child_workflow_execution_completed_event_attributes
                return Boundary(role, f"child {ended.workflow_type.name}", DONE), None
            case EventType.EVENT_TYPE_SIGNAL_EXTERNAL_WORKFLOW_EXECUTION_INITIATED:
                return await self._order(role, event, BEGUN)
            case EventType.EVENT_TYPE_EXTERNAL_WORKFLOW_EXECUTION_SIGNALED:
                number = event.external_workflow_execution_signaled_event_attributes.initiated_event_id
                return await self._order(role, events[number - 1], DONE)
            case _:
                return None
        activity = scheduled.activity_task_scheduled_event_attributes
        queue = activity.task_queue.name
        gateway = queue.rpartition("/")[2] if queue.startswith("gateway/") else None
        step = ActivitySerializationContext(
            namespace=self._client.namespace,
            workflow_id=workflow,
            workflow_type=None,
            activity_id=activity.activity_id,
            activity_type=activity.activity_type.name,
            activity_task_queue=queue,
            is_local=False,
        )
        argument = await self._argument(activity.input.payloads, step)
        return Boundary(role, _step(activity.activity_type.name, argument), moment), gateway

    async def _order(self, role: str, initiated: HistoryEvent, moment: str) -> tuple[Boundary, None] | None:
        """Return the boundary where a wave tells a batch what becomes of a trial; None for other signals."""
        signal = initiated.signal_external_workflow_execution_initiated_event_attributes
        if signal.signal_name not in _ORDERS or not role.startswith("wave"):
            return None
        told = WorkflowSerializationContext(
            namespace=self._client.namespace, workflow_id=signal.workflow_execution.workflow_id
        )
        argument = await self._argument(signal.input.payloads, told)
        return Boundary(role, f"order {signal.signal_name} {argument}", moment), None

    async def _argument(self, payloads: Sequence[Payload], place: SerializationContext) -> Any:
        """Return the first argument of what was sent there, opened as the orchestrator opens it."""
        if not payloads:
            return None
        return (await self._client.data_converter.with_context(place).decode(payloads[:1]))[0]


def _step(activity: str, argument: Any) -> str:
    """Return the name of a step: the activity's, with its share where it is not everybody's."""
    share = argument.get("share", EVERYBODY) if isinstance(argument, dict) else EVERYBODY
    return activity if share == EVERYBODY else f"{activity} {share}%"


def role_of(workflow: str, change: str = CHANGE) -> str:
    """Return what a workflow does, by its id; the change itself is called `change`."""
    kind = workflow.partition("/")[0]
    if kind in {"drain", "bake", "snapshot"}:
        return kind
    if kind == "restore" or "/restore" in workflow:
        return "restore"
    if found := re.search(r"/wave/(\d+)(/watch|/\d+)?$", workflow):
        part = {None: "wave", "/watch": "watch"}.get(found[2], "batch")
        return f"{part} {int(found[1])}"
    last = workflow.rpartition("/")[2]
    return last if last in {"preflight", "survey"} else change


def moment_of(event: HistoryEvent) -> datetime:
    """Return when the engine wrote the event."""
    return event.event_time.ToDatetime(tzinfo=UTC)


def taken_up_by(event: HistoryEvent) -> str:
    """Return which process took up a task with this event; empty when none did."""
    return (
        event.activity_task_started_event_attributes.identity
        or event.workflow_task_started_event_attributes.identity
    )
