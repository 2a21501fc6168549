"""A gateway that leaves its known-good again after each return keeps the fleet's lock from nobody."""

import asyncio
import time
from datetime import datetime, timedelta

import pytest
from sqlalchemy import update

from orchestrator.service.changes import ChangeService
from orchestrator.service.quarantine import QuarantineService
from orchestrator.store import tables
from orchestrator.store.database import writing
from policies.model.change import PENSTOCK, ChangeKind, ChangeOrder
from policies.model.errors import Conflict
from policies.model.offer import Verb
from policies.model.operation import BREAK_GLASS
from policies.notices.entries import STEERED_BY_HAND
from policies.returns import MOST_RELAPSES, REMEMBERED
from tests.patience import PATIENCE, until
from tests.workflows.recorded import blocked
from tests.workflows.world import NEW, World, reconcile

RELAPSES = MOST_RELAPSES + 1


def let_pass(world: World, time_passed: timedelta) -> None:
    """Have penstock remember all returns and quarantines as so much longer ago."""
    returns, left_out = tables.returns, tables.quarantine
    found, rows = world.book.returns("edge"), world.book.quarantined("edge")
    with writing(world.book._engine) as connection:
        for name, one in found.items():
            values = {"last": one.last - time_passed, "paged": one.paged and one.paged - time_passed}
            connection.execute(update(returns).where(returns.c.gateway == name).values(values))
        for row in rows:
            since = {"since": row.since - time_passed}
            connection.execute(update(left_out).where(left_out.c.gateway == row.gateway).values(since))


def began(world: World) -> list[datetime]:
    """Return when the changes began that brought gateways back."""
    return [row.began for row in world.book.history("edge") if row.requested_by == PENSTOCK]


async def relapse(world: World) -> str:
    """Take the gateway from its known-good, and reconcile; return what that says."""
    world.gateways["gw-3"].serve(NEW, "b")
    found = await reconcile(world)
    if found.strays:
        await until(lambda: world.gateways["gw-3"].serving == "a")
        await until(lambda: world.book.open_changes("edge") == ())
    return found.sentence


async def relapse_often(world: World) -> None:
    for _ in range(RELAPSES):
        assert await relapse(world) == "bringing back: gw-3"
        let_pass(world, timedelta(hours=2))


async def test_a_gateway_that_leaves_its_known_good_again_is_brought_back_after_a_pause(world: World) -> None:
    assert await relapse(world) == "bringing back: gw-3"
    for _ in range(3):
        said = await relapse(world)
        assert said.startswith(
            "brought back later: gw-3 runs a release that is not its known-good 1.1.6; the"
        )
    assert len(began(world)) == 1
    let_pass(world, timedelta(minutes=1))
    assert await relapse(world) == "bringing back: gw-3"
    let_pass(world, timedelta(minutes=1))
    assert "next try is at" in await relapse(world)  # which is after twice as long
    assert len(began(world)) == 2
    assert world.book.quarantined("edge") == ()


@pytest.mark.sweep
async def test_a_gateway_that_never_keeps_its_known_good_stays_left_out_and_is_named_with_what_to_do(
    world: World,
) -> None:
    await relapse_often(world)
    [row] = world.book.quarantined("edge")
    assert (row.gateway, row.person) == ("gw-3", PENSTOCK)
    assert row.reason.startswith(f"it left its known-good again after each of {MOST_RELAPSES} returns")
    assert "penstock gateway return edge gw-3 --reason TEXT" in row.reason
    assert await relapse(world) == "bringing back: gw-3"  # its users get its known-good once an hour
    assert [one.reason for one in world.book.quarantined("edge")] == [row.reason]
    assert (await reconcile(world)).sentence == "every gateway is on its known-good"
    let_pass(world, REMEMBERED)
    await reconcile(world)
    await until(lambda: world.book.quarantined("edge") == ())


