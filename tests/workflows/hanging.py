"""A test that is about to be ended says what the engine still runs, and what each of it waits for."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowExecution
from temporalio.service import RPCError

SAID_AFTER = timedelta(seconds=240)
"""Time after which what still runs is said: a minute before pytest ends the test."""


@asynccontextmanager
async def said_when_it_hangs(client: Client, after: timedelta = SAID_AFTER) -> AsyncIterator[None]:
    """Print what runs in the client's namespace once the block has lasted for so long; the block goes on."""
    watching = asyncio.create_task(_said_later(client, after))
    try:
        yield
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching


async def _said_later(client: Client, after: timedelta) -> None:
    await asyncio.sleep(after.total_seconds())
    print(f"this test has lasted for {after.total_seconds():.0f} s; what runs now:")
    try:
        async for one in client.list_workflows("ExecutionStatus = 'Running'"):
            print(await waits_for(client, one))
    except RPCError as error:
        print(f"the engine does not say: {error}")


async def waits_for(client: Client, one: WorkflowExecution) -> str:
    """Return one workflow's steps, children and newest event, as its history has them."""
    handle = client.get_workflow_handle(one.id, run_id=one.run_id)
    told = (await handle.describe()).raw_description
    steps = [f"{step.activity_type.name} (attempt {step.attempt})" for step in told.pending_activities]
    children = [child.workflow_id for child in told.pending_children]
    newest = (await handle.fetch_history()).events[-1]
    ago = (datetime.now(UTC) - newest.event_time.ToDatetime(UTC)).total_seconds()
    return (
        f"{one.id}: {newest.event_id} events, the newest {EventType.Name(newest.event_type)} {ago:.0f} s ago;"
        f" steps: {', '.join(steps) or 'none'}; children: {', '.join(children) or 'none'};"
        f" workflow task: attempt {told.pending_workflow_task.attempt}"
    )
