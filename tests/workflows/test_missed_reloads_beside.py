"""A gateway that missed a reload of credentials gets it once it answers, beside a change that waits."""

from policies.model.change import Outcome
from policies.model.command import CommandKind
from policies.model.errors import Refused
from tests.fakes.control import CLOSED
from tests.workflows.recorded import SOON, Recorded
from tests.workflows.test_quarantine import observed
from tests.workflows.test_reload import held_by_silence
from tests.workflows.test_settings import silent
from tests.workflows.world import NEXT, say, until, waiting_for
from workflows.identities import bake_of

LETS_IN = "a change is under way, and lets this in if it only waits"


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
