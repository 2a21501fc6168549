"""The time-skipping server is never asked to cancel what may just have completed."""

import asyncio
import threading
from datetime import timedelta

import pytest
from temporalio import activity, workflow
from temporalio.exceptions import ActivityError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from orchestrator.processes.process import uninterrupted
from policies.model.errors import Unavailable
from tests.patience import PATIENCE, until

may_complete, in_the_middle, may_go_on = asyncio.Event(), threading.Event(), threading.Event()


@activity.defn(name="step")
async def step() -> None:
    await may_complete.wait()


@workflow.defn(name="GivesUp", sandboxed=False)
class GivesUp:
    """Gives a step up in a workflow task that lasts until the test lets it go on."""

    def __init__(self) -> None:
        self._told = self._is_over = False

    @workflow.run
    async def run(self) -> str:
        under_way = workflow.start_activity(step, start_to_close_timeout=timedelta(minutes=1))
        await workflow.wait_condition(lambda: self._told)
        in_the_middle.set()
        may_go_on.wait(60)
        under_way.cancel()
        try:
            await under_way
            came = "completed"
        except ActivityError:
            came = "given up"
        # A workflow that ended here would be asked again: the server has news for it.
        await workflow.wait_condition(lambda: self._is_over)
        return came

    @workflow.signal(name="give_up")
    def give_up(self) -> None:
        self._told = True

    @workflow.signal(name="end")
    def end(self) -> None:
        self._is_over = True


async def test_a_workflow_that_gives_up_a_step_at_the_moment_it_completes_goes_on(
    environment: WorkflowEnvironment,
) -> None:
    client = environment.client
    worker = Worker(client, task_queue="gives-up", workflows=[GivesUp], activities=[step])
    async with uninterrupted(worker):  # one workflow task lasts until the step has completed
        running = await client.start_workflow(GivesUp.run, id="gives-up", task_queue="gives-up")

        async def pending() -> int:
            return len((await running.describe()).raw_description.pending_activities)

        async def is_under_way() -> bool:
            return await pending() == 1

        async def has_completed() -> bool:
            return await pending() == 0

        await until(is_under_way)
        await running.signal(GivesUp.give_up)
        await until(in_the_middle.is_set)
        may_complete.set()
        await until(has_completed)
        may_go_on.set()
        await running.signal(GivesUp.end)
        async with asyncio.timeout(PATIENCE):
            assert await running.result() == "given up"


attempts: list[str] = []


@activity.defn(name="patient")
async def patient() -> None:
    attempts.append("began")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        attempts.append("was told")
        raise


@activity.defn(name="failing")
async def failing() -> None:
    attempts.append("failed")
    raise Unavailable("not now")


@workflow.defn(name="LosesPatience", sandboxed=False)
class LosesPatience:
    """Gives a step up after a while, and lives on for long enough to see it tried again."""

    @workflow.run
    async def run(self, name: str) -> None:
        under_way = workflow.start_activity(name, start_to_close_timeout=timedelta(minutes=1))
        await workflow.sleep(1.5)
        under_way.cancel()
        await workflow.sleep(60)


@pytest.mark.parametrize(("step", "ends"), [("patient", "was told"), ("failing", "failed")])
async def test_a_step_that_was_given_up_is_told_and_never_tried_again(
    environment: WorkflowEnvironment, step: str, ends: str
) -> None:
    attempts.clear()
    client = environment.client
    async with Worker(client, task_queue="gu", workflows=[LosesPatience], activities=[patient, failing]):
        running = await client.start_workflow(LosesPatience.run, step, id="gives-up", task_queue="gu")
        await environment.sleep(10)
        until_then = list(attempts)
        await running.result()
    assert until_then[-1] == ends
    assert attempts == until_then
