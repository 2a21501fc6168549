"""A gateway that metrics name is reported with the sign on itself, all the way to the end of its change."""

from datetime import timedelta

import pytest

from policies.model.change import Outcome, Phase
from policies.model.errors import Unavailable
from policies.model.verdict import Action, Decision, GateVerdict
from tests.fakes.control import UNDECIDED
from tests.patience import until
from tests.workflows.recorded import soon
from tests.workflows.world import Running, World, began_with, in_phase, result_of, status_of
from workflows import steps
from workflows.batch import Batch, BatchOrder, OnTrial
from workflows.steps import CONTROL_QUEUE

OWN = "restarted: it shows the sign for 0 s, and the control does not"
PROOF = "logins: 98 of 98 were accepted"


NAMES_GW_1 = Decision(
    action=Action.CONTINUE,
    verdict=GateVerdict.HEALTHY,
    reason=PROOF,
    failed=("gw-1",),
    own={"gw-1": OWN},
)


async def is_looked_into(rollout: Running) -> bool:
    """Whether the change says that gw-1 is checked."""
    return ("gw-1", "checking") in {(one.gateway, one.state) for one in (await status_of(rollout)).gateways}


async def times_told(world: World, workflow: str, signal: str) -> int:
    """Return how often a workflow was told that."""
    events = world.client.get_workflow_handle(workflow).fetch_history_events()
    signals = [event.workflow_execution_signaled_event_attributes.signal_name async for event in events]
    return signals.count(signal)


async def is_named(world: World, batch: str) -> bool:
    """Whether the batch was told to set a gateway aside."""
    return await times_told(world, batch, "set_aside") > 0


async def test_a_gateway_that_metrics_name_is_left_out_with_its_own_reason(world: World) -> None:
    """It was left out with the sentence that proved the other gateways healthy."""
    world.judge.says(NAMES_GW_1)
    result = await soon(result_of(await world.start(("gw-1", "gw-2"))))
    assert result.outcome is Outcome.ROLLED_BACK
    assert OWN in result.reason
    assert PROOF not in result.reason


async def test_a_batch_that_has_not_read_its_part_yet_sets_a_gateway_aside(world: World) -> None:
    """A batch whose history was cut a moment before failed its task for ever and renewed no lease."""
    world.judge.says(UNDECIDED)
    rollout = await world.start(("gw-1", "gw-2"))
    await in_phase(rollout, Phase.OBSERVING)
    order, _ = await began_with(world.client, f"{rollout.id}/{world.newest}/wave/001/0001", BatchOrder)
    started = OnTrial(slot="b", started=0.0)
    goes_on = order.model_copy(
        update={"on_trial": {"gw-1": started, "gw-2": started}, "switched": True, "begun": True}
    )
    batch = await world.client.start_workflow(
        Batch.run,
        goes_on.model_copy(update={"wave": "no wave"}),
        id="goes on",
        task_queue=CONTROL_QUEUE,
        start_signal="set_aside",
        start_signal_args=[{"gw-1": 1.0}, OWN],
    )
    await batch.signal(Batch.end, "stop")
    result = await soon(batch.result())
    assert (result.aside, result.kept) == ({"gw-1": OWN}, 0)


@pytest.mark.sweep
async def test_a_gateway_that_metrics_name_while_its_lapsed_lease_is_looked_into_is_left_out(
    world: World,
) -> None:
    """Nobody set it aside any more: it was on trial again, judged no further, and was promoted."""
    world.judge.says(UNDECIDED)
    rollout = await world.start(("gw-1", "gw-2"))
    await in_phase(rollout, Phase.OBSERVING)
    canary, batch = world.gateways["gw-1"], f"{rollout.id}/{world.newest}/wave/001/0001"
    canary.fail("observe", Unavailable("gw-1 is busy"), times=10_000)
    canary.trial = None  # as by `nft flush ruleset`

    await until(lambda: is_looked_into(rollout))
    world.judge.says(NAMES_GW_1)
    await until(lambda: is_named(world, batch))
    canary.recover("observe")
    result = await soon(result_of(rollout))
    assert result.outcome is Outcome.ROLLED_BACK
    assert OWN in result.reason


@pytest.mark.sweep
async def test_a_gateway_that_fails_again_after_a_reboot_is_left_out(world: World) -> None:
    """The second report named it as the first had done, and was not passed on: it was promoted."""
    world.judge.says(UNDECIDED)
    rollout = await world.start(("gw-1", "gw-2"))
    await in_phase(rollout, Phase.OBSERVING)
    canary, batch = world.gateways["gw-1"], f"{rollout.id}/{world.newest}/wave/001/0001"
    canary.fail("observe", Unavailable("gw-1 boots"), times=10_000)
    canary.reboot()
    await until(lambda: is_looked_into(rollout))
    world.judge.says(NAMES_GW_1)
    await until(lambda: is_named(world, batch))
    canary.recover("observe")
    await until(lambda: canary.target == "b")
    assert not (await status_of(rollout)).aside
    world.judge.says(NAMES_GW_1.model_copy(update={"action": Action.PROMOTE}))
    result = await soon(result_of(rollout))
    assert result.outcome is Outcome.ROLLED_BACK
    assert OWN in result.reason


@pytest.mark.sweep
async def test_a_failed_gateway_of_an_earlier_wave_is_named_to_a_batch_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each report told every batch of the wave, until the engine would have ended it."""
    monkeypatch.setattr(steps, "UNREAD_FOR", timedelta(seconds=2))  # a report each second
    world.judge.says(UNDECIDED, wave=2)
    rollout = await world.start(("gw-1",), ("gw-2", "gw-3"))
    await in_phase(rollout, Phase.OBSERVING, wave=2)
    wave = f"{rollout.id}/{world.newest}/wave/002"
    world.judge.says(NAMES_GW_1.model_copy(update={"since": {"gw-1": 4e9}}), wave=2)
    await until(lambda: is_named(world, f"{wave}/0001"))
    reports = await times_told(world, wave, "report_watch")

    async def is_reported_again() -> bool:
        return await times_told(world, wave, "report_watch") >= reports + 2

    await until(is_reported_again)
    # What the wave has sent: its batch may have been cut meanwhile, and what it heard with it.
    events = [event async for event in world.client.get_workflow_handle(wave).fetch_history_events()]
    sent = [event.signal_external_workflow_execution_initiated_event_attributes for event in events]
    assert [one.signal_name for one in sent].count("set_aside") == 1
