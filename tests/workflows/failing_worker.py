"""A worker of a workflow whose step others carry out, as a process of its own: `ADDRESS NAMESPACE`."""

import asyncio
import sys
from datetime import timedelta

from temporalio import workflow
from temporalio.client import Client

from orchestrator.processes import process
from orchestrator.processes.leaving import leave

QUEUE, OF_OTHERS = "failing", "others"


@workflow.defn
class AskOthers:
    @workflow.run
    async def run(self) -> None:
        await workflow.execute_activity(
            "step", task_queue=OF_OTHERS, start_to_close_timeout=timedelta(minutes=5)
        )


async def main(address: str, namespace: str) -> None:
    process.GRACE, process.LAST_WORDS = timedelta(seconds=0.5), timedelta(seconds=1)
    client = await Client.connect(address, namespace=namespace)
    await process.run_until_told(process.make_worker(client, QUEUE, workflows=[AskOthers]))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
    leave(0)
