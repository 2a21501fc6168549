"""Going back: to what the last change left, once, on record, and whatever the clock or the disk says."""

import asyncio

import pytest

from policies.model.change import ChangeEnding, KnownGoodBatch, Outcome, Phase
from policies.model.command import CommandKind
from policies.model.errors import Unavailable
from policies.model.verdict import Action, Decision, GateVerdict
from tests.fakes.control import HEALTHY, UNDECIDED, UNHEALTHY
from tests.patience import until
from tests.workflows.recorded import SOON, Recorded, blocked, soon
from tests.workflows.world import NEW, NEXT, OLD, World, in_phase, result_of, say

CRASHED = Decision(action=Action.ROLL_BACK, verdict=GateVerdict.HARD, reason="gw-1 restarted by itself")
WATCHING = Decision(action=Action.CONTINUE, verdict=GateVerdict.CONFLICTING, reason="not quiet yet")
"""Lets a bake go on: the judge of these tests calls everything else the end of it."""
ALL = (("gw-1",), ("gw-2", "gw-3", "gw-4"))


async def baked_and_back(recorded: Recorded, release: object = NEW) -> None:
    """Promote a release and let the bake find it bad."""
    recorded.world.judge.says(WATCHING, wave=0)
    assert (await recorded.upgrade(*ALL, release=release)).outcome is Outcome.PROMOTED  # type: ignore[arg-type]
    recorded.world.judge.says(CRASHED, wave=0)
    await recorded.everybody_on(OLD)


@pytest.mark.sweep
async def test_a_second_rollback_of_a_bake_is_on_record_and_reconcile_moves_nobody(
    recorded: Recorded,
) -> None:
    """D1."""
    await baked_and_back(recorded, NEW)
    await baked_and_back(recorded, NEXT)
    assert recorded.ledger.known_good("edge") == dict.fromkeys(recorded.world.gateways, OLD)
    found = await recorded.reconcile()
    assert found.sentence == "every gateway is on its known-good"
    assert set(recorded.world.serving().values()) == {"1.1.6"}


@pytest.mark.sweep
async def test_a_rollback_after_a_bake_went_back_does_not_go_forward_to_the_bad_release(
    recorded: Recorded,
) -> None:
    """D2."""
    await baked_and_back(recorded)
    receipt = await recorded.roll_back()
    assert not receipt.accepted
    assert receipt.sentence.startswith("Nothing to do")
    assert set(recorded.world.serving().values()) == {"1.1.6"}


@pytest.mark.sweep
@pytest.mark.parametrize("end", ["a verdict", "a person", "an abort"])
async def test_a_rollback_after_a_rollout_that_went_back_takes_back_what_was_promoted_before_it(
    recorded: Recorded, end: str
) -> None:
    """A1: what moved no known-good hides no promotion; a second rollback goes no release further (D2)."""
    world = recorded.world
    assert (await recorded.upgrade(*ALL)).outcome is Outcome.PROMOTED
    world.judge.says(UNHEALTHY if end == "a verdict" else UNDECIDED)
    if end == "an abort":
        world.gateways["gw-1"].fail("stage", Unavailable("gw-1 is busy"), times=3)
    await recorded.start(*ALL, release=NEXT)
    rollout = recorded.service._change("edge")
    if end == "a person":
        await in_phase(rollout, Phase.OBSERVING)
        await say(rollout, CommandKind.ROLL_BACK, "ana")
    elif end == "an abort":
        await say(rollout, CommandKind.ABORT, "ana")
    assert (await soon(result_of(rollout))).outcome in {Outcome.ROLLED_BACK, Outcome.ABORTED}
    assert set(world.serving().values()) == {"1.3.0"}
    assert (await recorded.roll_back()).accepted
    assert set(world.serving().values()) == {"1.1.6"}
    assert not (await recorded.roll_back()).accepted
    assert set(world.serving().values()) == {"1.1.6"}


@pytest.mark.sweep
async def test_a_rollback_takes_back_what_the_last_rollout_promoted_and_nothing_before_it(
    recorded: Recorded,
) -> None:
    """D2."""
    world = recorded.world
    await recorded.upgrade(*ALL)
    await recorded.upgrade(("gw-1",), release=NEXT)
    assert (await recorded.roll_back()).accepted
    assert set(world.serving().values()) == {"1.3.0"}
    assert recorded.ledger.known_good("edge") == dict.fromkeys(world.gateways, NEW)
    assert not (await recorded.roll_back()).accepted


@pytest.mark.sweep
async def test_a_rollback_after_a_refused_rollout_still_takes_the_last_promotion_back_and_only_once(
    recorded: Recorded,
) -> None:
    """D2; what was refused has changed nothing, so it is not what is gone back from."""
    world = recorded.world
    await recorded.upgrade(*ALL)
    world.admission.refused[NEXT.digest] = "only one of two people signed it"
    assert (await recorded.upgrade(*ALL, release=NEXT)).outcome is Outcome.REFUSED
    assert (await recorded.roll_back()).accepted
    assert set(world.serving().values()) == {"1.1.6"}
    assert not (await recorded.roll_back()).accepted
    assert set(world.serving().values()) == {"1.1.6"}


