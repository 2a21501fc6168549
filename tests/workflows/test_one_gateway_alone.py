"""One gateway fails: what it may cost the others, their users, and the way back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import accumulate, pairwise
from typing import Any

import pytest

from policies.model.change import Outcome, Phase
from policies.model.drain import DrainLimits, DrainMode, SlotDrain
from policies.model.errors import Refused
from policies.model.verdict import Action, Decision, GateReading, GateVerdict
from tests.fakes.control import HEALTHY, QUIET, UNDECIDED, UNHEALTHY
from tests.patience import until
from tests.workflows.engine import Engine
from tests.workflows.recorded import SOON, Recorded, recording, soon
from tests.workflows.world import NEW, OLD, Running, World, fleet_of, in_phase, result_of, status_of, working

MANY = 24
"""Gateways of a fleet in which one is fewer than any share of failures that is worth a name."""
REFUSES = 10_000


def verdict(world: World, gate: str, *names: str) -> Decision:
    """What a hard gate says that has seen a sign on these gateways only."""
    targets = tuple(world.fleet.gateway(name).metrics_target for name in names)
    reading = GateReading(gate=gate, verdict=GateVerdict.HARD, reason=f"{gate} on {names}", instances=targets)
    return Decision(
        action=Action.ROLL_BACK, verdict=GateVerdict.HARD, reason=reading.reason, readings=(reading,)
    )


async def two_on_trial(recorded: Recorded, people: int, **limits: Any) -> Any:
    """Bring two gateways on trial, with so many people on each; return the rollout."""
    world = recorded.world
    changed = world.fleet.limits.model_copy(
        update={"drain": DrainLimits.model_validate({"logins_per_minute": 6000, **limits})}
    )
    world.fleet = world.fleet.model_copy(update={"limits": changed})
    world.judge.says(UNDECIDED)
    await recorded.start(("gw-1", "gw-2"))
    rollout = recorded.service._change("edge")
    await in_phase(rollout, Phase.OBSERVING)
    for name in ("gw-1", "gw-2"):
        for person in range(people):
            assert world.gateways[name].login(f"192.0.2.{person}") == "b"
    return rollout


async def drains_of(recorded: Recorded, *names: str) -> dict[str, SlotDrain]:
    """Wait until the drains of these gateways have decided how, and return what they say."""
    found: dict[str, SlotDrain] = {}

    async def have_decided() -> bool:
        drains = await recorded.drains.drains(recorded.world.fleet)
        found.update({slot.gateway: slot for drain in drains for slot in drain.slots})
        return all(name in found and "not found at fault" not in found[name].mode_reason for name in names)

    await until(have_decided, SOON)
    return found


# --- the users of the others ---------------------------------------------------------------


@pytest.mark.sweep
async def test_a_dead_daemon_on_one_gateway_ends_nobody_whose_own_tunnels_work(recorded: Recorded) -> None:
    """D3."""
    world = recorded.world
    rollout = await two_on_trial(recorded, people=3, batch=2, pause="50ms")
    world.judge.says(verdict(world, "gone", "gw-1"))
    await soon(result_of(rollout))
    slots = await drains_of(recorded, "gw-1", "gw-2")
    assert {slot.mode for slot in slots.values()} == {DrainMode.WAIT}
    assert not [
        effect for name in slots for effect in world.gateways[name].effects if "end" in effect.split()
    ]


@pytest.mark.sweep
async def test_a_passing_probe_spares_the_sessions_of_a_gateway_that_a_verdict_names(
    recorded: Recorded,
) -> None:
    """D3."""
    world = recorded.world
    rollout = await two_on_trial(recorded, people=3, batch=2, pause="50ms")
    world.judge.says(verdict(world, "packet-loss", "gw-1", "gw-2"))
    await soon(result_of(rollout))
    slots = await drains_of(recorded, "gw-1", "gw-2")
    assert {slot.mode for slot in slots.values()} == {DrainMode.WAIT}
    assert [len(world.gateways[name].slots["b"].people) for name in ("gw-1", "gw-2")] == [3, 3]


@pytest.mark.sweep
async def test_where_no_probe_can_tell_only_the_named_gateway_is_emptied_and_by_its_share(
    recorded: Recorded,
) -> None:
    """D3."""
    world = recorded.world
    rollout = await two_on_trial(recorded, people=4, batch=2, pause="50ms", forced=20)
    for name in ("gw-1", "gw-2"):
        world.gateways[name].bad_releases.add(NEW.digest)  # a login fails, so tunnels cannot be tried
    world.judge.says(verdict(world, "packet-loss", "gw-1"))
    await soon(result_of(rollout))
    slots = await drains_of(recorded, "gw-1")
    assert slots["gw-1"].mode is not DrainMode.WAIT

    async def holds() -> bool:
        return (await drains_of(recorded, "gw-1"))["gw-1"].step == "hold"

    await until(holds, SOON)
    assert [len(world.gateways[name].slots["b"].people) for name in ("gw-1", "gw-2")] == [4, 4]
    assert (await drains_of(recorded, "gw-1"))["gw-1"].why == (
        "4 of 4 sessions are left on tunnels that only a verdict calls broken, which may end 1 (20%)"
    )


@pytest.mark.sweep
async def test_an_instance_that_dies_just_before_its_wave_passes_is_not_kept(recorded: Recorded) -> None:
    """D9; the leases of this fleet are renewed every ten seconds, and the verdict comes sooner."""
    world = recorded.world
    world.judge.says(UNDECIDED)
    await recorded.start(("gw-1",))
    rollout = recorded.service._change("edge")
    await in_phase(rollout, Phase.OBSERVING)
    world.gateways["gw-1"].crash("b")
    world.judge.says(HEALTHY)
    assert (await soon(result_of(rollout))).outcome is Outcome.ROLLED_BACK
    assert world.serving()["gw-1"] == "1.1.6"


# --- the release on the others -------------------------------------------------------------


@asynccontextmanager
async def many_on_trial(server: Engine, *before: int) -> AsyncIterator[tuple[World, Running]]:
    """Bring a large last wave on trial, which nobody has judged yet, after waves of so many."""
    begins = list(accumulate(before, initial=0))
    last = len(begins)
    fleet = fleet_of("edge", size=MANY, lease=timedelta(seconds=15), switching=MANY)
    world = World.made(await server.client(), fleet)
    world.judge.pace = 0.3
    world.judge.says(UNDECIDED, wave=last)
    names = tuple(world.gateways)
    async with working(world):
        rollout = await world.start(*(names[begin:end] for begin, end in pairwise([*begins, MANY])))
        await in_phase(rollout, Phase.OBSERVING, wave=last)
        yield world, rollout


@pytest.mark.sweep
async def test_one_gateway_of_many_that_fails_goes_back_alone(server: Engine) -> None:
    """D5."""
    async with many_on_trial(server, 1) as (world, rollout):
        failed = world.gateways["gw-9"]
        failed.crash("b")
        await until(lambda: failed.serving == "a" and failed.target == "a", SOON)
        world.judge.says(HEALTHY, wave=2)
        result = await soon(result_of(rollout))
    assert (result.outcome, result.aside) == (Outcome.PROMOTED, {"gw-9": "nothing runs in slot b of gw-9"})
    serving = world.serving()
    assert serving.pop("gw-9") == "1.1.6"
    assert set(serving.values()) == {"1.3.0"}
    assert world.book.known_good("edge")["gw-9"] == OLD


@pytest.mark.sweep
async def test_a_gateway_whose_host_reboots_on_trial_comes_up_again_and_fails_no_wave(
    server: Engine,
) -> None:
    """D5."""
    async with many_on_trial(server, 1) as (world, rollout):
        rebooted = world.gateways["gw-9"]
        rebooted.reboot()
        await until(lambda: rebooted.effects.count("start b") == 2, SOON)
        world.judge.says(HEALTHY, wave=2)
        result = await soon(result_of(rollout))
        told = [event.sentence for event in (await status_of(rollout)).events]
    assert (result.outcome, result.aside) == (Outcome.PROMOTED, {})
    assert told.count("the host of gw-9 rebooted, which no release is blamed for") == 1
    assert set(world.serving().values()) == {"1.3.0"}


@pytest.mark.sweep
async def test_one_daemon_that_dies_after_promotion_takes_nobody_else_back(recorded: Recorded) -> None:
    """D5."""
    world = recorded.world
    world.judge.says(QUIET.model_copy(update={"failed": ("gw-2",)}), wave=0)
    assert (await recorded.upgrade()).outcome is Outcome.PROMOTED
    await until(lambda: world.serving()["gw-2"] == "1.1.6", SOON)
    await recorded.nothing_under_way()
    assert world.serving() == {"gw-1": "1.3.0", "gw-2": "1.1.6", "gw-3": "1.3.0", "gw-4": "1.3.0"}
    assert recorded.ledger.known_good("edge")["gw-2"] == OLD
    assert await recorded.bakes()
    assert (await recorded.roll_back()).accepted
    assert set(world.serving().values()) == {"1.1.6"}


# --- the way back of the others ------------------------------------------------------------


async def one_refuses(world: World) -> Any:
    """Turn two gateways round of which one refuses to go back."""
    world.judge.says(UNDECIDED)
    rollout = await world.start(("gw-1", "gw-2"))
    await in_phase(rollout, Phase.OBSERVING)
    world.gateways["gw-1"].fail("fence", Refused("gw-1: the disk is full"), times=REFUSES)
    world.judge.says(UNHEALTHY)
    await until(lambda: world.serving()["gw-2"] == "1.1.6", SOON)
    return rollout


@pytest.mark.sweep
async def test_a_gateway_that_is_back_is_frozen_and_emptied_while_another_still_refuses(real: World) -> None:
    """D6."""
    rollout = await one_refuses(real)
    await until(lambda: "stop b" in real.gateways["gw-2"].effects, SOON)
    await until(lambda: "gw-2" in real.book.snapshots, SOON)
    assert "gw-1: the disk is full" in (await status_of(rollout)).why


@pytest.mark.sweep
async def test_a_gateway_that_refuses_for_long_makes_no_history_long(real: World) -> None:
    """D6; the server of these tests suggests a short history after 120 events, and not after 4,096."""
    await one_refuses(real)
    await asyncio.sleep(25)  # at a round each second 300 events
    longest = 0
    async for found in real.client.list_workflows():
        described = await real.client.get_workflow_handle(found.id, run_id=found.run_id).describe()
        longest = max(longest, described.history_length)
    assert longest < 240


# --- the first release ---------------------------------------------------------------------


@pytest.mark.sweep
async def test_an_install_that_fails_on_one_gateway_is_on_record_for_the_others_and_completed_by_a_repeat(
    server: Engine,
) -> None:
    """D13."""
    async with recording(server, serving=None) as empty:
        fleet, service = empty.world.fleet, empty.service
        empty.world.gateways["gw-2"].fail("stage", Refused("gw-2: the disk is full"))
        await service.install(fleet, OLD, "http://repository", "ana")
        result = await service.end_of(fleet.name)
        assert (result.outcome, result.aside) == (Outcome.HELD, {"gw-2": "gw-2: the disk is full"})
        good = dict.fromkeys(("gw-1", "gw-3", "gw-4"), OLD)
        assert empty.ledger.known_good("edge") == good
        await service.install(fleet, OLD, "http://repository", "ana")
        again = await service.end_of(fleet.name)
        assert (again.outcome, again.aside) == (Outcome.PROMOTED, {})
        assert empty.ledger.known_good("edge") == good | {"gw-2": OLD}
        assert [fake.effects.count("start a") for fake in empty.world.gateways.values()] == [1, 1, 1, 1]


async def test_a_repeated_install_records_what_came_up_and_was_never_recorded(server: Engine) -> None:
    """D13; as after an orchestrator that died, or a ledger that was away, in the middle of it.

    newcomer 14: gateways that served before are counted as such, and not as those that were empty.
    """
    async with recording(server, serving=None) as begun:
        begun.world.gateways["gw-3"].serve(OLD)
        await begun.service.install(begun.world.fleet, OLD, "http://repository", "ana")
        result = await begun.service.end_of("edge")
        assert (result.touched, result.reason) == (
            3,
            "First installation: 3 gateways now serve 1.1.6; 1 gateway already serves it",
        )
        assert begun.ledger.known_good("edge") == dict.fromkeys(begun.world.gateways, OLD)
        assert begun.world.gateways["gw-3"].effects == []


@pytest.mark.sweep
async def test_more_that_fail_than_may_turn_all_waves_round_and_not_only_their_own(server: Engine) -> None:
    async with many_on_trial(server, 1, 3) as (world, rollout):
        for name in [*world.gateways][4 : 4 + MANY // 4]:
            world.gateways[name].crash("b")
        result = await soon(result_of(rollout))
    assert result.outcome is Outcome.ROLLED_BACK
    assert "failed by themselves" in result.reason
    assert set(world.serving().values()) == {"1.1.6"}
