"""What people can say to a rollout, at every phase, and what it answers."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any, ClassVar

import pytest
from temporalio import workflow
from temporalio.client import (
    WorkflowExecutionStatus,
    WorkflowHandle,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError
from temporalio.worker import (
    Interceptor,
    StartChildWorkflowInput,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
    WorkflowOutboundInterceptor,
)
from temporalio.workflow import ChildWorkflowHandle

from policies.model.change import ChangeResult, KnownGoodBatch, Outcome, Phase
from policies.model.command import Command, CommandKind, CommandReceipt
from policies.model.errors import Refused, Unavailable
from policies.model.offer import Verb
from tests.fakes.control import HEALTHY, UNDECIDED, UNHEALTHY
from tests.patience import until
from tests.workflows.engine import Engine
from tests.workflows.recorded import blocked, soon
from tests.workflows.world import (
    NEW,
    OLD,
    Running,
    World,
    fleet_of,
    in_phase,
    refusal_of,
    result_of,
    run_of,
    say,
    status_of,
    working,
)
from workflows.change import Change
from workflows.commands import LONGEST_KEPT, Receipts


@pytest.mark.sweep
async def test_while_held_nobody_else_starts_and_leases_are_still_confirmed(world: World) -> None:
    world.judge.says(UNDECIDED)
    rollout = await world.start(("gw-1",), ("gw-2",))
    await in_phase(rollout, Phase.OBSERVING)
    receipt = await say(rollout, CommandKind.HOLD, reason="the helpdesk is busy")
    assert receipt.sentence.startswith("Held.")
    world.judge.says(HEALTHY)
    await in_phase(rollout, Phase.HELD)
    status = await status_of(rollout)
    assert status.why == "held by on call: the helpdesk is busy"
    assert Verb.RESUME in {offer.verb for offer in status.can_do}
    looked = len(world.judge.orders)
    await until(lambda: len(world.judge.orders) > looked)
    assert world.gateways["gw-2"].effects == []
    assert world.serving()["gw-1"] == "1.3.0"


@pytest.mark.sweep
async def test_a_hold_before_the_first_wave_begins_is_kept_until_the_resume(world: World) -> None:
    rollout = await world.start(("gw-1",))
    await say(rollout, CommandKind.HOLD, reason="not before lunch")
    await asyncio.sleep(1)
    assert world.gateways["gw-1"].effects == []
    assert (await status_of(rollout)).why == "held by on call: not before lunch"
    await say(rollout, CommandKind.RESUME)
    assert (await result_of(rollout)).outcome is Outcome.PROMOTED


@pytest.mark.sweep
async def test_a_resume_lets_a_held_rollout_go_on(world: World) -> None:
    world.judge.says(UNDECIDED)
    rollout = await world.start(("gw-1",), ("gw-2",))
    await in_phase(rollout, Phase.OBSERVING)
    await say(rollout, CommandKind.HOLD)
    world.judge.says(HEALTHY)
    await in_phase(rollout, Phase.HELD)
    await say(rollout, CommandKind.RESUME)
    assert (await result_of(rollout)).outcome is Outcome.PROMOTED


@pytest.mark.sweep
async def test_a_promotion_without_proof_is_remembered_by_who_said_so(world: World) -> None:
    world.judge.says(UNDECIDED)
    world.judge.says(UNDECIDED, wave=2)
    rollout = await world.start(("gw-1",), ("gw-2",))

    async def is_judged() -> bool:
        return (await status_of(rollout)).decision is not None

    await until(is_judged)
    first = await say(rollout, CommandKind.PROMOTE, "ana")
    second = await say(rollout, CommandKind.PROMOTE, "ben")
    assert first.sentence.startswith("1 of 2 votes, by ana: nothing follows until one more person says so")
    assert second.sentence.startswith("2 of 2 votes, by ana and ben: wave 1 goes on without proof")
    await in_phase(rollout, Phase.OBSERVING, wave=2)
    world.judge.says(HEALTHY, wave=2)
    result = await result_of(rollout)
    assert result.outcome is Outcome.PROMOTED
    assert result.reason.startswith("wave 1 was promoted by ana and ben against: ")


async def test_proven_harm_rolls_back_in_the_middle_of_a_hold(world: World) -> None:
    world.judge.says(UNDECIDED)
    rollout = await world.start(("gw-1",))
    await in_phase(rollout, Phase.OBSERVING)
    await say(rollout, CommandKind.HOLD)
    world.judge.says(UNHEALTHY)
    assert (await result_of(rollout)).outcome is Outcome.ROLLED_BACK


@pytest.mark.sweep
async def test_a_gateway_that_fails_during_a_hold_is_noticed_before_the_resume(world: World) -> None:
    world.gateways["gw-1"].fail("start", Refused("gw-1: the disk is full"))
    async with blocked(world.gateways["gw-1"], "stage") as staging:
        rollout = await world.start(("gw-1", "gw-2", "gw-3"))
        await soon(staging.wait())
        await say(rollout, CommandKind.HOLD)
    assert (await result_of(rollout)).outcome is Outcome.ROLLED_BACK


async def test_an_abort_before_any_session_moved_ends_as_aborted(world: World) -> None:
    rollout = await world.start(("gw-1",))
    await say(rollout, CommandKind.ABORT, "ana", reason="wrong release")
    result = await result_of(rollout)
    assert (result.outcome, result.reason) == (Outcome.ABORTED, "ana: wrong release")
    assert not [effect for effect in world.gateways["gw-1"].effects if effect.startswith("steer b")]


async def test_an_abort_after_sessions_moved_is_refused_with_what_to_do_instead(world: World) -> None:
    world.judge.says(UNDECIDED)
    rollout = await world.start(("gw-1",))
    await in_phase(rollout, Phase.OBSERVING)
    sentence = await refusal_of(say(rollout, CommandKind.ABORT))
    assert sentence == "sessions have moved already"


async def test_a_rollback_before_the_first_wave_begins_touches_nothing(world: World) -> None:
    rollout = await world.start(("gw-1",))
    await say(rollout, CommandKind.ROLL_BACK, "ana", reason="not today")
    result = await result_of(rollout)
    assert (result.outcome, result.reason) == (Outcome.ROLLED_BACK, "ana: not today")
    assert world.serving()["gw-1"] == "1.1.6"


@pytest.mark.sweep
async def test_a_rollback_while_gateways_switch_brings_back_those_that_had(world: World) -> None:
    rollout = await world.start(("gw-1", "gw-2", "gw-3"))
    await until(lambda: "stage 1.3.0" in world.gateways["gw-1"].effects)
    await say(rollout, CommandKind.ROLL_BACK, "ana")
    assert (await result_of(rollout)).outcome is Outcome.ROLLED_BACK
    assert set(world.serving().values()) == {"1.1.6"}


@pytest.mark.sweep
async def test_a_rollback_while_watching_brings_the_wave_back(world: World) -> None:
    world.judge.says(UNDECIDED)
    rollout = await world.start(("gw-1",))
    await in_phase(rollout, Phase.OBSERVING)
    await say(rollout, CommandKind.ROLL_BACK, "ana", reason="users call")
    result = await result_of(rollout)
    assert (result.outcome, result.reason) == (Outcome.ROLLED_BACK, "ana: users call")
    assert world.serving()["gw-1"] == "1.1.6"


@pytest.mark.sweep
async def test_a_rollback_between_two_waves_brings_the_first_back(world: World) -> None:
    world.gateways["gw-2"].fail("stage", Unavailable("gw-2 is busy"), times=10_000)
    rollout = await world.start(("gw-1",), ("gw-2",))
    await until(lambda: "keep b" in world.gateways["gw-1"].effects)
    await say(rollout, CommandKind.ROLL_BACK, "cy")
    assert (await result_of(rollout)).outcome is Outcome.ROLLED_BACK
    assert world.serving()["gw-1"] == "1.1.6"
    assert "start b" not in world.gateways["gw-2"].effects


@pytest.mark.sweep
async def test_a_rollback_while_rolling_back_changes_neither_the_end_nor_the_cause(world: World) -> None:
    world.judge.says(UNDECIDED)
    rollout = await world.start(("gw-1",))
    await in_phase(rollout, Phase.OBSERVING)
    world.gateways["gw-1"].fail("end_trial", Refused("gw-1: nft says no"), times=10_000)
    world.judge.says(UNHEALTHY)
    await in_phase(rollout, Phase.ROLLING_BACK)
    await say(rollout, CommandKind.ROLL_BACK, "ana")
    sentence = await refusal_of(say(rollout, CommandKind.HOLD))
    assert sentence == f"{world.newest} is rolling back; nothing else can be ordered until it has"
    world.gateways["gw-1"]._failures.clear()
    result = await result_of(rollout)
    assert (result.outcome, result.reason) == (Outcome.ROLLED_BACK, "9 of 10 logins fail")


@pytest.mark.sweep
async def test_the_same_command_twice_is_one_order(world: World) -> None:
    world.judge.says(UNDECIDED)
    rollout = await world.start(("gw-1",))
    await in_phase(rollout, Phase.OBSERVING)
    receipts = [await say(rollout, CommandKind.HOLD, command_id="hold-1") for _ in range(2)]
    assert receipts[0] == receipts[1]
    said = [e.sentence for e in (await status_of(rollout)).events if e.sentence.startswith("on call:")]
    assert said == ["on call: hold (because)"]


@pytest.mark.sweep
async def test_the_same_id_with_other_words_is_a_conflict(world: World) -> None:
    world.judge.says(UNDECIDED)
    rollout = await world.start(("gw-1",))
    await in_phase(rollout, Phase.OBSERVING)
    # By the other road first: the engine answers a repeated update itself, whatever it says.
    await rollout.signal(Change.command_fallback, _hold("hold-1"))
    await until(lambda: _heard(rollout))
    sentence = await refusal_of(say(rollout, CommandKind.RESUME, command_id="hold-1"))
    assert sentence == "command hold-1 was given before with other words"


@pytest.mark.sweep
async def test_an_order_by_the_durable_road_counts_once_with_its_update(world: World) -> None:
    world.judge.says(UNDECIDED)
    rollout = await world.start(("gw-1",))
    await in_phase(rollout, Phase.OBSERVING)
    command = _hold("hold-1")
    await rollout.signal(Change.command_fallback, command)
    await rollout.signal(Change.command_fallback, command)
    await say(rollout, command.kind, command.person, command.id, command.reason)
    said = [e.sentence for e in (await status_of(rollout)).events if e.sentence.startswith("on call:")]
    assert said == ["on call: hold (because)"]


@pytest.mark.sweep
async def test_a_rollback_by_the_durable_road_goes_back(world: World) -> None:
    world.judge.says(UNDECIDED)
    rollout = await world.start(("gw-1",))
    await in_phase(rollout, Phase.OBSERVING)
    order = Command(id="back-1", kind=CommandKind.ROLL_BACK, person="ana", reason="users call")
    await rollout.signal(Change.command_fallback, order)
    assert (await result_of(rollout)).outcome is Outcome.ROLLED_BACK


@pytest.mark.sweep
@pytest.mark.parametrize("kind", [CommandKind.RESUME, CommandKind.PROMOTE])
async def test_orders_in_the_last_moment_of_a_wave_end_nothing(real: World, kind: CommandKind) -> None:
    rollout = await real.start(("gw-1",), ("gw-2",), ("gw-3",))
    while (await rollout.describe()).status is WorkflowExecutionStatus.RUNNING:
        # An order that meets the end may never be answered: the service waits no longer, either.
        with suppress(WorkflowUpdateFailedError, WorkflowUpdateRPCTimeoutOrCancelledError, RPCError):
            await say(rollout, kind, patience=timedelta(seconds=2))
    assert (await result_of(rollout)).outcome is Outcome.PROMOTED


@asynccontextmanager
async def half_promoted(world: World) -> AsyncIterator[Running]:
    """Start an upgrade, and have the ledger not take the promotion of its second part during the block."""
    write, asked = world.book.record_known_good_batch, list[str]()

    def away(batch: KnownGoodBatch) -> int:
        asked.extend(batch.releases)
        if "gw-2" in batch.releases:
            raise Unavailable("the ledger does not answer")
        return write(batch)

    world.book.record_known_good_batch = away  # type: ignore[method-assign]
    rollout = await world.start(("gw-1",), ("gw-2",))
    await until(lambda: "gw-2" in asked)
    try:
        yield rollout
    finally:
        world.book.record_known_good_batch = write  # type: ignore[method-assign]


@pytest.mark.sweep
async def test_an_order_to_go_back_in_the_middle_of_the_promotion_is_carried_out(world: World) -> None:
    async with half_promoted(world) as rollout:
        await say(rollout, CommandKind.ROLL_BACK, reason="users call")
    result = await result_of(rollout)
    assert (result.outcome, result.reason) == (Outcome.ROLLED_BACK, "on call: users call")
    assert set(world.serving().values()) == {"1.1.6"}
    assert set(world.book.known_good(world.fleet.name).values()) == {OLD}
    assert [ending.outcome for ending in world.book.closed] == [Outcome.ROLLED_BACK]


async def _heard(rollout: WorkflowHandle[Change, ChangeResult]) -> bool:
    status = await status_of(rollout)
    return any(event.sentence == "on call: hold (because)" for event in status.events)


def _hold(name: str) -> Command:
    return Command(id=name, kind=CommandKind.HOLD, person="on call", reason="because")


class _SlowToStart(WorkflowOutboundInterceptor):
    """An engine that starts a wave only after a hold was heard, as one may whose worker is away just then."""

    starting: ClassVar[list[str]] = []

    async def start_child_workflow(self, input: StartChildWorkflowInput) -> ChildWorkflowHandle[Any, Any]:  # noqa: A002
        if input.workflow == "Wave":
            self.starting.append(workflow.info().workflow_id)
            change = workflow.instance()
            await workflow.wait_condition(lambda: change.status().why.startswith("held by"))
        return await super().start_child_workflow(input)


class _Inbound(WorkflowInboundInterceptor):
    def init(self, outbound: WorkflowOutboundInterceptor) -> None:
        super().init(_SlowToStart(outbound))


class _Slowly(Interceptor):
    def workflow_interceptor_class(self, input: WorkflowInterceptorClassInput) -> type[_Inbound]:  # noqa: A002
        return _Inbound


@pytest.mark.sweep
async def test_a_hold_that_comes_while_a_wave_is_being_started_holds_it(server: Engine) -> None:
    fleet = fleet_of("edge", lease=timedelta(seconds=15))
    async with working(World.made(await server.client(), fleet), [_Slowly()]) as world:
        rollout = await world.start(("gw-1",))
        await until(lambda: rollout.id in _SlowToStart.starting)
        await say(rollout, CommandKind.HOLD, "ana")
        await in_phase(rollout, Phase.HELD)
        await asyncio.sleep(2)
        assert "keep b" not in world.gateways["gw-1"].effects
        assert (await status_of(rollout)).why == "held by ana: because"
        await say(rollout, CommandKind.RESUME, "ana")
        assert (await result_of(rollout)).outcome is Outcome.PROMOTED


@pytest.mark.sweep
async def test_a_hold_that_comes_before_any_wave_starts_nobody(real: World) -> None:
    async with blocked(real.gateways["gw-1"], "preflight") as asked:
        rollout = await real.start(("gw-1",))
        await soon(asked.wait())
        await say(rollout, CommandKind.HOLD, "ana")
    await in_phase(rollout, Phase.HELD, wave=0)
    assert (await status_of(rollout)).why == "held by ana: because"
    assert real.gateways["gw-1"].effects == []
    await say(rollout, CommandKind.RESUME, "ana")
    assert (await result_of(rollout)).outcome is Outcome.PROMOTED


async def _says(rollout: Running, words: str) -> bool:
    return any(words in event.sentence for event in (await status_of(rollout)).events)


@pytest.mark.sweep
async def test_a_hold_while_the_last_wave_is_being_kept_keeps_known_good_where_it_is(world: World) -> None:
    world.gateways["gw-1"].fail("make_permanent", Unavailable("gw-1 is slow"), times=6)
    rollout = await world.start(("gw-1",))
    await in_phase(rollout, Phase.PROMOTING)
    await say(rollout, CommandKind.HOLD, "ana")
    await until(lambda: "keep b" in world.gateways["gw-1"].effects)
    await asyncio.sleep(1)
    assert world.book.known_good(world.fleet.name)["gw-1"] == OLD
    await say(rollout, CommandKind.RESUME, "ana")
    assert (await result_of(rollout)).outcome is Outcome.PROMOTED
    assert world.book.known_good(world.fleet.name)["gw-1"] == NEW


@pytest.mark.sweep
async def test_a_stored_command_that_makes_no_sense_any_more_is_answered_in_the_story(world: World) -> None:
    world.judge.says(UNDECIDED)
    rollout = await world.start(("gw-1",))
    await in_phase(rollout, Phase.OBSERVING)
    stored = Command(
        id="stored-1",
        kind=CommandKind.PROMOTE,
        person="release engineer",
        reason="looks good",
        run=await run_of(rollout),
    )
    await rollout.signal(Change.command_fallback, stored)
    await until(lambda: _says(rollout, "release engineer: promote refused: "))
    await until(lambda: "promote refused" in [action for action, _, _ in world.book.events.values()])


@pytest.mark.sweep
async def test_a_stored_abort_is_a_rollback_once_sessions_have_moved(world: World) -> None:
    world.judge.says(UNDECIDED)
    rollout = await world.start(("gw-1",))
    await in_phase(rollout, Phase.OBSERVING)
    stored = Command(id="stored-1", kind=CommandKind.ABORT, person="ana", reason="wrong release")
    await rollout.signal(Change.command_fallback, stored)
    result = await result_of(rollout)
    assert (result.outcome, result.reason) == (Outcome.ROLLED_BACK, "ana: wrong release")


@pytest.mark.sweep
def test_a_repeat_is_told_from_other_words_of_the_same_id_also_where_a_thousand_gateways_are_named() -> None:
    receipts, names = Receipts(), tuple(f"gw-{number:04}" for number in range(1000))
    for given in (
        Command(id="1", kind=CommandKind.HOLD, person="ana", reason="users call"),
        Command(id="2", kind=CommandKind.QUARANTINE, person="ana", reason="no power", gateways=names),
    ):
        receipts.keep(given, CommandReceipt(id=given.id, accepted=True, sentence="done"))
        receipts.refuse_other_content(given)
        with pytest.raises(ApplicationError, match="was given before with other words"):
            receipts.refuse_other_content(given.model_copy(update={"reason": "another"}))
    assert len(json.dumps(receipts.dump(), default=str)) < LONGEST_KEPT


@pytest.mark.sweep
def test_a_command_that_was_kept_by_a_penstock_that_spelled_it_otherwise_is_the_same_command() -> None:
    given = Command(id="k1", kind=CommandKind.ROLL_BACK, person="ana", reason="users call")
    spelled = json.dumps(given.model_dump(mode="json") | {"gateway": None})  # as one named a gateway before
    receipts = Receipts({"k1": (spelled, CommandReceipt(id="k1", accepted=True, sentence="Rolling back."))})
    receipts.refuse_other_content(given)
    with pytest.raises(ApplicationError, match="was given before with other words"):
        receipts.refuse_other_content(given.model_copy(update={"reason": "another"}))
