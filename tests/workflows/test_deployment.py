"""penstock itself is upgraded under a running change: the next worker has changed workflows."""

import functools
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from temporalio import workflow
from temporalio.client import WorkflowHandle

from policies.model.change import Outcome, Phase
from policies.model.command import CommandKind
from policies.model.errors import Unavailable
from tests.fakes.control import HEALTHY, UNDECIDED
from tests.patience import until
from tests.workflows.conftest import LEASE
from tests.workflows.engine import Engine
from tests.workflows.world import (
    NEXT,
    World,
    agent_worker,
    control_worker,
    fleet_of,
    in_phase,
    result_of,
    say,
)
from workflows import steps
from workflows.gateway import GatewaySteps

FOR_LONG = 10_000
"""Refusals that no test waits for the end of."""
CHANGED = ("stage", "start", "probe", "try_out", "keep", "restore", "end_trial", "stop")
PATCH = "looked at before every step"

Running = WorkflowHandle[Any, Any]
End = Callable[[], Awaitable[None]]
Moment = Callable[[World], Awaitable[tuple[Running, End]]]


def deploy_the_next_workflows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Change the workflows of the worker that starts next: each gateway is looked at before every step."""

    def changed(step: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(step)
        async def with_a_look(gateway: GatewaySteps, *arguments: Any, **named: Any) -> Any:
            if workflow.patched(PATCH):
                await gateway.observe(steps.PATIENT)
            return await step(gateway, *arguments, **named)

        return with_a_look

    for name in CHANGED:
        monkeypatch.setattr(GatewaySteps, name, changed(getattr(GatewaySteps, name)))


async def in_a_window(world: World) -> tuple[Running, End]:
    """A wave is watched, and nothing is decided yet."""
    world.judge.says(UNDECIDED)
    change = await world.start(("gw-1",), ("gw-2",))
    await in_phase(change, Phase.OBSERVING)

    async def end() -> None:
        world.judge.says(HEALTHY)
        assert (await result_of(change)).outcome is Outcome.PROMOTED
        assert world.gateways["gw-1"].effects[:4] == ["stage 1.3.0", "start b", "steer b", "keep b"]

    return change, end


async def in_a_hold(world: World) -> tuple[Running, End]:
    """A person has said hold in the window."""
    change, end_of_window = await in_a_window(world)
    await say(change, CommandKind.HOLD)
    await in_phase(change, Phase.HELD)

    async def end() -> None:
        await say(change, CommandKind.RESUME)
        await end_of_window()

    return change, end


async def in_a_restore(world: World) -> tuple[Running, End]:
    """Two gateways go back, and one of them does not answer."""
    world.judge.says(UNDECIDED)
    change = await world.start(("gw-1", "gw-2"))
    await in_phase(change, Phase.OBSERVING)
    silent = world.gateways["gw-1"]
    silent.fail("end_trial", Unavailable("gw-1 does not answer"), times=FOR_LONG)
    await say(change, CommandKind.ROLL_BACK)
    await until(lambda: world.serving()["gw-2"] == "1.1.6")

    async def end() -> None:
        silent.recover("end_trial")
        assert (await result_of(change)).outcome is Outcome.ROLLED_BACK
        assert set(world.serving().values()) == {"1.1.6"}

    return change, end


async def in_a_drain(world: World) -> tuple[Running, End]:
    """The old instance of a gateway that was kept has a session left."""
    old = world.gateways["gw-1"]
    old.login("192.0.2.1")
    assert (await world.upgrade(("gw-1",))).outcome is Outcome.PROMOTED
    drain = world.client.get_workflow_handle(f"drain/{world.fleet.name}/{world.newest}/001-0001")
    await until(lambda: _waits(drain))

    async def end() -> None:
        old.logout("192.0.2.1")
        await drain.result()
        assert old.effects[-1] == "stop a"

    return drain, end


async def _waits(drain: Running) -> bool:
    return any(slot["sessions"] == 1 for slot in (await drain.query("status"))["slots"])


async def _has_the_new_step(run: Running) -> bool:
    events = (await run.fetch_history()).events
    return any(event.marker_recorded_event_attributes.marker_name == "core_patch" for event in events)


@pytest.mark.sweep
@pytest.mark.parametrize("moment", [in_a_window, in_a_hold, in_a_restore, in_a_drain])
async def test_what_a_changed_worker_finds_under_way_it_brings_to_its_end(
    server: Engine, monkeypatch: pytest.MonkeyPatch, moment: Moment
) -> None:
    """What is under way ends by the steps it began with; the next change takes the new ones."""
    world = World.made(await server.client(), fleet_of("edge", lease=LEASE))
    async with AsyncExitStack() as stack:
        for fake in world.gateways.values():
            await stack.enter_async_context(agent_worker(world.client, fake))
        async with control_worker(world.client, world):
            _, end = await moment(world)
        deploy_the_next_workflows(monkeypatch)
        async with control_worker(world.client, world):
            await end()
            world.judge.says(HEALTHY)
            change = await world.start(("gw-3",), release=NEXT)
            assert (await result_of(change)).outcome is Outcome.PROMOTED
            batch = world.client.get_workflow_handle(f"{change.id}/{world.newest}/wave/001/0001")
            assert await _has_the_new_step(batch)
