"""penstock moves no gateway that an operator has quarantined, also where its return has begun."""

import asyncio
from typing import Any

import pytest
from temporalio.client import WorkflowHandle

from policies.model.change import Outcome, Phase
from policies.model.command import CommandKind
from policies.model.errors import Unavailable
from tests.fakes.control import HEALTHY, OPEN, PASSED
from tests.patience import until
from tests.workflows.test_passed_waves import ONE_FAILED, second_wave_that
from tests.workflows.test_quarantine import observed, service_of
from tests.workflows.world import World, in_phase, result_of, say
from workflows.restore import RETURN_ENDED, RestoreResult

REASON = "its host is being examined"
LEFT_OUT = f"in quarantine by ana: {REASON}"


@pytest.mark.sweep
async def test_the_return_of_a_gateway_that_failed_alone_ends_with_its_quarantine_and_reports_that(
    world: World,
) -> None:
    rollout = await second_wave_that(world, "its window")
    fake = world.gateways["gw-2"]
    fake.fail("restore", Unavailable("gw-2 does not answer"), times=100_000)
    world.judge.says(ONE_FAILED, wave=PASSED)
    await until(lambda: any(one.gateway == "gw-2" for one in world.book.quarantined("edge")))
    world.judge.says(HEALTHY, wave=2)
    world.windows.answer = OPEN
    assert (await result_of(rollout)).outcome == "promoted"
    answer = await service_of(world).leave_out(world.fleet, ("gw-2",), "ana", REASON)
    assert answer == "gw-2 is left out of changes until somebody returns it."
    serving, effects = world.serving()["gw-2"], list(fake.effects)
    restore: WorkflowHandle[Any, RestoreResult] = world.client.get_workflow_handle(
        f"restore/gw-2/{world.newest}", result_type=RestoreResult
    )
    async with asyncio.timeout(60):
        ended = await restore.result()
    fake.recover("restore")  # before its end, the attempt that was under way might have moved it
    assert (ended.back, ended.given_up) == (0, {"gw-2": LEFT_OUT})
    assert [(one.gateway, one.person) for one in world.book.quarantined("edge")] == [("gw-2", "ana")]
    assert (world.serving()["gw-2"], fake.effects) == (serving, effects)
    reported = [about for about in world.book.events.values() if about[0] == RETURN_ENDED]
    sentence = f"penstock stops returning gw-2 to its known-good: {LEFT_OUT}"
    assert reported == [(RETURN_ENDED, "edge/gw-2", {"sentence": sentence})]


@pytest.mark.sweep
async def test_a_rollback_ends_without_a_gateway_that_is_quarantined_during_its_first_try(
    world: World,
) -> None:
    rollout = await observed(world)
    world.gateways["gw-1"].fail("restore", Unavailable("gw-1 does not answer"), times=100_000)
    await say(rollout, CommandKind.ROLL_BACK)
    await in_phase(rollout, Phase.ROLLING_BACK)
    answer = await service_of(world).leave_out(world.fleet, ("gw-1",), "ana", REASON)
    assert answer == (
        "gw-1 is left out of changes until somebody returns it. "
        "The rollback under way tries it at most once more."
    )
    result = await result_of(rollout)
    assert (result.outcome, result.incomplete) == (Outcome.ROLLBACK_INCOMPLETE, {"gw-1": LEFT_OUT})
