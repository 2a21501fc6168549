"""C2: a lease that lapses while its instance serves and answers is silence of penstock (R7).

No release is at fault for it: the trial begins again with its evidence, and waves that have passed stay.
"""

from contextlib import AsyncExitStack
from datetime import timedelta

import pytest

from policies.model.change import Outcome, Phase
from policies.model.errors import Conflict, Unavailable
from tests.fakes.control import HEALTHY, UNDECIDED
from tests.fakes.gateway import FakeGateway
from tests.patience import until
from tests.workflows.ending import ending
from tests.workflows.engine import Engine
from tests.workflows.world import (
    NEW,
    Running,
    World,
    agent_worker,
    control_worker,
    fleet_of,
    in_phase,
    result_of,
    status_of,
    steps_of,
)

AGAIN = "no release is blamed for that, and its trial began again"


@pytest.mark.sweep
async def test_an_outage_of_the_orchestrator_longer_than_the_lease_is_no_failure_of_the_release(
    server: Engine,
) -> None:
    world = World.made(await server.client(), fleet_of("edge", size=6, lease=timedelta(seconds=6)))
    world.judge.says(UNDECIDED, wave=2)
    on_trial = [world.gateways[name] for name in ("gw-2", "gw-3")]
    async with AsyncExitStack() as agents:
        for fake in world.gateways.values():
            await agents.enter_async_context(ending(agent_worker(world.client, fake)))
        async with ending(control_worker(world.client, world)):
            rollout = await world.start(("gw-1",), ("gw-2", "gw-3"), ("gw-4", "gw-5", "gw-6"))
            await in_phase(rollout, Phase.OBSERVING, wave=2)
        await until(lambda: {fake.target for fake in on_trial} == {"a"})  # their leases lapse
        async with ending(control_worker(world.client, world)):
            await until(lambda: {fake.target for fake in on_trial} == {"b"})
            assert world.gateways["gw-1"].serving == "b"
            world.judge.says(HEALTHY, wave=2)
            result = await result_of(rollout)
    assert (result.outcome, result.aside) == (Outcome.PROMOTED, {})
    assert set(world.serving().values()) == {"1.3.0"}


@pytest.mark.sweep
async def test_a_trial_that_was_flushed_on_its_host_begins_again_with_its_evidence(world: World) -> None:
    """As by `nft flush ruleset`, a reload of firewalld, or an agent with a hook that starts anew."""
    canary, rollout = await on_trial_in(world)
    await until(lambda: any(order.restart for order in world.judge.orders))  # its window has begun
    asked = len(world.judge.orders)
    canary.trial = None
    await until(lambda: canary.target == "b")
    assert world.judge.orders[-1].state.startswith(world.judge.orders[asked - 1].state)
    assert not any(order.restart for order in world.judge.orders[asked:])
    world.judge.says(HEALTHY)
    result = await result_of(rollout)
    assert (result.outcome, result.aside) == (Outcome.PROMOTED, {})
    said = [event.sentence for event in (await status_of(rollout)).events]
    assert [AGAIN in sentence and "gw-1" in sentence for sentence in said].count(True) == 1


@pytest.mark.sweep
async def test_a_lapsed_lease_of_an_instance_that_takes_no_logins_is_a_failure_of_its_gateway(
    world: World,
) -> None:
    canary, rollout = await on_trial_in(world)
    canary.fail("start_trial", Conflict("the HAProxy of gw-1 took a change and did not make it"))
    await until(lambda: not canary.failing("start_trial"))
    canary.bad_releases.add(NEW.digest)
    canary.trial = None
    result = await result_of(rollout)
    assert result.outcome is Outcome.ROLLED_BACK
    assert result.reason == (
        "slot b of gw-1 is not on trial any more: the HAProxy of gw-1 took a change and did not make it; "
        "gw-1 fails its probe at auth: the probe's login was refused"
    )


async def test_a_lapse_is_no_failure_at_the_very_end_of_a_wave_either(world: World) -> None:
    """The leases of this fleet are renewed every five seconds, and the verdict comes sooner."""
    canary, rollout = await on_trial_in(world)
    canary.trial = None
    world.judge.says(HEALTHY)
    result = await result_of(rollout)
    assert (result.outcome, result.aside) == (Outcome.PROMOTED, {})
    assert canary.serving == "b"


@pytest.mark.sweep
async def test_a_gateway_is_silent_only_after_a_whole_lease_of_questions(server: Engine) -> None:
    """The time in which none was asked, as while the orchestrator was away, does not count."""
    world = World.made(await server.client(), fleet_of("edge", lease=timedelta(seconds=15)))
    world.judge.says(UNDECIDED)
    canary = world.gateways["gw-1"]
    async with AsyncExitStack() as agents:
        for fake in world.gateways.values():
            await agents.enter_async_context(ending(agent_worker(world.client, fake)))
        async with ending(control_worker(world.client, world)):
            rollout = await world.start(("gw-1",))
            await in_phase(rollout, Phase.OBSERVING)
        batch = f"{rollout.id}/{world.newest}/wave/001/0001"
        await until(lambda: canary.target == "a")
        asked = len(await steps_of(world.client, batch, "start_trial"))
        canary.fail("start_trial", Unavailable("gw-1 has not reached the engine again"), times=10_000)
        async with ending(control_worker(world.client, world)):

            async def is_asked_again() -> bool:
                return len(await steps_of(world.client, batch, "start_trial")) >= asked + 2

            await until(is_asked_again)
            canary.recover("start_trial")
            await until(lambda: canary.target == "b")
            world.judge.says(HEALTHY)
            assert (await result_of(rollout)).outcome is Outcome.PROMOTED


async def on_trial_in(world: World) -> tuple[FakeGateway, Running]:
    """Bring the canary on trial, which nobody has judged yet."""
    world.judge.says(UNDECIDED)
    rollout = await world.start(("gw-1",))
    await in_phase(rollout, Phase.OBSERVING)
    return world.gateways["gw-1"], rollout