@pytest.mark.sweep
async def test_a_rollback_of_a_rollout_that_somebody_terminated_goes_to_known_good(
    recorded: Recorded,
) -> None:
    """D2."""
    world = recorded.world
    world.left_open(*ALL)
    world.gateways["gw-1"].serve(NEW, "b")
    assert (await recorded.roll_back()).accepted
    assert set(world.serving().values()) == {"1.1.6"}
    assert recorded.ledger.open_changes("edge") == ()


@pytest.mark.sweep
async def test_a_refused_rollout_leaves_the_watch_over_the_last_promotion_alone(recorded: Recorded) -> None:
    """D10."""
    world = recorded.world
    world.judge.says(WATCHING, wave=0)
    await recorded.upgrade(*ALL)
    await until(lambda: bool(world.judge.bakes), SOON)
    world.admission.refused[NEXT.digest] = "only one of two people signed it"
    assert (await recorded.upgrade(*ALL, release=NEXT)).outcome is Outcome.REFUSED
    world.judge.says(CRASHED, wave=0)
    await recorded.everybody_on(OLD)


@pytest.mark.sweep
async def test_a_reconcile_that_overlaps_the_end_of_a_rollout_starts_nothing(recorded: Recorded) -> None:
    """D10."""
    world = recorded.world
    world.judge.says(UNDECIDED)
    world.judge.says(WATCHING, wave=0)
    await recorded.start(("gw-1", "gw-2", "gw-3", "gw-4"))
    rollout = recorded.service._change("edge")
    await in_phase(rollout, Phase.OBSERVING)
    async with blocked(world.gateways["gw-1"], "observe") as taken:
        looking = asyncio.create_task(recorded.reconcile())
        await soon(taken.wait())
        world.judge.says(HEALTHY)
        assert (await soon(result_of(rollout))).outcome is Outcome.PROMOTED
    await soon(looking)
    status = await recorded.status()
    assert (status.rollout, status.outcome) == ("edge-2", Outcome.PROMOTED)
    world.judge.says(CRASHED, wave=0)
    await recorded.everybody_on(OLD)


@pytest.mark.sweep
async def test_a_gateway_that_has_seen_a_clock_run_ahead_still_goes_back_and_is_emptied(real: World) -> None:
    """D12."""
    canary = real.gateways["gw-1"]
    real.judge.says(UNDECIDED)
    rollout = await real.start(("gw-1",))
    await in_phase(rollout, Phase.OBSERVING)
    ahead = canary.owner[0] + 365 * 86_400_000
    canary.owner = (ahead, "edge-0")
    real.judge.says(UNHEALTHY)
    result = await soon(result_of(rollout))
    assert result.outcome is Outcome.ROLLED_BACK
    assert canary.owner[0] > ahead
    assert real.serving()["gw-1"] == "1.1.6"
    await until(lambda: "stop b" in canary.effects, SOON)


async def test_a_plan_whose_way_back_has_changed_meanwhile_is_refused_under_the_lock(
    recorded: Recorded,
) -> None:
    """D15."""
    world = recorded.world
    plan = world.plan(*ALL, release=NEXT)
    world.gateways["gw-2"].serve(NEW, "b")
    other = world.left_open(("gw-2",))
    recorded.ledger.record_known_good_batch(
        KnownGoodBatch(fleet="edge", change=other, releases={"gw-2": NEW})
    )
    recorded.ledger.close_change(
        ChangeEnding(change=other, outcome=Outcome.PROMOTED, sentence="every wave passed")
    )
    await recorded.service.start(plan, "http://repository", "ana", "new")
    result = await soon(result_of(recorded.service._change("edge")))
    assert result.outcome is Outcome.REFUSED
    assert "known-good of gw-2" in result.reason
    assert all("NEXT" not in effect for fake in world.gateways.values() for effect in fake.effects)
    assert world.serving() == {"gw-1": "1.1.6", "gw-2": "1.3.0", "gw-3": "1.1.6", "gw-4": "1.1.6"}


@pytest.mark.sweep
async def test_a_bake_that_goes_back_fetches_a_known_good_that_its_host_has_lost(recorded: Recorded) -> None:
    """D15."""
    world, host = recorded.world, recorded.world.gateways["gw-1"]
    world.judge.says(WATCHING, wave=0)
    await recorded.upgrade(*ALL)
    await until(lambda: "stop a" in host.effects, SOON)
    del host.staged[OLD.digest]
    world.judge.says(CRASHED, wave=0)
    await recorded.everybody_on(OLD)
    assert "stage 1.1.6" in host.effects


@pytest.mark.sweep
async def test_a_reconcile_fetches_a_known_good_that_its_host_has_lost(recorded: Recorded) -> None:
    """D15."""
    world, host = recorded.world, recorded.world.gateways["gw-1"]
    world.left_open(*ALL)
    recorded.ledger.add_release(OLD, source="http://repository", signers=("a", "b"), manifest_json="{}")
    host.serve(NEW, "b")
    host.crash("a")
    del host.staged[OLD.digest]
    assert (await recorded.reconcile()).strays.keys() == {"gw-1"}
    await recorded.everybody_on(OLD)
    assert "stage 1.1.6" in host.effects
