"""A gateway that missed a reload, or settings, gets them once it answers, beside a change that waits."""

import asyncio

import pytest

from policies.model.change import Outcome, Phase
from policies.model.command import CommandKind
from policies.model.errors import Refused
from tests.fakes.control import CLOSED, OPEN
from tests.patience import until
from tests.workflows.recorded import SOON, Recorded, blocked
from tests.workflows.test_let_in import between_waves, waiting
from tests.workflows.test_quarantine import observed
from tests.workflows.test_reload import held_by_silence
from tests.workflows.test_settings import configured, silent, with_settings
from tests.workflows.world import NEXT, result_of, say, status_of, waiting_for
from workflows.identities import bake_of

LETS_IN = "a change is under way, and lets this in if it only waits"


@pytest.mark.sweep
async def test_a_gateway_that_was_silent_at_a_reload_is_asked_again_while_an_upgrade_only_waits(
    recorded: Recorded,
) -> None:
    world, service = recorded.world, recorded.service
    world.windows.answer = CLOSED
    plan = world.plan(("gw-1",), ("gw-2",))
    waiting = await service.start(plan, "http://repository", "bea", "tonight")
    assert waiting is not None
    silent(recorded, "gw-4")
    reload = await service.plan_reload(world.fleet)
    name = await service.reload(world.fleet, reload, "on call", "a laptop was stolen")
    assert name is not None
    await until(lambda: recorded.ledger.change(name).outcome is Outcome.HELD, SOON)
    world.gateways["gw-4"].recover("observe")
    assert (await recorded.reconcile()).sentence == LETS_IN
    await until(lambda: "reload a" in world.gateways["gw-4"].effects, SOON)
    assert recorded.ledger.change(waiting).outcome is None


@pytest.mark.sweep
async def test_a_gateway_that_was_silent_at_a_reload_is_asked_again_while_a_rollback_waits_for_another(
    recorded: Recorded,
) -> None:
    """The rollback still moves the gateway that it waits for, which the reload leaves alone."""
    world, refusing = recorded.world, recorded.world.gateways["gw-1"]
    await held_by_silence(recorded, world.gateways["gw-4"])
    rollback = await observed(world)
    refusing.fail("restore", Refused("gw-1: the disk is full"), times=10_000)
    await say(rollback, CommandKind.ROLL_BACK)
    await waiting_for(rollback, "gw-1")
    world.gateways["gw-4"].recover("observe")
    effects = list(refusing.effects)
    assert (await recorded.reconcile()).sentence == LETS_IN
    await until(lambda: "reload a" in world.gateways["gw-4"].effects, SOON)
    assert refusing.effects == effects
    refusing.recover("restore")
    await recorded.nothing_under_way()
    assert world.serving()["gw-1"] == "1.1.6"


@pytest.mark.sweep
async def test_a_lost_watch_over_a_promotion_begins_again_while_an_upgrade_only_waits(
    recorded: Recorded,
) -> None:
    world, service = recorded.world, recorded.service
    assert (await recorded.upgrade()).outcome is Outcome.PROMOTED
    await recorded.nothing_under_way()
    world.windows.answer = CLOSED
    plan = world.plan(("gw-1",), ("gw-2",), release=NEXT)
    assert await service.start(plan, "http://repository", "bea", "tonight") is not None
    await world.client.get_workflow_handle(bake_of("edge")).terminate("its history is broken")
    assert not await recorded.bakes()
    await recorded.reconcile()
    assert await recorded.bakes()


async def missed_settings(recorded: Recorded, *names: str) -> None:
    """Change settings while these gateways are silent, and have them answer again."""
    for name in names:
        silent(recorded, name)
    await configured(recorded, with_settings(recorded))
    assert (await recorded.service.end_of("edge")).outcome is Outcome.HELD
    for name in names:
        recorded.world.gateways[name].recover("observe")


