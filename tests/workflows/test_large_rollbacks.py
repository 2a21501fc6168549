"""Rollbacks at size: what one change writes does not grow with its fleet, and nothing ends it midway."""

import time
from typing import Any
from uuid import uuid4

from temporalio.client import WorkflowExecutionStatus, WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from orchestrator.service.changes import ChangeService
from policies.model.change import ChangeOpening, KnownGoodBatch, Phase
from policies.model.command import Command, CommandKind
from policies.model.plan_part import PartKey
from policies.status.told import Told
from tests.workflows.ending import ending
from tests.workflows.engine import Engine
from tests.workflows.world import NEW, World, control_worker, fleet_of, is_heard, until
from workflows.change import Change, ChangeRun, Continued
from workflows.steps import CONTROL_QUEUE

PARTS = 200
"""Parts of a fleet of ten thousand gateways."""

LARGEST_EVENT = 256 * 1024
"""Bytes of what one event of a change may carry."""


async def begins(handle: WorkflowHandle[Any, Any]) -> bool:
    try:
        await handle.describe()
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
        return False
    return True


async def test_a_promotion_of_ten_thousand_gateways_is_taken_back_although_a_site_was_left_out(
    server: Engine,
) -> None:
    fleet = fleet_of("edge", size=PARTS)
    world = World.made(await server.client(), fleet)
    order = world.order(*[(f"gw-{number}",) for number in range(1, PARTS + 1)])
    assert order.key is not None
    name = world.book.open_change(
        ChangeOpening(
            key=order.key,
            fleet="edge",
            kind=order.kind,
            requested_by=order.requested_by,
            reason=order.reason,
            release=NEW.version,
            release_digest=NEW.digest,
            plan=order.plan,
        )
    )
    record = world.book.record_known_good_batch

    def slowly(batch: KnownGoodBatch) -> int:
        if not batch.back:
            time.sleep(0.3)  # so that the rollback comes amid the promotion
        return record(batch)

    world.book.record_known_good_batch = slowly  # type: ignore[method-assign]
    site = {
        PartKey(wave=part, number=1).path: tuple(f"paris-edge-{part:03}-{one:02}" for one in range(50))
        for part in range(1, 26)
    }
    run = ChangeRun(
        order=order,
        continued=Continued(
            name=name,
            epoch=int(time.time() * 1000),
            passed=PARTS,
            told=Told(name=name, moved=True, phase=Phase.PROMOTING),
            receipts={},
            aside_in=site,
        ),
    )

    def good() -> list[str]:
        return [release.version for release in world.book.known_good("edge").values()]

    async with ending(control_worker(world.client, world, failures=())):
        await until(lambda: is_heard(world.client))
        change = await world.client.start_workflow(
            Change.run, run, id="change/edge", task_queue=CONTROL_QUEUE
        )
        await until(lambda: "1.3.0" in good())
        command = Command(id=uuid4().hex, kind=CommandKind.ROLL_BACK, person="ana", reason="users call")
        receipt = await ChangeService(world.client, world.book).command("edge", command)
        assert receipt.accepted
        restore = world.client.get_workflow_handle(f"change/edge/{name}/restore")
        await until(lambda: begins(restore))
        await until(lambda: good() == ["1.1.6"] * PARTS)
        assert (await change.describe()).status is WorkflowExecutionStatus.RUNNING
        sizes = [event.ByteSize() async for event in change.fetch_history_events()]
        assert max(sizes) < LARGEST_EVENT
        assert sum(sizes) < 4 * 1024 * 1024
        await change.terminate("the test is over")
