"""A machine that stands still for some seconds costs its workflows those seconds and nothing more."""

import time
from datetime import timedelta

from temporalio import workflow
from temporalio.api.enums.v1 import EventType

from orchestrator.processes.process import make_worker
from tests.workflows.engine import Engine

QUEUE = "stands-still"
LONGER = 2.5
"""Seconds; the SDK interrupts a workflow after two unless it is told otherwise."""

ENDED_WITHIN = timedelta(seconds=30)
"""Time after which it has not gone on: what is interrupted is begun again, as often as that happens."""


@workflow.defn
class StandsStill:
    """One task that takes long: its thread gets no processor meanwhile."""

    @workflow.run
    async def run(self) -> str:
        await workflow.sleep(timedelta(milliseconds=1))
        time.sleep(LONGER)  # noqa: ASYNC251 - what the SDK takes for a deadlock
        return "went on"


async def test_a_workflow_whose_machine_stands_still_for_seconds_is_not_interrupted(server: Engine) -> None:
    """What is interrupted at a bad line stands still until its worker ends."""
    client = await server.client()
    async with make_worker(client, QUEUE, workflows=[StandsStill]):
        running = await client.start_workflow(
            StandsStill.run, id=QUEUE, task_queue=QUEUE, execution_timeout=ENDED_WITHIN
        )
        assert await running.result() == "went on"
    kinds = {event.event_type for event in (await running.fetch_history()).events}
    assert EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED not in kinds