@pytest.mark.sweep
async def test_settings_that_a_gateway_missed_are_brought_to_it_while_an_upgrade_only_waits(
    recorded: Recorded,
) -> None:
    world = recorded.world
    await missed_settings(recorded, "gw-4")
    rollout = await waiting(world)
    assert (await recorded.reconcile()).sentence == LETS_IN
    await until(lambda: bool(world.gateways["gw-4"].settings), SOON)
    assert (await status_of(rollout)).phase is Phase.WAITING
    await until(lambda: len(world.book.open_changes("edge")) == 1, SOON)
    newest = recorded.ledger.last_change("edge")
    assert newest is not None
    assert newest.name == (await status_of(rollout)).rollout  # what penstock does beside it is no newer one
    world.windows.answer = OPEN
    assert (await result_of(rollout)).outcome is Outcome.PROMOTED


@pytest.mark.sweep
async def test_settings_come_between_two_waves_to_no_gateway_that_the_upgrade_has_changed(
    recorded: Recorded,
) -> None:
    """The upgrade answers for what has passed, which is watched: nothing else changes there."""
    world = recorded.world
    await missed_settings(recorded, "gw-1", "gw-4")
    rollout = await between_waves(world)
    assert (await recorded.reconcile()).sentence == LETS_IN
    await until(lambda: bool(world.gateways["gw-4"].settings), SOON)
    await until(lambda: len(world.book.open_changes("edge")) == 1, SOON)
    assert world.gateways["gw-1"].settings == ()
    world.windows.answer = OPEN
    assert (await result_of(rollout)).outcome is Outcome.PROMOTED
    await recorded.nothing_under_way()
    assert (await recorded.reconcile()).sentence.startswith("repeating the last change of settings on gw-1")
    await recorded.nothing_under_way()
    assert world.gateways["gw-1"].settings


@pytest.mark.sweep
async def test_settings_come_to_all_but_the_gateways_that_a_rollback_waits_for(recorded: Recorded) -> None:
    world, refusing = recorded.world, recorded.world.gateways["gw-1"]
    await missed_settings(recorded, "gw-1", "gw-4")
    rollback = await observed(world)
    refusing.fail("restore", Refused("gw-1: the disk is full"), times=10_000)
    await say(rollback, CommandKind.ROLL_BACK)
    await waiting_for(rollback, "gw-1")
    assert (await recorded.reconcile()).sentence == LETS_IN
    await until(lambda: bool(world.gateways["gw-4"].settings), SOON)
    assert refusing.settings == ()
    refusing.recover("restore")
    await recorded.nothing_under_way()
    assert world.serving()["gw-1"] == "1.1.6"


@pytest.mark.sweep
async def test_no_settings_come_to_a_fleet_while_a_wave_is_under_way(recorded: Recorded) -> None:
    """Nor is the wave asked each minute, whose history cannot be cut while it is held for days."""
    world = recorded.world
    await missed_settings(recorded, "gw-4")
    rollout = await observed(world)
    await recorded.reconcile()
    events = [event async for event in rollout.fetch_history_events()]
    signals = [event.workflow_execution_signaled_event_attributes.signal_name for event in events]
    assert world.gateways["gw-4"].settings == ()
    assert world.book.open_changes("edge") == ((await status_of(rollout)).rollout,)
    assert "let_in" not in signals


@pytest.mark.sweep
async def test_bad_settings_that_reconcile_repeats_beside_an_upgrade_are_taken_back(
    recorded: Recorded,
) -> None:
    """One gateway that did not answer the repeat kept them on the whole fleet."""
    world, service = recorded.world, recorded.service
    await missed_settings(recorded, "gw-4")
    await waiting(world)
    async with blocked(world.gateways["gw-4"], "configure", times=range(1, 100)) as taken:
        await recorded.reconcile()
        await asyncio.wait_for(taken.wait(), SOON)
        await service.roll_back(world.fleet, "ana", "no names are resolved", settings=True)
        await until(lambda: not any(world.gateways[gw].settings for gw in ("gw-1", "gw-2", "gw-3")))
