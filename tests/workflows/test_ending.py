"""How a process ends that is told to, whatever its steps do."""

import asyncio
import sys

from tests.workflows.deaf_worker import QUEUE, AskTheDeaf
from tests.workflows.engine import Engine


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
