"""Capacity is read before anybody starts; who would leave a group short waits, and the reason is told."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from policies.model.change import ChangeKind, ChangeOrder, Outcome, Phase
from policies.model.command import CommandKind
from policies.model.errors import Unavailable
from policies.model.plan import Strategy, Wave
from tests.fakes.control import HEALTHY, UNDECIDED
from tests.patience import until
from tests.workflows.engine import Engine
from tests.workflows.recorded import SOON
from tests.workflows.world import OLD, Running, World, fleet_of, in_phase, result_of, say, status_of, working
from workflows import steps

LEASE = timedelta(seconds=15)


@asynccontextmanager
async def small(server: Engine, people: int, alone: str = "") -> AsyncIterator[World]:
    """Run four gateways of ten sessions each, with so many people on each; one may be a group of its own."""
    fleet = fleet_of("edge", lease=LEASE)
    members = tuple(
        member.model_copy(update={"capacity": 10, "group": "alone" if member.name == alone else "main"})
        for member in fleet.gateways
    )
    made = World.made(await server.client(), fleet.model_copy(update={"gateways": members}))
    for fake in made.gateways.values():
        for person in range(people):
            fake.login(f"192.0.2.{person}")
    made.look()
    async with working(made) as world:
        yield world


async def blue_green(world: World, *names: str) -> Running:
    """Start an upgrade of these gateways at once, each compared with itself."""
    wave = Wave(number=1, gateways=names, shares=(10, 100), lease=LEASE)
    plan = world.plan(names).model_copy(update={"strategy": Strategy.BLUE_GREEN, "waves": (wave,)})
    order = ChangeOrder(
        fleet="edge",
        kind=ChangeKind.UPGRADE,
        plan=world.book.record_plan(plan),
        source="http://repository",
        requested_by="release engineer",
        reason="new features",
    )
    return await world.run(order)


async def waits(rollout: Running, sentence: str) -> None:
    """Wait until the status says that gateways wait for capacity, and why."""

    async def is_told() -> bool:
        return (await status_of(rollout)).why == f"gateways wait for capacity: {sentence}"

    await until(is_told, SOON)


@pytest.mark.sweep
async def test_a_wave_waits_while_living_gateways_could_not_carry_everybody_and_goes_on_by_itself(
    server: Engine,
) -> None:
    async with small(server, people=8) as world:
        world.judge.says(UNDECIDED)
        rollout = await world.start(("gw-1",), ("gw-2", "gw-3"))
        await in_phase(rollout, Phase.OBSERVING)
        world.gateways["gw-4"].crash("a")
        for person in range(8):
            world.gateways["gw-3"].login(f"198.51.100.{person}")
        world.look()
        world.judge.says(HEALTHY)
        why = "more sessions than capacity on gw-3; nothing serves on gw-4"
        await waits(rollout, f"group main can carry 30 sessions and needs 39; {why}")
        assert not world.gateways["gw-2"].effects
        assert not world.gateways["gw-3"].effects
        told = await status_of(rollout)
        assert told.next.startswith("gateways that wait start by themselves when there is capacity")
        world.gateways["gw-4"].serve(OLD)
        world.look()
        assert (await result_of(rollout)).outcome is Outcome.PROMOTED
        events = (await status_of(rollout)).events
        assert "no gateway waits for capacity any more" in {event.sentence for event in events}
    assert {world.serving()[name] for name in ("gw-1", "gw-2", "gw-3")} == {"1.3.0"}


@pytest.mark.sweep
async def test_nobody_starts_on_facts_that_are_missing_or_too_old(
    server: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("activities.facts.FRESH", timedelta(0))
    async with small(server, people=1) as world:
        rollout = await world.start(("gw-1",))
        await waits(
            rollout,
            "group main can carry 10 sessions and needs 38; nothing is known of gw-2, gw-3, gw-4",
        )
        assert not world.gateways["gw-1"].effects
        monkeypatch.setattr("activities.facts.FRESH", timedelta(minutes=30))
        assert (await result_of(rollout)).outcome is Outcome.PROMOTED


@pytest.mark.sweep
async def test_a_person_can_go_back_while_gateways_wait_for_capacity(server: Engine) -> None:
    async with small(server, people=9) as world:
        rollout = await world.start(("gw-1",))
        await waits(rollout, "group main can carry 40 sessions and needs 44")
        await say(rollout, CommandKind.ROLL_BACK)
        assert (await result_of(rollout)).outcome is Outcome.ROLLED_BACK
    assert "stage 1.3.0" not in world.gateways["gw-1"].effects


@pytest.mark.sweep
async def test_a_blue_green_gateway_without_room_for_two_instances_waits_until_it_reads_that_there_is(
    server: Engine,
) -> None:
    async with small(server, people=5) as world:
        for person in range(4):
            world.gateways["gw-2"].login(f"198.51.100.{person}")
        rollout = await blue_green(world, "gw-1", "gw-2")
        await waits(rollout, "gateway gw-2 has room for 10 sessions in each instance and needs 11")
        await until(lambda: "start b" in world.gateways["gw-1"].effects, SOON)
        assert not world.gateways["gw-2"].effects
        assert world.serving()["gw-1"] == "1.1.6"  # before all are ready nobody gets a session
        world.gateways["gw-2"].logout("198.51.100.0")
        assert (await result_of(rollout)).outcome is Outcome.PROMOTED
    assert {world.serving()[name] for name in ("gw-1", "gw-2")} == {"1.3.0"}


@pytest.mark.sweep
@pytest.mark.parametrize("strategy", [Strategy.CANARY, Strategy.BLUE_GREEN])
async def test_a_history_is_cut_while_gateways_wait_for_capacity_and_nobody_starts_twice(
    server: Engine, monkeypatch: pytest.MonkeyPatch, strategy: Strategy
) -> None:
    monkeypatch.setattr("workflows.steps.SHORT_HISTORY", 60)
    async with small(server, people=5, alone="gw-2") as world:
        for person in range(4):
            world.gateways["gw-2"].login(f"198.51.100.{person}")
        world.judge.says(UNDECIDED)
        together = ("gw-1", "gw-2")
        itself = strategy is Strategy.BLUE_GREEN
        rollout = await (blue_green(world, *together) if itself else world.start(together))
        await waits(rollout, "group alone can carry 10 sessions and needs 11")
        batch = world.client.get_workflow_handle(f"{rollout.id}/{world.newest}/wave/001/0001")
        first = (await batch.describe()).run_id

        async def is_cut() -> bool:
            return (await batch.describe()).run_id != first

        await until(is_cut, SOON)
        world.judge.says(HEALTHY)
        world.gateways["gw-2"].logout("198.51.100.0")
        assert (await result_of(rollout)).outcome is Outcome.PROMOTED
    for name in together:
        assert world.gateways[name].effects.count("start b") == 1


@pytest.mark.sweep
@pytest.mark.parametrize("history", [steps.SHORT_HISTORY, 1], ids=["one run", "a run a renewal"])
async def test_a_gateway_that_stays_silent_when_it_is_to_start_fails_alone(
    world: World, monkeypatch: pytest.MonkeyPatch, history: int
) -> None:
    monkeypatch.setattr(steps, "SHORT_HISTORY", history)
    monkeypatch.setitem(steps.LOOK, "schedule_to_close_timeout", timedelta(seconds=1))
    monkeypatch.setattr(steps, "NEXT_CAPACITY", timedelta(seconds=1))
    monkeypatch.setattr(steps, "SILENT_FOR", timedelta(seconds=6))
    world.judge.says(UNDECIDED)
    rollout = await world.start(("gw-1",), ("gw-2", "gw-3", "gw-4"))
    await in_phase(rollout, Phase.OBSERVING)
    world.gateways["gw-3"].fail("observe", Unavailable("gw-3 does not answer"), times=10_000)
    world.judge.says(HEALTHY)
    result = await result_of(rollout)
    assert (result.outcome, result.aside) == (Outcome.PROMOTED, {"gw-3": "gw-3 does not answer"})
    assert "stage 1.3.0" not in world.gateways["gw-3"].effects
