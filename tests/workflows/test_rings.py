"""The rings on a real server: whatever ends a workflow, the fleet is on known-good within seconds."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import WorkflowExecutionStatus, WorkflowHandle
from workflows.rollout import Rollout

from policies.words.change import ChangeResult, Outcome, Phase
from tests.fakes.control import UNDECIDED
from tests.workflows.engine import Engine
from tests.workflows.impatient import SECONDS, Impatient
from tests.workflows.world import World, fleet_of, in_phase, result_of, until, working
from workflows.reconcile import Reconcile
from workflows.steps import CONTROL_QUEUE

STARTED_WITHIN = 6.0
"""Seconds between the end of a workflow and the first gateway that hears of the rollback.

`./run bench rings` holds it to two, on a machine that does nothing else.
"""

Running = WorkflowHandle[Rollout, ChangeResult]
Blow = Callable[[World, Running], Awaitable[object]]


def driver(world: World) -> WorkflowHandle[object, ChangeResult]:
    return world.client.get_workflow_handle(
        f"change/{world.fleet.name}/edge-1/driver", result_type=ChangeResult
    )


async def terminate_guardian(world: World, rollout: Running) -> None:
    await rollout.terminate("a test said so")


async def terminate_driver(world: World, rollout: Running) -> None:
    await driver(world).terminate("a test said so")


async def cancel_guardian(world: World, rollout: Running) -> None:
    await rollout.cancel()


async def cancel_driver(world: World, rollout: Running) -> None:
    await driver(world).cancel()


async def cancel_both_twice(world: World, rollout: Running) -> None:
    for _ in range(2):
        await asyncio.gather(rollout.cancel(), driver(world).cancel())
        await asyncio.sleep(0.05)


async def watched(world: World) -> tuple[Running, dict[str, int]]:
    """Start a rollout, wait until its wave is watched, and return who owns the gateways."""
    world.judge.says(UNDECIDED)
    rollout = await world.start(("gw-1", "gw-2"), ("gw-3",))
    await in_phase(rollout, Phase.OBSERVING)
    return rollout, {name: fake.owner[0] for name, fake in world.gateways.items()}


async def outlived(workflow: WorkflowHandle[Any, ChangeResult]) -> None:
    """Wait until the engine has ended the workflow because its time was over."""

    async def is_over() -> bool:
        return (await workflow.describe()).status is WorkflowExecutionStatus.TIMED_OUT

    await until(is_over, 15)


async def fenced_after(world: World, epochs: dict[str, int]) -> float:
    """Return how many seconds it takes until the touched gateways hear of a rollback."""
    began = time.monotonic()
    await until(lambda: all(world.gateways[n].owner[0] > epochs[n] for n in ("gw-1", "gw-2")), 15)
    return time.monotonic() - began


def assert_back_once(world: World) -> None:
    assert set(world.serving().values()) == {"1.1.6"}
    for name in ("gw-1", "gw-2"):
        effects = world.gateways[name].effects
        assert [e for e in effects if e.startswith(("stage", "start", "steer"))] == [
            "stage 1.3.0",
            "start b",
            "steer b",
            "steer a",
        ]
    assert world.gateways["gw-3"].effects == []


@pytest.mark.parametrize(
    "blow",
    [terminate_guardian, terminate_driver, cancel_guardian, cancel_driver, cancel_both_twice],
    ids=lambda blow: blow.__name__,
)
async def test_whatever_ends_a_workflow_rolls_back_within_seconds(real: World, blow: Blow) -> None:
    rollout, epochs = await watched(real)
    await blow(real, rollout)
    assert await fenced_after(real, epochs) < STARTED_WITHIN
    await until(lambda: set(real.serving().values()) == {"1.1.6"})
    if blow is not terminate_guardian:
        assert (await result_of(rollout)).outcome is Outcome.ROLLED_BACK
    else:
        assert (await result_of(driver(real))).outcome is Outcome.ROLLED_BACK
    assert_back_once(real)


async def test_a_guardian_whose_time_is_over_rolls_back_within_seconds(real: World) -> None:
    real.judge.says(UNDECIDED)
    rollout = await real.client.start_workflow(
        Rollout.run,
        real.order(("gw-1", "gw-2"), ("gw-3",)),
        id="change/edge",
        task_queue=CONTROL_QUEUE,
        execution_timeout=timedelta(seconds=SECONDS),
    )
    await in_phase(rollout, Phase.OBSERVING)
    epochs = {name: fake.owner[0] for name, fake in real.gateways.items()}
    await outlived(rollout)
    assert await fenced_after(real, epochs) < STARTED_WITHIN
    assert (await result_of(driver(real))).outcome is Outcome.ROLLED_BACK
    assert_back_once(real)


async def test_a_driver_whose_time_is_over_is_undone_within_seconds(server: Engine) -> None:
    world = World.made(await server.client(), fleet_of("edge", lease=timedelta(seconds=20)))
    async with working(world, interceptors=[Impatient()]):
        rollout, epochs = await watched(world)
        await outlived(driver(world))
        assert await fenced_after(world, epochs) < STARTED_WITHIN
        result = await result_of(rollout)
    assert result.outcome is Outcome.ROLLED_BACK
    assert result.reason.startswith("the driver ended")
    assert_back_once(world)


async def test_with_both_terminated_reconcile_brings_the_fleet_back(real: World) -> None:
    rollout, _ = await watched(real)
    await asyncio.gather(rollout.terminate("a test"), driver(real).terminate("a test"))
    found = await real.client.execute_workflow(
        Reconcile.run, real.fleet, id="reconcile/edge", task_queue=CONTROL_QUEUE
    )
    assert sorted(found.strays) == ["gw-1", "gw-2"]
    assert found.open_rollouts == ("edge-1",)
    await until(lambda: set(real.serving().values()) == {"1.1.6"})
    await until(lambda: bool(real.book.closed))
    assert real.book.closed[-1].outcome is Outcome.ROLLED_BACK
    assert_back_once(real)


async def test_with_nobody_left_the_lease_itself_sends_new_sessions_back(real: World) -> None:
    rollout, _ = await watched(real)
    await asyncio.gather(rollout.terminate("a test"), driver(real).terminate("a test"))
    began = time.monotonic()
    await until(lambda: set(real.serving().values()) == {"1.1.6"})
    assert time.monotonic() - began < real.fleet.limits.lease.total_seconds() + 1
