"""What peers test, told of gateways: docs/scenarios.md says which scenario is which test."""

import pytest

from policies.model.change import Outcome, Phase
from policies.model.command import CommandKind
from policies.model.errors import Unavailable
from tests.fakes.control import HEALTHY, UNDECIDED, UNHEALTHY
from tests.patience import until
from tests.workflows.world import NEW, NEXT, OLD, World, in_phase, result_of, say


@pytest.mark.sweep
async def test_01_abort_retry_promote_ends_all_new_and_in_order(world: World) -> None:
    rollout = await world.start(("gw-1",), ("gw-2",))
    await say(rollout, CommandKind.ABORT)
    assert (await result_of(rollout)).outcome is Outcome.ABORTED
    assert world.serving()["gw-1"] == "1.1.6"
    assert (await world.upgrade(("gw-1",), ("gw-2",))).outcome is Outcome.PROMOTED
    assert world.gateways["gw-2"].effects[:4] == ["stage 1.3.0", "start b", "steer b", "keep b"]


@pytest.mark.sweep
async def test_03_22_a_bad_release_fails_every_time_and_the_fixed_one_is_promoted(world: World) -> None:
    for fake in world.gateways.values():
        fake.bad_releases.add(NEW.digest)
    for _ in range(2):
        result = await world.upgrade(("gw-1",))
        assert result.outcome is Outcome.ROLLED_BACK
        assert world.gateways["gw-1"].login("192.0.2.1") == "a"
        world.gateways["gw-1"].logout("192.0.2.1")
    assert (await world.upgrade(("gw-1",), release=NEXT)).outcome is Outcome.PROMOTED
    assert world.serving()["gw-1"] == "1.4.0"


@pytest.mark.sweep
async def test_04_a_broken_current_release_does_not_block_its_fix(world: World) -> None:
    for fake in world.gateways.values():
        fake.bad_releases.add(OLD.digest)
    assert (await world.upgrade(("gw-1",), ("gw-2",))).outcome is Outcome.PROMOTED


async def test_06_a_failure_after_the_cutover_never_moves_the_known_good(world: World) -> None:
    world.judge.says(UNDECIDED, UNHEALTHY)
    await world.upgrade(("gw-1",))
    assert world.book.known_good(world.fleet.name)["gw-1"] == OLD


@pytest.mark.sweep
async def test_07_19_the_next_release_is_compared_with_known_good_and_inherits_nothing(world: World) -> None:
    world.judge.says(UNHEALTHY)
    await world.upgrade(("gw-1",))
    await until(lambda: "stop b" in world.gateways["gw-1"].effects)
    world.judge.says(HEALTHY)
    result = await world.upgrade(("gw-1",), release=NEXT)
    assert result.outcome is Outcome.PROMOTED, result.reason
    first = next(order for order in world.judge.orders if order.change == world.newest)
    assert first.state == ""
    assert world.book.plan(first.plan).known_good["gw-2"] == OLD


@pytest.mark.sweep
async def test_08_a_step_without_progress_ends_in_a_rollback(world: World) -> None:
    world.gateways["gw-1"].fail("start", Unavailable("gw-1 does not answer"), times=10_000)
    result = await world.upgrade(("gw-1",))
    assert (result.outcome, result.reason) == (Outcome.ROLLED_BACK, "gw-1 does not answer")
    assert world.serving()["gw-1"] == "1.1.6"


@pytest.mark.sweep
async def test_21_a_rollout_ends_once_with_exactly_one_outcome(world: World) -> None:
    await world.upgrade(("gw-1",), ("gw-2",))
    assert [result.outcome for result in world.book.closed] == [Outcome.PROMOTED]


@pytest.mark.sweep
async def test_24_a_session_on_the_canary_stays_there_through_every_wave(world: World) -> None:
    world.judge.says(UNDECIDED)
    rollout = await world.start(("gw-1",), ("gw-2",))
    await in_phase(rollout, Phase.OBSERVING)
    canary = world.gateways["gw-1"]
    assert canary.login("192.0.2.1") == "b"
    world.judge.says(HEALTHY)
    assert (await result_of(rollout)).outcome is Outcome.PROMOTED
    assert canary.reconnect("192.0.2.1") == "b"
    assert canary.lost == []
