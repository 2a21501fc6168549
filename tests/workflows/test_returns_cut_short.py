"""A return of single gateways that is cut short reports what is not back, and closes nothing."""

from datetime import UTC, datetime, timedelta

import pytest

from policies.model.change import GatewayResult, Outcome
from policies.model.errors import Unavailable
from policies.model.plan_part import PartKey
from policies.planning import parts
from tests.workflows.engine import Engine
from tests.workflows.recorded import blocked
from tests.workflows.test_relapses import let_pass
from tests.workflows.world import NEW, World, fleet_of, reconcile, result_of, until, working
from workflows.restore import Restore, restores_of

LEFT = "left to reconcile"


async def test_a_return_that_is_left_names_the_gateways_whose_turn_had_not_come(
    server: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "most_together", lambda members: 2)
    async with working(World.made(await server.client(), fleet_of("edge", size=6))) as world:
        for fake in world.gateways.values():
            fake.serve(NEW, "b")
        keys = tuple(PartKey(wave=0, number=number) for number in (1, 2, 3))
        async with blocked(world.gateways["gw-1"], "restore") as asked:
            root = await world.restore(keys=keys, at_once=1, within=timedelta(seconds=30))
            await asked.wait()
            for one in (root.id, restores_of(root.id, keys)[0]):
                await world.client.get_workflow_handle(one).signal(Restore.leave_all, LEFT)
            result = await result_of(root)
    assert result.given_up.pop("gw-1") == LEFT
    assert result.given_up == dict.fromkeys(
        ("gw-3", "gw-4", "gw-5", "gw-6"), f"{LEFT}: its turn had not come"
    )
    assert (result.back, result.more_given_up) == (1, 0)


async def test_a_return_that_is_left_counts_the_gateways_that_it_does_not_name(
    server: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("activities.plans.MOST_MEMBERS", 2)
    monkeypatch.setattr(parts, "most_together", lambda members: 1)
    async with working(World.made(await server.client(), fleet_of("edge", size=5))) as world:
        keys = tuple(PartKey(wave=0, number=number) for number in range(1, 6))
        async with blocked(world.gateways["gw-1"], "restore") as asked:
            root = await world.restore(keys=keys, at_once=1, within=timedelta(seconds=30))
            await asked.wait()
            for one in (root.id, restores_of(root.id, keys)[0]):
                await world.client.get_workflow_handle(one).signal(Restore.leave_all, LEFT)
            result = await result_of(root)
    assert ([*result.given_up], result.more_given_up) == (["gw-1", "gw-2", "gw-3"], 2)


async def test_an_upgrade_that_died_ends_only_once_reconcile_has_brought_back_every_gateway_of_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workflows.change.ALONE_WITHIN", timedelta(seconds=1))
    dead, at = world.left_open(("gw-1", "gw-2")), datetime.now(UTC)
    moved = [
        GatewayResult(gateway=name, wave=1, state="kept", slot="b", started=at.timestamp(), at=at)
        for name in ("gw-1", "gw-2")
    ]
    world.book.record_gateways(dead, moved)
    for row in moved:
        world.gateways[row.gateway].serve(NEW, "b")
    world.gateways["gw-2"].fail("restore", Unavailable("gw-2 does not answer"), times=10_000)
    assert (await reconcile(world)).sentence == "bringing back: gw-1, gw-2"
    await until(lambda: world.book.open_changes("edge") != (dead,))
    await until(lambda: world.newest not in world.book.open_changes("edge"))
    assert world.book.open_changes("edge") == (dead,)
    assert (world.serving()["gw-1"], world.serving()["gw-2"]) == ("1.1.6", "1.3.0")
    world.gateways["gw-2"].recover("restore")
    let_pass(world, timedelta(hours=2))
    assert (await reconcile(world)).sentence == "bringing back: gw-2"
    await until(lambda: world.book.open_changes("edge") == ())
    assert world.serving()["gw-2"] == "1.1.6"
    assert world.book.change(dead).outcome is Outcome.ROLLED_BACK
