"""A known-good release that no host would start again is an obstacle of an upgrade, and of nothing else."""

import pytest

from policies.model.change import Outcome
from policies.model.errors import Unavailable
from tests.workflows.engine import Engine
from tests.workflows.test_placement import running
from tests.workflows.world import NEW, OLD, World, fleet_of, result_of, working

WHY = "ocserv 1.2.4 serves and would not be started again: sign it again, or withdraw it"


def lose_signer(world: World, *names: str) -> None:
    """Have these gateways, or all, refuse to start again what serves."""
    for name in names or world.gateways:
        world.gateways[name].no_way_back = WHY


async def test_an_upgrade_without_a_way_back_begins_nowhere_and_says_why_once(world: World) -> None:
    lose_signer(world)
    result = await world.upgrade()
    assert (result.outcome, result.reason) == (Outcome.REFUSED, f"Stopped: gw-1, gw-2, gw-3: {WHY}")
    assert all(not fake.effects for fake in world.gateways.values())


async def test_one_sentence_about_a_hundred_gateways_is_told_once(server: Engine) -> None:
    fleet = fleet_of("edge", size=120)
    async with working(World.made(await server.client(), fleet)) as world:
        lose_signer(world)
        first, *others = sorted(world.gateways)
        result = await world.upgrade((first,), tuple(others))
        assert result.outcome is Outcome.REFUSED
        assert result.reason.endswith(f" and 117 more: {WHY}")
        assert result.reason.count(WHY) == 1


@pytest.mark.sweep
async def test_what_was_withdrawn_may_be_left(world: World) -> None:
    world.book.add_release(OLD, source="http://repository", signers=(), manifest_json="{}")
    world.book.yank(OLD.digest, "its signer left", "ana")
    lose_signer(world)
    assert (await world.upgrade()).outcome is Outcome.PROMOTED


@pytest.mark.sweep
async def test_a_rollback_is_held_up_by_no_signer_who_left(world: World) -> None:
    assert (await world.upgrade()).outcome is Outcome.PROMOTED
    lose_signer(world)
    assert (await result_of(await world.go_back())).outcome is Outcome.ROLLED_BACK
    assert set(world.serving().values()) == {OLD.version}


@pytest.mark.sweep
async def test_a_few_gateways_without_a_way_back_are_not_switched(server: Engine) -> None:
    """As many as the failure budget allows were upgraded all the same."""
    fleet = fleet_of("edge", failures="50%")
    async with working(World.made(await server.client(), fleet)) as world:
        lose_signer(world, "gw-3")
        result = await world.upgrade(("gw-1",), ("gw-2", "gw-3", "gw-4"))
        assert (result.outcome, result.aside) == (Outcome.PROMOTED, {"gw-3": WHY})
        assert world.serving() == dict.fromkeys(("gw-1", "gw-2", "gw-4"), NEW.version) | {"gw-3": OLD.version}
        assert not [one for one in world.gateways["gw-3"].effects if one.startswith(("stage", "start"))]


@pytest.mark.sweep
async def test_a_gateway_that_was_silent_at_the_check_is_switched_once_it_says_that_it_can_go_back(
    server: Engine,
) -> None:
    fleet = fleet_of("edge", failures="50%")
    async with working(World.made(await server.client(), fleet)) as world:
        world.gateways["gw-3"].fail("preflight", Unavailable("gw-3 does not answer"), times=5)
        result = await world.upgrade(("gw-1",), ("gw-2", "gw-3", "gw-4"))
        assert (result.outcome, result.aside) == (Outcome.PROMOTED, {})


@pytest.mark.sweep
async def test_what_a_cluster_would_not_prepare_again_is_no_way_back(server: Engine) -> None:
    async with running(server) as world:
        world.clusters["cluster"].no_way_back = WHY
        result = await world.upgrade()
        assert (result.outcome, result.reason) == (Outcome.REFUSED, f"Stopped: gw-1, gw-2, gw-3: {WHY}")
