"""Drains as rollouts leave them behind: what is empty stops, and a newer change takes over."""

from temporalio.client import WorkflowHandle

from policies.model.operation import Operation
from tests.workflows.world import NEW, World, result_of
from workflows.drain import Drain, DrainResult
from workflows.steps import CONTROL_QUEUE


async def drain(world: World) -> WorkflowHandle[Drain, DrainResult]:
    """Drain gw-1, where 1.1.6 still runs in slot a and new sessions go to slot b."""
    world.gateways["gw-1"].serve(NEW, "b")
    return await world.client.start_workflow(
        Drain.run,
        world.drain_order("gw-1"),
        id=f"drain/{world.fleet.name}",
        task_queue=CONTROL_QUEUE,
    )


async def test_an_empty_instance_stops_and_the_serving_one_stays(world: World) -> None:
    result = await result_of(await drain(world))
    assert result.stopped == ("gw-1 a",)
    assert world.gateways["gw-1"].slots["b"].state == "running"


async def test_a_drain_that_a_newer_change_fences_ends_as_superseded(world: World) -> None:
    fake = world.gateways["gw-1"]
    newer = Operation(rollout="edge-2", epoch=2, gateway="gw-1", step="fence", digest=NEW.digest)
    running = await drain(world)
    await fake.fence(newer)
    result = await result_of(running)
    assert result.stopped == ()
    assert "obeys rollout edge-2" in result.superseded["gw-1"]
    assert fake.slots["a"].state == "running"


async def test_a_superseded_drain_does_not_wait_for_people_beside_the_newer_one(world: World) -> None:
    fake = world.gateways["gw-1"]
    fake.slots["a"].people.append("192.0.2.1")
    running = await drain(world)
    await fake.fence(Operation(rollout="edge-2", epoch=2, gateway="gw-1", step="fence", digest=NEW.digest))
    result = await result_of(running)
    assert sorted(result.superseded) == ["gw-1"]
    assert fake.slots["a"].people == ["192.0.2.1"]
