"""Watching a change: its workflows' histories, live, through every restart of the engine.

A boundary is a line of a history at which something could have been half done. History writes
the start of an activity only when it ends, so `under way` is met by the clock: some time after
the activity was scheduled.
"""

import asyncio
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client
from temporalio.service import RPCError

BEGUN, UNDER_WAY, DONE = "begun", "under way", "done"
_ENDS = {
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCELED,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TIMED_OUT,
}


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
    """Follows a change and everything below it."""

    def __init__(self, client: Client, heard: Callable[[Seen], None]) -> None:
        self._client = client
        self._heard = heard
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
                        self._hear(workflow, event)
                    number += 1
            await asyncio.sleep(0.03)

    def _hear(self, workflow: str, event: HistoryEvent) -> None:
        found = self._boundary(workflow, event)
        if found is not None:
            seen = Seen(*found, moment_of(event))
            self.seen.append(seen)
            self._heard(seen)
        child = event.start_child_workflow_execution_initiated_event_attributes.workflow_id
        if child and child not in self.histories:
            self.follow(child)

    def _boundary(self, workflow: str, event: HistoryEvent) -> tuple[Boundary, str | None] | None:
        role = role_of(workflow)
        match event.event_type:
            case EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
                moment, scheduled = BEGUN, event
            case EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:
                number = event.activity_task_completed_event_attributes.scheduled_event_id
                moment, scheduled = DONE, self.histories[workflow][number - 1]
            case EventType.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_STARTED:
                started = event.child_workflow_execution_started_event_attributes
                return Boundary(role, f"child {started.workflow_type.name}", BEGUN), None
            case EventType.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_COMPLETED:
                ended = event.child_workflow_execution_completed_event_attributes
                return Boundary(role, f"child {ended.workflow_type.name}", DONE), None
            case _:
                return None
        activity = scheduled.activity_task_scheduled_event_attributes
        queue = activity.task_queue.name
        gateway = queue.removeprefix("gateway.") if queue.startswith("gateway.") else None
        return Boundary(role, activity.activity_type.name, moment), gateway


def role_of(workflow: str) -> str:
    """Return what a workflow does in a change, by its id."""
    if workflow.startswith("drain/"):
        return "drain"
    if workflow.startswith("restore/") or "/restore" in workflow:
        return "restore"
    if found := re.search(r"/wave/(\d+)(/watch|/\d+)?$", workflow):
        part = {None: "wave", "/watch": "watch"}.get(found[2], "batch")
        return f"{part} {int(found[1])}"
    last = workflow.rpartition("/")[2]
    return last if last in {"preflight", "survey"} else "change"


def moment_of(event: HistoryEvent) -> datetime:
    """Return when the engine wrote the event."""
    return event.event_time.ToDatetime(tzinfo=UTC)


def taken_up_by(event: HistoryEvent) -> str:
    """Return which process took up a task with this event; empty when none did."""
    return (
        event.activity_task_started_event_attributes.identity
        or event.workflow_task_started_event_attributes.identity
    )
