"""A way back that waits only for gateways which are silent or refuse holds nobody else up."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from temporalio.client import WithStartWorkflowOperation
from temporalio.common import WorkflowIDConflictPolicy

from activities.instances import Restored
from orchestrator.service.quarantine import QuarantineService
from policies.model.change import Outcome, Phase
from policies.model.command import CommandKind, CommandReceipt
from policies.model.errors import Conflict, Refused, Unavailable
from policies.model.instance import InstanceState
from policies.model.operation import Operation
from policies.model.plan import ReleaseRef
from policies.model.plan_part import PartKey
from policies.model.report import RestoreReport
from policies.model.verdict import Action, Decision, GateVerdict
from policies.model.way_back import RollbackAsked
from tests.fakes.control import HEALTHY, UNDECIDED
from tests.patience import until
from tests.workflows.recorded import SOON, Recorded, soon
from tests.workflows.world import NEW, NEXT, OLD, World, began_with, in_phase, lengthen, say, status_of
from workflows import change
from workflows.change import Change, ChangeRun
from workflows.identities import change_of
from workflows.steps import CONTROL_QUEUE

CRASHED = Decision(action=Action.ROLL_BACK, verdict=GateVerdict.HARD, reason="gw-1 restarted by itself")
FOR_LONG = 10_000
RING_1, RING_2 = ("gw-1", "gw-2"), ("gw-3", "gw-4")


def serve(recorded: Recorded, gateways: tuple[str, ...], version: str) -> bool:
    """Whether each of these gateways gives its new sessions to the release."""
    serving = recorded.world.serving()
    return all(serving[name] == version for name in gateways)


def dies(recorded: Recorded, name: str) -> None:
    recorded.world.gateways[name].fail("restore", Unavailable(f"{name} does not answer"), times=FOR_LONG)


async def ring_2_on_trial(recorded: Recorded) -> str:
    """Promote to ring 1, which is watched, and bring ring 2 on trial; return what promoted to ring 1."""
    world = recorded.world
    world.judge.says(UNDECIDED, wave=0)
    assert (await recorded.upgrade(RING_1)).outcome is Outcome.PROMOTED
    first = world.newest
    await until(lambda: bool(world.judge.bakes), SOON)
    world.judge.says(UNDECIDED)
    await recorded.start(RING_2)
    await in_phase(recorded.service._change("edge"), Phase.OBSERVING)
    return first


async def both_rings_promoted(recorded: Recorded) -> tuple[str, str]:
    """Promote to both rings, of which each is watched; return what promoted to each."""
    world = recorded.world
    world.judge.says(UNDECIDED, wave=0)
    assert (await recorded.upgrade(RING_1)).outcome is Outcome.PROMOTED
    first = world.newest
    await until(lambda: bool(world.judge.bakes), SOON)
    assert (await recorded.upgrade(RING_2)).outcome is Outcome.PROMOTED
    second = world.newest
    world.judge.bakes.clear()
    await until(lambda: {asked.change for asked in world.judge.bakes} == {first, second}, SOON)
    return first, second


# --- harm -----------------------------------------------------------------------------------


@pytest.mark.sweep
async def test_harm_in_one_ring_waits_for_no_dead_host_of_another(recorded: Recorded) -> None:
    """R3: the upgrade of ring 2 turned round and waited for its dead host, and ring 1 went on crashing."""
    first = await ring_2_on_trial(recorded)
    dies(recorded, "gw-3")
    recorded.world.judge.after[first] = CRASHED
    await until(lambda: serve(recorded, ("gw-4", *RING_1), "1.1.6"), SOON)
    await recorded.nothing_under_way()
    outcomes = {row.name: row.outcome for row in recorded.ledger.history("edge")}
    assert (outcomes["edge-3"], outcomes["edge-4"]) == (Outcome.ROLLBACK_INCOMPLETE, Outcome.ROLLED_BACK)
    sentence = recorded.ledger.change("edge-3").sentence
    assert "gw-1 restarted by itself" in sentence
    assert {one.gateway for one in recorded.ledger.quarantined("edge")} == {"gw-3"}


@pytest.mark.sweep
async def test_who_is_left_for_harm_elsewhere_is_brought_back_once_it_answers(recorded: Recorded) -> None:
    first = await ring_2_on_trial(recorded)
    dies(recorded, "gw-3")
    recorded.world.judge.after[first] = CRASHED
    await until(lambda: serve(recorded, RING_1, "1.1.6"), SOON)
    await recorded.nothing_under_way()
    recorded.world.gateways["gw-3"].recover("restore")
    assert recorded.ledger.clear_quarantine("edge", "gw-3", "penstock", "its first minute is over")
    await recorded.reconcile()
    await until(lambda: serve(recorded, RING_2, "1.1.6"), SOON)


@pytest.mark.sweep
async def test_a_ring_is_watched_while_another_goes_back_and_waits_for_a_dead_host(
    recorded: Recorded,
) -> None:
    """R7: the return of ring 1 ended the watch over ring 2, for as long as a host of ring 1 was dead."""
    first, second = await both_rings_promoted(recorded)
    dies(recorded, "gw-1")
    recorded.world.judge.after[first] = CRASHED
    await until(lambda: serve(recorded, ("gw-2",), "1.1.6"), SOON)
    recorded.world.judge.bakes.clear()
    await until(lambda: second in {asked.change for asked in recorded.world.judge.bakes}, SOON)
    assert await recorded.service.is_under_way("edge")
    recorded.world.judge.after[second] = CRASHED
    await until(lambda: serve(recorded, RING_2, "1.1.6"), SOON)


# --- a person's rollback -----------------------------------------------------------------------


async def only_waits_for(recorded: Recorded, name: str) -> None:
    """Wait until the way back under way has tried every gateway, and waits for that one alone.

    The change says so at once; the ledger, which answers before a rollback begins, a moment later.
    """

    async def does() -> bool:
        status = await recorded.status()
        story = recorded.ledger.story(recorded.world.newest)
        says = (status.waits_for, status.outcome) == ((name,), Outcome.ROLLBACK_INCOMPLETE)
        return says and story is not None and story.told.only_waits

    await until(does, SOON)


@pytest.mark.sweep
async def test_a_rollback_takes_back_the_ring_that_a_waiting_way_back_does_not(recorded: Recorded) -> None:
    """R1: it was answered with "Rolling back", and moved nobody."""
    world, service = recorded.world, recorded.service
    await ring_2_on_trial(recorded)
    dies(recorded, "gw-3")
    first = await service.roll_back(world.fleet, "ana", "users of ring 2 call")
    assert "rolls back already" not in first.sentence
    await only_waits_for(recorded, "gw-3")
    assert serve(recorded, RING_1, "1.3.0")
    shown = await service.rollback_preview(world.fleet, RollbackAsked(), None)
    assert shown.sentence == (
        "edge-3 rolls back already, and waits for gw-3: gw-3 does not answer; then gw-1, gw-2, gw-3 will "
        "serve 1.1.6"
    )
    receipt = await service.roll_back(world.fleet, "ana", "users of ring 1 call")
    assert receipt.sentence == (
        "edge-3 rolls back already, and waits for gw-3: gw-3 does not answer. "
        "Rolling back: gw-1, gw-2, gw-3 will serve 1.1.6."
    )
    await until(lambda: serve(recorded, (*RING_1, "gw-4"), "1.1.6"), SOON)


@pytest.mark.sweep
async def test_a_rollback_says_what_it_does_not_take_back(recorded: Recorded) -> None:
    """Decision 0050: who asks twice for the same rollback goes no release too far."""
    world, service = recorded.world, recorded.service
    assert (await recorded.upgrade()).outcome is Outcome.PROMOTED
    world.judge.says(UNDECIDED)
    await recorded.start(RING_1, release=NEXT)
    await in_phase(service._change("edge"), Phase.OBSERVING)
    dies(recorded, "gw-1")
    await service.roll_back(world.fleet, "ana", "users call")
    await only_waits_for(recorded, "gw-1")
    receipt = await service.roll_back(world.fleet, "bob", "users call")
    assert receipt.sentence == (
        "edge-3 rolls back already, and waits for gw-1: gw-1 does not answer. Nothing else is taken back: "
        "gw-2, gw-3, gw-4 serve 1.3.0; gw-1 is not back; another rollback after it takes 1.3.0 back, and one "
        "by name (--to 1.1.6) does so at once."
    )
    assert (receipt.only_waits, receipt.incomplete) == (True, True)
    assert await service.is_under_way("edge")
    assert serve(recorded, ("gw-2", *RING_2), "1.3.0")
    assert (await service.roll_back(world.fleet, "bob", "1.3.0 is bad, too", to=OLD)).accepted
    await until(lambda: serve(recorded, ("gw-2", *RING_2), "1.1.6"), SOON)


@pytest.mark.sweep
async def test_a_repeated_rollback_says_of_no_gateway_that_it_waits_for_what_serves_there(
    recorded: Recorded,
) -> None:
    """It said that the gateway which it could not steer served known-good, and named an old rollback."""
    world, service = recorded.world, recorded.service
    assert (await recorded.upgrade()).outcome is Outcome.PROMOTED
    await recorded.roll_back()
    world.judge.says(UNDECIDED)
    await recorded.start(RING_1)
    await in_phase(service._change("edge"), Phase.OBSERVING)
    busy = Unavailable("nft cannot list the table of gw-1: Device or resource busy")
    world.gateways["gw-1"].fail("restore", busy, times=FOR_LONG)
    await service.roll_back(world.fleet, "ana", "users call")
    await only_waits_for(recorded, "gw-1")
    nothing = "no other promotion can be taken back: gw-2, gw-3, gw-4 serve 1.1.6; gw-1 is not back"
    waits = f"{world.newest} rolls back already, and waits for gw-1: {busy}"
    shown = await service.rollback_preview(world.fleet, RollbackAsked(), None)
    assert shown.sentence == f"{waits}; nothing else is taken back: {nothing}"
    receipt = await service.roll_back(world.fleet, "ana", "users call")
    assert receipt.sentence == f"{waits}. Nothing else is taken back: {nothing}."
    assert (receipt.only_waits, receipt.incomplete) == (True, True)


# --- others beside a way back that only waits ---------------------------------------------------


async def waits_for_gw_3(recorded: Recorded) -> str:
    """Have ring 2 go back, which waits for its dead host; return that change."""
    await ring_2_on_trial(recorded)
    dies(recorded, "gw-3")
    await recorded.service.roll_back(recorded.world.fleet, "ana", "users of ring 2 call")
    await only_waits_for(recorded, "gw-3")
    return recorded.world.newest


@pytest.mark.parametrize("drifted", ["gw-1", pytest.param("gw-4", marks=pytest.mark.sweep)])
async def test_a_gateway_that_drifts_is_brought_back_while_a_way_back_only_waits(
    recorded: Recorded, drifted: str
) -> None:
    """R3: nobody started the daemon again that had died, for as long as another host was dead."""
    world = recorded.world
    way_back = await waits_for_gw_3(recorded)
    world.gateways[drifted].crash(world.gateways[drifted].target or "")
    assert world.serving()["gw-3"] == "1.3.0"
    tried = [*world.gateways["gw-3"].effects]

    async def is_back() -> bool:
        await recorded.reconcile()
        slot = world.gateways[drifted].slots[world.gateways[drifted].target or ""]
        return slot.state is InstanceState.RUNNING

    await until(is_back, SOON)
    await until(lambda: world.book.open_changes("edge") == (way_back,), SOON)
    assert (await recorded.status()).waits_for == ("gw-3",)
    assert world.newest == way_back
    assert world.gateways["gw-3"].effects == tried
    world.gateways["gw-3"].recover("restore")
    await until(lambda: serve(recorded, RING_2, "1.1.6"), SOON)
    await recorded.nothing_under_way()
    assert recorded.ledger.change(way_back).outcome is Outcome.ROLLED_BACK


@pytest.mark.sweep
async def test_an_upgrade_that_an_operator_starts_ends_a_way_back_that_only_waits(recorded: Recorded) -> None:
    way_back = await waits_for_gw_3(recorded)
    recorded.world.judge.says(HEALTHY)
    name = await recorded.start(("gw-4",))
    assert await recorded.service.ended_for(name) == (
        f"{way_back} ends without gateways that are not back, and penstock tries them later: "
        "gw-3: gw-3 does not answer."
    )
    await until(lambda: serve(recorded, ("gw-4",), "1.3.0"), SOON)
    await recorded.nothing_under_way()
    ended = recorded.ledger.change(way_back)
    assert (ended.outcome, recorded.ledger.change(name).outcome) == (
        Outcome.ROLLBACK_INCOMPLETE,
        Outcome.PROMOTED,
    )
    assert {one.gateway for one in recorded.ledger.quarantined("edge")} == {"gw-3"}
    recorded.world.gateways["gw-3"].recover("restore")
    assert recorded.ledger.clear_quarantine("edge", "gw-3", "penstock", "its first minute is over")
    await recorded.reconcile()
    await until(lambda: serve(recorded, ("gw-3",), "1.1.6"), SOON)


async def cut_amid_a_way_back(recorded: Recorded) -> ChangeRun:
    """Have the change under way continue as new; return with what it goes on."""
    under_way = recorded.service._change("edge")
    before = now = (await under_way.describe()).run_id

    async def is_cut() -> bool:
        nonlocal now
        now = (await under_way.describe()).run_id
        return now != before

    other = PartKey(wave=9, number=1)
    of_another = RestoreReport(at=datetime.now(UTC), number=99, part=other, change="edge-0", reason="old")
    await lengthen(under_way, "report_restore", of_another)
    await until(is_cut, SOON)
    run, _ = await began_with(recorded.world.client, under_way.id, ChangeRun, now)
    return run


@pytest.mark.parametrize(
    "by", ["an operator", "an operator after a report", pytest.param("harm", marks=pytest.mark.sweep)]
)
async def test_a_way_back_that_has_just_been_cut_gives_way_to_what_arrives_in_its_first_task(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """It answered that it ends, and waited on: the message came before this run knew its restores."""
    monkeypatch.setattr(change, "RESTORES_STILL", timedelta(seconds=1))
    client, way_back = recorded.world.client, await waits_for_gw_3(recorded)
    run = await cut_amid_a_way_back(recorded)
    # The same run once more, with a message that is there before its first task.
    await recorded.service._change("edge").terminate("the test begins it again")
    if by == "harm":
        await client.start_workflow(
            Change.run,
            run,
            id=change_of("edge"),
            task_queue=CONTROL_QUEUE,
            start_signal="harm",
            start_signal_args=["users of ring 1 call", "edge-1"],
        )
    elif by == "an operator after a report":
        late = RestoreReport(
            at=datetime.now(UTC),
            number=99,
            part=PartKey(wave=1, number=1),
            change=way_back,
            reason="users of ring 2 call",
            names=("gw-3",),
            missing={"gw-3": "gw-3 does not answer"},
            tried=True,
        )
        begun = await client.start_workflow(
            Change.run,
            run,
            id=change_of("edge"),
            task_queue=CONTROL_QUEUE,
            start_signal="report_restore",
            start_signal_args=[late],
        )
        sentence = await begun.execute_update("give_way", args=["ana", "another upgrade"], result_type=str)
        assert sentence.startswith(f"{way_back} ends without gateways that are not back")
    else:
        start = WithStartWorkflowOperation(
            Change.run,
            run,
            id=change_of("edge"),
            task_queue=CONTROL_QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
        )
        sentence = await client.execute_update_with_start_workflow(
            "give_way", args=["ana", "another upgrade"], start_workflow_operation=start, result_type=str
        )
        assert sentence.startswith(f"{way_back} ends without gateways that are not back")
    await recorded.nothing_under_way()
    assert recorded.ledger.change(way_back).outcome is Outcome.ROLLBACK_INCOMPLETE
    assert {one.gateway for one in recorded.ledger.quarantined("edge")} == {"gw-3"}


async def repeated(ask: Callable[[], Awaitable[CommandReceipt]]) -> str:
    """Repeat an order while the change before it writes its last lines; return all answers."""
    said = ""
    async with asyncio.timeout(SOON):
        while True:
            try:
                return said + (await ask()).sentence
            except Unavailable as error:
                said += f"{error} "


@pytest.mark.sweep
async def test_a_rollback_to_a_release_ends_a_way_back_that_only_waits(recorded: Recorded) -> None:
    """The release that a silent gateway has to leave stays bad for it."""
    world, service = recorded.world, recorded.service
    assert (await recorded.upgrade((*RING_1, *RING_2))).outcome is Outcome.PROMOTED
    dies(recorded, "gw-3")
    await service.roll_back(world.fleet, "ana", "users call")
    await only_waits_for(recorded, "gw-3")
    way_back = world.newest
    said = await repeated(lambda: service.roll_back(world.fleet, "ana", "it was not the release", to=NEW))
    assert said.startswith(
        f"{way_back} ends without gateways that are not back, and penstock tries them later: "
        "gw-3: gw-3 does not answer. "
    )
    assert "gw-3 is not back from 1.3.0 yet and does not stay on it" in said
    waiting = service._change("edge")
    plan = (await status_of(waiting)).confirm
    await say(waiting, CommandKind.APPROVE, person="bob", approves=plan)
    await recorded.nothing_under_way()
    assert serve(recorded, (*RING_1, "gw-4"), "1.3.0")
    assert recorded.ledger.known_good("edge")["gw-3"] == OLD


@pytest.mark.sweep
async def test_a_rollback_to_a_release_that_has_nothing_to_do_ends_nothing(recorded: Recorded) -> None:
    way_back = await waits_for_gw_3(recorded)
    with pytest.raises(Refused):
        await recorded.service.roll_back(recorded.world.fleet, "ana", "users call", to=NEXT)
    assert recorded.ledger.open_changes("edge") == (way_back,)


@pytest.mark.sweep
async def test_a_change_that_does_more_than_wait_keeps_an_upgrade_out(recorded: Recorded) -> None:
    await ring_2_on_trial(recorded)
    with pytest.raises(Conflict):
        await recorded.start(RING_1, release=NEXT)


# --- a rollback by force ----------------------------------------------------------------------


@pytest.mark.sweep
async def test_after_a_rollback_by_force_nobody_tries_a_gateway_that_a_person_gave_up(
    recorded: Recorded,
) -> None:
    """R9: the way back that it ended went on trying, heard no quarantine, and fenced later changes off."""
    world, service = recorded.world, recorded.service
    refusing, tries = world.gateways["gw-4"], list[str]()
    world.judge.says(UNDECIDED)
    ended = await recorded.start((*RING_1, *RING_2))
    await in_phase(service._change("edge"), Phase.OBSERVING)
    original = refusing.restore

    async def counted(operation: Operation, release: ReleaseRef, **more: Any) -> Restored:
        tries.append(operation.rollout)
        return await original(operation, release, **more)

    refusing.restore = counted  # type: ignore[method-assign]
    dies(recorded, "gw-4")
    await service.roll_back(world.fleet, "ana", "users call")
    await only_waits_for(recorded, "gw-4")
    await service.roll_back(world.fleet, "ana", "it hangs", force=True)
    before = world.client.get_workflow_handle(f"change/edge/{ended}/restore")
    left = await soon(before.result())
    assert set(left["given_up"].values()) == {"left to the rollback that ana ordered by force"}
    await only_waits_for(recorded, "gw-4")
    await QuarantineService(service).leave_out(world.fleet, ["gw-4"], "ana", "I mend this host")
    await recorded.nothing_under_way()
    assert set(tries) == {ended, world.newest}


async def way_back_half_done(recorded: Recorded, turn: asyncio.Event) -> str:
    """Have harm take a promotion back, with ring 2 waiting for its turn; return that way back."""
    world = recorded.world
    world.judge.says(UNDECIDED, wave=0)
    assert (await recorded.upgrade((*RING_1, *RING_2))).outcome is Outcome.PROMOTED
    promoted = world.newest
    await until(lambda: bool(world.judge.bakes), SOON)
    for name in RING_2:
        fake = world.gateways[name]

        async def later(*arguments: Any, _original: Any = fake.restore, **more: Any) -> Any:
            await turn.wait()
            return await _original(*arguments, **more)

        fake.restore = later  # type: ignore[method-assign]
    world.judge.after[promoted] = CRASHED
    await until(lambda: serve(recorded, RING_1, "1.1.6"), SOON)
    return world.newest


@pytest.mark.sweep
@pytest.mark.parametrize("to", [None, OLD])
async def test_a_rollback_by_force_amid_a_way_back_takes_every_gateway_of_it_back(
    recorded: Recorded, to: ReleaseRef | None
) -> None:
    """R1: known-good had moved for all of them at once, so there was nothing to do, and half stayed."""
    world, turn = recorded.world, asyncio.Event()
    ended = await way_back_half_done(recorded, turn)
    receipt = await recorded.service.roll_back(world.fleet, "ana", "it is slow", to=to, force=True, key="one")
    assert receipt.accepted, receipt.sentence
    assert "gw-1, gw-2, gw-3, gw-4 will serve 1.1.6" in receipt.sentence
    again = await recorded.service.roll_back(world.fleet, "ana", "it is slow", to=to, force=True, key="one")
    assert again.sentence == f"{receipt.id} has begun."
    left = await soon(world.client.get_workflow_handle(f"change/edge/{ended}/restore").result())
    assert left["given_up"].keys() == {*RING_2}
    turn.set()
    await until(lambda: serve(recorded, (*RING_1, *RING_2), "1.1.6"), SOON)
    await recorded.nothing_under_way()
    assert (recorded.ledger.change(receipt.id).outcome, recorded.ledger.open_changes("edge")) == (
        Outcome.ROLLED_BACK,
        (),
    )


@pytest.mark.sweep
async def test_a_rollback_by_force_that_cannot_begin_leaves_the_way_back_going_on(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, turn = recorded.world, asyncio.Event()
    await way_back_half_done(recorded, turn)

    def moves(*_: Any) -> Any:
        raise Unavailable("the ledger does not answer")

    with monkeypatch.context() as patched:
        patched.setattr(world.book, "moves", moves)
        with pytest.raises(Unavailable):
            await recorded.service.roll_back(world.fleet, "ana", "it is slow", force=True)
    turn.set()
    await until(lambda: serve(recorded, (*RING_1, *RING_2), "1.1.6"), SOON)


@pytest.mark.sweep
async def test_a_rollback_completes_a_way_back_of_penstock_that_the_engine_has_lost(
    recorded: Recorded,
) -> None:
    world, turn = recorded.world, asyncio.Event()
    lost = await way_back_half_done(recorded, turn)
    for workflow in ("change/edge", f"change/edge/{lost}/restore"):
        await world.client.get_workflow_handle(workflow).terminate("the engine lost it")
    shown = await recorded.service.rollback_preview(world.fleet, RollbackAsked(), None)
    assert shown.sentence == (
        f"{lost} has not ended, and is completed: gw-1, gw-2, gw-3, gw-4 will serve 1.1.6"
    )
    receipt = await recorded.service.roll_back(world.fleet, "ana", "users call", shown=shown.digest)
    assert receipt.sentence == f"Rolling back: {shown.sentence}."
    turn.set()
    await until(lambda: serve(recorded, (*RING_1, *RING_2), "1.1.6"), SOON)


@pytest.mark.sweep
@pytest.mark.parametrize("newer", [True, False])
async def test_a_way_back_outranks_an_older_change_and_never_a_newer_one(world: World, newer: bool) -> None:
    """R9: it raised its epoch above that of the change that somebody began after its own."""
    gateway, change = world.gateways["gw-1"], "edge-7"
    gateway.serve(NEW, "b")
    gateway.owner = (time.time_ns() // 1_000_000 + 60_000, "edge-8" if newer else "edge-6")
    back = await world.restore("gw-1", change=change)
    result = await soon(back.result())
    assert (gateway.serving, result.back) == (("b", 0) if newer else ("a", 1))
    assert list(result.given_up) == (["gw-1"] if newer else [])
