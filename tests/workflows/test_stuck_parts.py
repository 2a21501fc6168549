"""A change is stuck as well where only a part of it is: its own task waits for that part."""

from types import SimpleNamespace
from typing import cast

import pytest
from temporalio import workflow
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from orchestrator.service.changes import ChangeService
from orchestrator.store.ledger import Ledger
from policies.model.offer import Offer, Verb
from tests.patience import until
from tests.workflows.engine import Engine

QUEUE = "parts"


@workflow.defn
class Root:
    @workflow.run
    async def run(self) -> None:
        await workflow.execute_child_workflow(Wave.run, id="change/edge/edge-2/wave/001")


@workflow.defn
class Wave:
    @workflow.run
    async def run(self) -> None:
        await workflow.execute_child_workflow(Batch.run, id="change/edge/edge-2/wave/001/gw-1")


@workflow.defn
class Batch:
    @workflow.run
    async def run(self) -> None:
        raise RuntimeError("which no worker gets over")


@pytest.mark.sweep
async def test_a_change_of_which_a_part_is_stuck_says_so_and_offers_the_rollback_that_ends_it(
    server: Engine,
) -> None:
    client = await server.client()
    book = SimpleNamespace(open_changes=lambda _: ("edge-2",))
    service, later = (
        ChangeService(client, cast(Ledger, one))
        for one in (book, SimpleNamespace(open_changes=lambda _: ("edge-3",)))
    )
    runner = UnsandboxedWorkflowRunner()
    async with Worker(client, task_queue=QUEUE, workflows=[Root, Wave, Batch], workflow_runner=runner):
        change = await client.start_workflow(Root.run, id="change/edge", task_queue=QUEUE)
        assert (await service.seen_by_engine("edge")).concern is None

        async def is_noticed() -> bool:
            return (await service.seen_by_engine("edge")).concern is not None

        await until(is_noticed)
        found = await service.seen_by_engine("edge")
        assert found.concern is not None
        assert found.concern.startswith(
            "STUCK: no worker can go on with change/edge/edge-2/wave/001/gw-1, a part of the change of edge; "
        )
        assert found.helps == (Offer(verb=Verb.ROLL_BACK, fleet="edge", force=True),)
        assert (await later.seen_by_engine("edge")).concern is None
        await change.terminate()
