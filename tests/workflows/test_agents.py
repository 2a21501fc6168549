"""Agents that come and go while a gateway drains."""

import asyncio
import time
from datetime import timedelta

from temporalio.client import Client
from temporalio.worker import Worker

from policies.model.drain import DrainStatus
from tests.fakes.gateway import FakeGateway
from tests.patience import until
from tests.workflows.engine import Engine
from tests.workflows.world import NEW, World, control_worker, fleet_of, result_of, steps_on
from workflows.drain import Drain
from workflows.steps import CONTROL_QUEUE


def agent(client: Client, fake: FakeGateway) -> Worker:
    """An agent that ends as calmly as the real one (orchestrator/processes/process.py)."""
    return Worker(
        client,
        task_queue=fake.gateway.task_queue,
        activities=steps_on(fake),
        graceful_shutdown_timeout=timedelta(seconds=20),
        max_heartbeat_throttle_interval=timedelta(seconds=1),
    )


async def test_a_drain_goes_on_with_the_next_agent_and_knows_what_the_last_one_saw(server: Engine) -> None:
    world = World.made(await server.client(), fleet_of("edge"))
    fake = world.gateways["gw-1"]
    for person in range(3):
        fake.login(f"192.0.2.{person}")
    fake.serve(NEW, "b")
    async with control_worker(world.client, world):
        order = world.drain_order("gw-1")
        running = await world.client.start_workflow(
            Drain.run, order, id="drain/gw-1/edge-1/1", task_queue=CONTROL_QUEUE
        )

        async def counted() -> bool:
            status: DrainStatus = await running.query("status", result_type=DrainStatus)
            return bool(status.slots) and status.slots[0].sessions == 3

        async with agent(world.client, fake):
            await until(counted)
            fake.slots["a"].people.append("192.0.2.9")
            await asyncio.sleep(0.5)  # looks come every 20 ms here, beats every 30 s
            ending = time.monotonic()
        assert time.monotonic() - ending < 5
        fake.reboot()
        async with agent(world.client, fake):
            result = await result_of(running)
    assert (result.stopped, result.lost_crash, result.lost_reboot) == (("gw-1 a",), 0, 4)
