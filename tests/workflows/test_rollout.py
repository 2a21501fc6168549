from policies.words.rollout import Outcome
from tests.fakes.control import UNDECIDED, UNHEALTHY, HEALTHY
from tests.workflows.conftest import NEW, World


async def test_a_healthy_canary_brings_the_whole_fleet_to_the_release(world: World) -> None:
    result = await world.upgrade(("gw-1",), ("gw-2", "gw-3", "gw-4"))
    assert result.outcome is Outcome.PROMOTED, result.reason
    assert set(world.serving().values()) == {"1.3.0"}
    assert world.book.known_good(world.fleet.name) == dict.fromkeys(world.gateways, NEW)


async def test_an_unhealthy_canary_goes_back_and_the_others_are_never_touched(world: World) -> None:
    world.judge.script[1] = [UNDECIDED, UNHEALTHY]
    result = await world.upgrade()
    assert (result.outcome, result.reason) == (Outcome.ROLLED_BACK, "9 of 10 logins fail")
    assert set(world.serving().values()) == {"1.1.6"}
    assert not world.gateways["gw-2"].effects
