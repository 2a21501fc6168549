"""After promotion: the gates go on, and harm still sends the fleet back."""

from datetime import timedelta

import pytest

from policies.model.change import Outcome
from policies.model.verdict import Action, Decision, GateVerdict
from tests.fakes.control import UNDECIDED
from tests.workflows.engine import Engine
from tests.workflows.world import NEXT, OLD, World, fleet_of, result_of, until, working
from workflows.identities import bake_of

CRASHED = Decision(action=Action.ROLL_BACK, verdict=GateVerdict.HARD, reason="gw-1 restarted by itself")

BLIND = Decision(
    action=Action.HOLD, verdict=GateVerdict.METRICS_UNAVAILABLE, reason="Prometheus does not answer"
)


async def test_harm_found_after_promotion_sends_the_whole_fleet_back(world: World) -> None:
    world.judge.says(CRASHED, wave=0)
    result = await world.upgrade(("gw-1",), ("gw-2", "gw-3", "gw-4"))
    assert result.outcome is Outcome.PROMOTED
    await until(lambda: set(world.serving().values()) == {"1.1.6"})
    await until(lambda: world.book.known_good(world.fleet.name) == dict.fromkeys(world.gateways, OLD))


@pytest.mark.sweep
async def test_a_quiet_bake_ends_in_peace_and_changes_nothing(server: Engine) -> None:
    fleet = fleet_of("edge", kept=timedelta(seconds=4), lease=timedelta(seconds=15))
    async with working(World.made(await server.client(), fleet)) as world:
        await world.upgrade(("gw-1",), ("gw-2", "gw-3", "gw-4"))
        ended = await result_of(world.client.get_workflow_handle(bake_of(world.fleet.name)))
    assert ended["peaceful"] is True
    assert set(world.serving().values()) == {"1.3.0"}


@pytest.mark.sweep
async def test_a_bake_that_ends_while_the_metrics_cannot_be_read_is_no_peace(server: Engine) -> None:
    fleet = fleet_of("edge", kept=timedelta(seconds=4), lease=timedelta(seconds=15))
    async with working(World.made(await server.client(), fleet)) as world:
        world.judge.says(BLIND, wave=0)
        await world.upgrade(("gw-1",), ("gw-2", "gw-3", "gw-4"))
        ended = await result_of(world.client.get_workflow_handle(bake_of(world.fleet.name)))
    assert ended["peaceful"] is False
    assert BLIND.reason in ended["reason"]
    assert set(world.serving().values()) == {"1.3.0"}


@pytest.mark.sweep
async def test_the_bake_watches_the_promoted_change_as_its_wave_0(world: World) -> None:
    await world.upgrade(("gw-1",), ("gw-2", "gw-3", "gw-4"))
    await until(lambda: bool(world.judge.bakes))
    asked = world.judge.bakes[0]
    assert (asked.change, asked.wave, asked.complete) == (world.newest, 0, True)


@pytest.mark.sweep
async def test_the_next_rollout_ends_the_bake_of_the_last(world: World) -> None:
    world.judge.says(UNDECIDED, wave=0)
    await world.upgrade(("gw-1",))
    await until(lambda: bool(world.judge.bakes))
    result = await world.upgrade(("gw-1",), release=NEXT)
    assert result.outcome is Outcome.PROMOTED, result.reason
    assert world.serving()["gw-1"] == "1.4.0"


@pytest.mark.sweep
async def test_nothing_begins_on_top_of_what_is_found_harmful_while_it_is_being_checked(world: World) -> None:
    world.judge.says(UNDECIDED, wave=0)
    await world.upgrade(("gw-1",))
    await until(lambda: bool(world.judge.bakes))
    world.admission.pause = 10
    rollout = await world.start(("gw-2",), release=NEXT)
    world.judge.says(CRASHED, wave=0)
    result = await result_of(rollout)
    assert (result.outcome, CRASHED.reason in result.reason) == (Outcome.REFUSED, True)
    await until(lambda: set(world.serving().values()) == {"1.1.6"})