@pytest.mark.sweep
async def test_an_operator_who_returns_a_gateway_that_did_not_keep_its_known_good_is_taken_at_his_word(
    world: World,
) -> None:
    await relapse_often(world)
    quarantine = QuarantineService(ChangeService(world.client, world.book))
    await quarantine.take_in(world.fleet, ("gw-3",), "ana", "its agent is installed anew")
    assert world.book.quarantined("edge") == ()
    assert await relapse(world) == "bringing back: gw-3"
    assert world.book.quarantined("edge") == ()


@pytest.mark.sweep
async def test_a_gateway_that_is_steered_by_hand_again_and_again_pages_once_and_stays_left_out_at_last(
    world: World,
) -> None:
    liar = world.gateways["gw-3"]
    for number in range(RELAPSES):
        liar.serve(NEW, "b")
        liar.owner = (int(time.time() * 1000) + number, BREAK_GLASS)
        await reconcile(world)
        liar.serving = "a"
        await reconcile(world)
    assert [action for action, _, _ in world.book.events.values()].count(STEERED_BY_HAND) == 1
    [row] = world.book.quarantined("edge")
    assert (row.gateway, row.person) == ("gw-3", BREAK_GLASS)
    let_pass(world, REMEMBERED)
    await reconcile(world)
    assert world.book.quarantined("edge") == ()


@pytest.mark.sweep
async def test_another_gateway_that_is_steered_by_hand_pages_although_one_was_paged_of(world: World) -> None:
    for name in ("gw-3", "gw-2", "gw-3"):
        fake = world.gateways[name]
        fake.serve(NEW, "b")
        fake.owner = (int(time.time() * 1000), BREAK_GLASS)
        await reconcile(world)
        fake.serving = "a"
        await reconcile(world)
    assert [action for action, _, _ in world.book.events.values()].count(STEERED_BY_HAND) == 2


async def upgrade(world: World) -> str | None:
    """Start an upgrade; return its name."""
    service = ChangeService(world.client, world.book)
    return await service.start(world.plan(("gw-1",), ("gw-2",)), "http://repository", "ana", "a fix")


@pytest.mark.sweep
async def test_an_upgrade_waits_for_gateways_that_penstock_brings_back(world: World) -> None:
    async with blocked(world.gateways["gw-3"], "restore") as asked:
        world.gateways["gw-3"].serve(NEW, "b")
        await reconcile(world)
        await asked.wait()
        starting = asyncio.create_task(upgrade(world))
        await asyncio.sleep(1)
        assert not starting.done()
    name = await starting
    assert name is not None
    assert [row.name for row in world.book.history("edge")][:1] == [name]
    assert world.serving()["gw-3"] == "1.1.6"


@pytest.mark.sweep
async def test_an_upgrade_that_waited_in_vain_names_the_gateway_and_how_it_is_left_out(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.service.changes.ENDED_WITHIN", timedelta(seconds=1))
    async with blocked(world.gateways["gw-3"], "restore") as asked:
        world.gateways["gw-3"].serve(NEW, "b")
        await reconcile(world)
        await asked.wait()
        with pytest.raises(Conflict, match=r"^penstock brings gw-3 of edge back to known-good") as refused:
            await upgrade(world)
    assert (Verb.QUARANTINE, "gw-3") in [(one.verb, one.gateway) for one in refused.value.offers]


@pytest.mark.sweep
async def test_a_rollback_never_waits_for_gateways_that_penstock_brings_back(world: World) -> None:
    service = ChangeService(world.client, world.book)
    order = ChangeOrder(
        fleet="edge", kind=ChangeKind.GO_BACK, requested_by="ana", reason="users call", key="1"
    )
    async with blocked(world.gateways["gw-3"], "restore") as asked:
        world.gateways["gw-3"].serve(NEW, "b")
        await reconcile(world)
        await asked.wait()
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(Conflict):
                await service._begin_after(order, world.fleet, is_rollback=True)
