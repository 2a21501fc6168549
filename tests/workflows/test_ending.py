"""How a process ends that is told to, whatever its steps do."""

import asyncio
import sys

from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import (
    PollActivityTaskQueueRequest,
    RespondActivityTaskFailedRequest,
)

from tests.workflows import failing_worker
from tests.workflows.deaf_worker import QUEUE, AskTheDeaf
from tests.workflows.engine import Engine
from tests.workflows.hostile_calls import nested


async def test_a_step_that_is_deaf_to_its_cancellation_does_not_keep_its_process(server: Engine) -> None:
    client = await server.client()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.workflows.deaf_worker",
        server.address,
        client.namespace,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        await client.start_workflow(AskTheDeaf.run, id=QUEUE, task_queue=QUEUE)
        async with asyncio.timeout(60):
            while await process.stdout.readline() != b"taken up\n":
                assert process.returncode is None
            process.terminate()
            _, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 1
    assert b"a step did not end when it was cancelled" in said


async def test_a_process_whose_worker_has_failed_for_good_ends_and_can_be_started_again(
    server: Engine,
) -> None:
    """The engine's client cannot read the workflow's history: it polls no more, and its run never returns."""
    client = await server.client()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.workflows.failing_worker",
        server.address,
        client.namespace,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        await client.start_workflow(
            failing_worker.AskOthers.run, id=failing_worker.QUEUE, task_queue=failing_worker.QUEUE
        )
        polled = PollActivityTaskQueueRequest(
            namespace=client.namespace, task_queue=TaskQueue(name=failing_worker.OF_OTHERS)
        )
        async with asyncio.timeout(60):
            given = await client.workflow_service.poll_activity_task_queue(polled)
            failed = RespondActivityTaskFailedRequest(
                task_token=given.task_token, namespace=client.namespace, failure=nested(95)
            )
            await client.workflow_service.respond_activity_task_failed(failed)
            _, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 1
    assert b"the worker has failed and does not end" in said
