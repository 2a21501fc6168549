"""The rings on a real server: whatever ends a workflow, the fleet is on known-good within seconds."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import WorkflowExecutionStatus, WorkflowHandle

from policies.model.change import Outcome, Phase
from policies.model.command import Command, CommandKind
from tests.fakes.control import UNDECIDED
from tests.patience import until
from tests.workflows.engine import Engine
from tests.workflows.impatient import SECONDS, Impatient
from tests.workflows.world import (
    Running,
    World,
    agent_worker,
    control_worker,
    fleet_of,
    in_phase,
    reconcile,
    result_of,
    working,
)
from workflows.change import Change, ChangeRun
from workflows.steps import CONTROL_QUEUE
from workflows.wave import Wave

STARTED_WITHIN = 6.0
"""Seconds between the end of a workflow and the first gateway that hears of the way back.

`./run bench rings` holds it to two, on a machine that does nothing else.
"""

Blow = Callable[[World, Running], Awaitable[object]]


def child(world: World, name: str = "wave/001") -> WorkflowHandle[Any, Any]:
    return world.client.get_workflow_handle(f"change/{world.fleet.name}/{world.newest}/{name}")


async def terminate_change(world: World, change: Running) -> None:
    await change.terminate("a test said so")


async def terminate_wave(world: World, change: Running) -> None:
    await child(world).terminate("a test said so")


async def terminate_batch(world: World, change: Running) -> None:
    await child(world, "wave/001/0001").terminate("a test said so")


async def cancel_change(world: World, change: Running) -> None:
    await change.cancel()


async def cancel_wave(world: World, change: Running) -> None:
    await child(world).cancel()


async def cancel_batch(world: World, change: Running) -> None:
    await child(world, "wave/001/0001").cancel()


async def cancel_change_and_wave_twice(world: World, change: Running) -> None:
    for _ in range(2):
        await asyncio.gather(change.cancel(), child(world).cancel())
        await asyncio.sleep(0.05)


async def watched(world: World) -> tuple[Running, dict[str, int]]:
    """Start an upgrade, wait until its wave is watched, and return who owns the gateways."""
    world.judge.says(UNDECIDED)
    change = await world.start(("gw-1", "gw-2"), ("gw-3",))
    await in_phase(change, Phase.OBSERVING)
    return change, {name: fake.owner[0] for name, fake in world.gateways.items()}


async def outlived(workflow: WorkflowHandle[Any, Any]) -> None:
    """Wait until the engine has ended the workflow because its time was over."""

    async def is_over() -> bool:
        return (await workflow.describe()).status is WorkflowExecutionStatus.TIMED_OUT

    await until(is_over, 40)


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
    [
        terminate_wave,
        cancel_change,
        *(
            pytest.param(blow, marks=pytest.mark.sweep)
            for blow in (
                terminate_batch,
                cancel_wave,
                cancel_batch,
                cancel_change_and_wave_twice,
            )
        ),
    ],
    ids=lambda blow: blow.__name__,
)
async def test_whatever_ends_a_workflow_rolls_back_within_seconds(real: World, blow: Blow) -> None:
    """A watch that ends is begun again instead, since that says nothing of the release (test_silence.py)."""
    change, epochs = await watched(real)
    await blow(real, change)
    assert await fenced_after(real, epochs) < STARTED_WITHIN
    await until(lambda: set(real.serving().values()) == {"1.1.6"})
    assert (await result_of(change)).outcome is Outcome.ROLLED_BACK
    assert_back_once(real)


@pytest.mark.sweep
async def test_a_batch_that_is_cancelled_ends_its_trials(server: Engine) -> None:
    """Where the whole tree is cancelled from above, its leases are not what sends new sessions back."""
    world = World.made(await server.client(), fleet_of("edge", lease=timedelta(minutes=10)))
    async with working(world):
        change, _ = await watched(world)
        await change.terminate("a test said so")
        await until(lambda: set(world.serving().values()) == {"1.1.6"}, 15)
        assert [world.gateways[name].trial for name in ("gw-1", "gw-2")] == [None, None]
        found = await reconcile(world)
        await until(lambda: world.book.open_changes("edge") == ())
        assert found.open_changes == ("edge-2",)
    assert_back_once(world)


@pytest.mark.sweep
async def test_a_change_whose_time_is_over_gives_its_users_back_within_seconds(server: Engine) -> None:
    world = World.made(await server.client(), fleet_of("edge", lease=timedelta(minutes=10)))
    world.judge.says(UNDECIDED)
    async with working(world):
        change = await world.client.start_workflow(
            Change.run,
            ChangeRun(order=world.order(("gw-1", "gw-2"), ("gw-3",))),
            id="change/edge",
            task_queue=CONTROL_QUEUE,
            execution_timeout=timedelta(seconds=SECONDS),
        )
        await in_phase(change, Phase.OBSERVING)
        await outlived(change)
        await until(lambda: set(world.serving().values()) == {"1.1.6"}, STARTED_WITHIN)


@pytest.mark.sweep
async def test_a_wave_whose_time_is_over_is_undone_within_seconds(server: Engine) -> None:
    world = World.made(await server.client(), fleet_of("edge", lease=timedelta(seconds=20)))
    async with working(world, interceptors=[Impatient()]):
        change, epochs = await watched(world)
        await outlived(child(world))
        assert await fenced_after(world, epochs) < STARTED_WITHIN
        result = await result_of(change)
    assert result.outcome is Outcome.ROLLED_BACK
    assert_back_once(world)


@pytest.mark.sweep
async def test_with_everybody_terminated_reconcile_brings_the_fleet_back(server: Engine) -> None:
    world = World.made(await server.client(), fleet_of("edge", lease=timedelta(minutes=10)))
    async with working(world):
        change, _ = await watched(world)
        # From below: whoever is still there when the one above ends would end the trials.
        ends = [child(world, "wave/001/0001"), child(world), change]
        await asyncio.gather(*[end.terminate("a test") for end in ends], return_exceptions=True)
        found = await reconcile(world)
        assert found.open_changes == ("edge-2",)
        await until(lambda: set(world.serving().values()) == {"1.1.6"})
        await until(lambda: world.book.open_changes("edge") == ())
        assert world.book.closed[-1].outcome is Outcome.ROLLED_BACK
    assert_back_once(world)


@pytest.mark.sweep
async def test_with_nobody_left_the_lease_itself_sends_new_sessions_back(server: Engine) -> None:
    world = World.made(await server.client(), fleet_of("edge", lease=timedelta(seconds=12)))
    world.judge.pace = 0.3
    async with AsyncExitStack() as stack:
        for fake in world.gateways.values():
            await stack.enter_async_context(agent_worker(world.client, fake))
        async with control_worker(world.client, world):
            await watched(world)
        began = time.monotonic()
        await until(lambda: set(world.serving().values()) == {"1.1.6"})
        assert time.monotonic() - began < world.fleet.limits.lease.total_seconds() + 1
        assert "steer a" not in world.gateways["gw-1"].effects


@pytest.mark.sweep
async def test_a_wave_that_is_cancelled_while_it_speaks_says_nothing_after_its_end(server: Engine) -> None:
    """A signal that arrives with the cancellation swallows it; the next one would spoil the wave's end."""
    world = World.made(await server.client(), fleet_of("edge", lease=timedelta(minutes=10)))
    async with working(world):
        change, _ = await watched(world)
        wave = child(world)
        people = [Command(id=f"h{n}", kind=CommandKind.HOLD, person=f"p{n}", reason="x") for n in range(40)]
        said = asyncio.gather(*[wave.signal(Wave.command, person) for person in people])
        await asyncio.sleep(0.02)
        await change.terminate("a test said so")
        await asyncio.gather(said, return_exceptions=True)
        await until(lambda: set(world.serving().values()) == {"1.1.6"}, 15)
    assert_back_once(world)
