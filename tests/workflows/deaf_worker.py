"""A worker with a step that is deaf to its cancellation, as a process of its own: `ADDRESS NAMESPACE`."""

import asyncio
import sys
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.client import Client

from orchestrator.processes import process
from orchestrator.processes.leaving import leave

QUEUE = "deaf"


@activity.defn
async def deaf() -> None:
    print("taken up", flush=True)
    while True:
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            continue


@workflow.defn
class AskTheDeaf:
    @workflow.run
    async def run(self) -> None:
        await workflow.execute_activity(deaf, start_to_close_timeout=timedelta(minutes=5))


async def main(address: str, namespace: str) -> None:
    process.GRACE, process.LAST_WORDS = timedelta(seconds=0.5), timedelta(seconds=1)
    client = await Client.connect(address, namespace=namespace)
    worker = process.make_worker(client, QUEUE, workflows=[AskTheDeaf], activities=[deaf])
    await process.run_until_told(worker)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
    leave(0)
