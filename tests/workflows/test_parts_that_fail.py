"""A part of a rollback that fails by itself is begun again, or its gateways are named as not back (R1)."""

import pytest
from temporalio.client import WorkflowHandle
from temporalio.service import RPCError

from policies.model.change import Outcome, Phase
from policies.model.command import CommandKind
from policies.model.errors import Refused
from policies.model.plan_part import PartKey
from tests.fakes.control import UNDECIDED
from tests.patience import until
from tests.workflows.recorded import blocked, soon
from tests.workflows.world import NEW, World, in_phase, result_of, say, status_of, waiting_for
from workflows.restore import LEFT, Restore, RestoreResult


async def fails(world: World, part: str, times: int) -> None:
    """Have this part of a rollback fail by itself, each time once it has begun."""
    failed = {""}
    for _ in range(times):

        async def is_begun() -> bool:
            try:
                run = (await world.client.get_workflow_handle(part).describe()).run_id
            except RPCError:  # it has not begun yet
                return False
            return run not in failed

        await until(is_begun)
        handle = world.client.get_workflow_handle(part)
        failed.add((await handle.describe()).run_id)
        await handle.terminate("by hand")


@pytest.mark.sweep
async def test_a_rollback_whose_only_part_fails_again_and_again_brings_its_gateways_back(
    world: World,
) -> None:
    """The change failed with the second failure: no operator was told, and nothing tried its gateways."""
    world.judge.says(UNDECIDED)
    rollout = await world.start(("gw-1", "gw-2"))
    await in_phase(rollout, Phase.OBSERVING)
    canary = world.gateways["gw-1"]
    canary.fail("restore", Refused("gw-1: the disk is full"), times=10_000)
    await say(rollout, CommandKind.ROLL_BACK, "ana", reason="users call")
    await waiting_for(rollout, "gw-1")
    await fails(world, f"{rollout.id}/{world.newest}/restore", times=3)

    async def is_named() -> bool:
        return "part 1/1: " in ((await status_of(rollout)).needs_you or "")

    await until(is_named)
    canary.recover("restore")
    assert (await soon(result_of(rollout))).outcome is Outcome.ROLLED_BACK
    assert set(world.serving().values()) == {"1.1.6"}


async def two_parts(world: World) -> "WorkflowHandle[Restore, RestoreResult]":
    """Bring two gateways back that are two parts, while others need the fleet's lock."""
    for name in ("gw-1", "gw-2"):
        world.gateways[name].serve(NEW, "b")
    plan = world.book.record_plan(world.plan(("gw-1",), ("gw-2",)))
    keys = (PartKey(wave=1, number=1), PartKey(wave=2, number=1))
    return await world.restore("gw-1", plan=plan, keys=keys, lets_go=True)


@pytest.mark.parametrize(("times", "not_back"), [(1, []), (2, ["gw-1"])])
async def test_a_part_that_fails_while_others_need_the_lock_is_begun_again_once_and_then_names_its_gateways(
    world: World, times: int, not_back: list[str]
) -> None:
    """It was not begun again, and the end named `part 001/0001` and no gateway."""
    async with blocked(world.gateways["gw-1"], "restore", times=range(1, times + 1)) as under_way:
        back = await two_parts(world)
        await under_way.wait()
        await fails(world, f"{back.id}/001/0001", times)
        result = await soon(back.result())
    assert sorted(result.given_up) == not_back
    assert all(why.startswith(LEFT) for why in result.given_up.values())
    assert (result.back, world.serving()["gw-2"]) == (2 - len(not_back), "1.1.6")
