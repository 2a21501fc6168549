"""The ring behind the rings: what nobody looks after is found by its facts, and by nothing else."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from temporalio.client import ScheduleOverlapPolicy, WorkflowExecutionStatus, WorkflowHandle
from temporalio.service import RPCError

from orchestrator.engine.schedules import have_reconcile, keep_reconciling, reconcile_of
from orchestrator.service.changes import ChangeService
from orchestrator.service.quarantine import QuarantineService
from policies.model.change import (
    PENSTOCK,
    ChangeKind,
    ChangeOrder,
    ChangeResult,
    Outcome,
    Phase,
    Quarantine,
)
from policies.model.command import Command, CommandKind
from policies.model.errors import BadInput, Conflict, Refused, Unavailable
from policies.model.instance import GatewayState
from tests.fakes.control import UNDECIDED
from tests.patience import until
from tests.workflows.engine import Engine, engine
from tests.workflows.world import NEW, OLD, World, fleet_of, in_phase, reconcile, result_of, working
from workflows.change import Change, ChangeRun
from workflows.identities import change_of
from workflows.steps import CONTROL_QUEUE

SOON = 30.0
"""Seconds within which a lock that is bounded to a few of them is free, on a busy machine."""


@pytest.mark.sweep
async def test_an_orphan_on_trial_is_brought_back(world: World) -> None:
    canary = world.gateways["gw-1"]
    canary.serve(NEW, "b")
    canary.serve(OLD, "a")
    canary.trial, canary.trial_ends = "b", canary.now() + timedelta(hours=1)
    found = await reconcile(world)
    assert found.strays == {"gw-1": "has slot b on trial"}
    await until(lambda: canary.target == "a")
    assert world.gateways["gw-2"].effects == []


async def test_an_orphan_made_permanent_is_brought_back(world: World) -> None:
    canary = world.gateways["gw-1"]
    canary.serve(NEW, "b")
    found = await reconcile(world)
    assert found.strays == {"gw-1": "runs a release that is not its known-good 1.1.6"}
    await until(lambda: canary.serving == "a")


@pytest.mark.sweep
async def test_a_fleet_in_the_middle_of_a_change_is_left_to_it(world: World) -> None:
    world.judge.says(UNDECIDED)
    rollout = await world.start(("gw-1",))
    await in_phase(rollout, Phase.OBSERVING)
    owner = world.gateways["gw-1"].owner
    found = await reconcile(world)
    assert found.sentence == "a change is under way and looks after them"
    assert world.gateways["gw-1"].owner == owner
    assert world.serving()["gw-1"] == "1.3.0"


async def test_a_fleet_on_its_known_good_is_not_touched(world: World) -> None:
    found = await reconcile(world)
    assert found.sentence == "every gateway is on its known-good"
    assert all(fake.owner == (0, "") for fake in world.gateways.values())


async def test_an_older_copy_of_the_ledger_moves_nobody(world: World) -> None:
    first, second = (world.gateways[name] for name in ("gw-1", "gw-2"))
    for changed in (first, second):
        changed.serve(NEW, "b")
        changed.generation = "edge-7/1"
    found = await reconcile(world)
    assert found.strays == {}
    assert found.sentence == (
        "the ledger is older than its gateways: gw-1 was last steered by edge-7, "
        "of which the ledger knows nothing, and 1 more were; no upgrade takes them along"
    )
    assert first.effects == second.effects == []


async def test_a_gateway_that_lies_about_who_steered_it_keeps_no_other_from_going_back(world: World) -> None:
    world.gateways["gw-1"].generation = "edge-999/1"
    orphan = world.gateways["gw-2"]
    orphan.serve(NEW, "b")
    found = await reconcile(world)
    assert found.strays.keys() == {"gw-2"}
    await until(lambda: orphan.serving == "a")


async def test_a_change_that_ended_while_reconcile_looked_leaves_no_other_in_the_history(
    world: World,
) -> None:
    """Reconcile saw gateways on trial twice, and got the lock in the second of the promotion."""
    order = ChangeOrder(
        fleet=world.fleet.name,
        kind=ChangeKind.GO_BACK,
        bakes_on=True,
        reason="nobody looks after this change any more",
    )
    result = await world.client.execute_workflow(
        Change.run, ChangeRun(order=order), id=change_of(world.fleet.name), task_queue=CONTROL_QUEUE
    )
    assert result.reason == "every gateway is on its known-good already"
    assert [row.name for row in world.book.history(world.fleet.name)] == ["edge-1"]
    assert all(fake.effects == [] for fake in world.gateways.values())


async def test_a_gateway_that_serves_nothing_after_a_reboot_gets_its_known_good_again(world: World) -> None:
    rebooted = world.gateways["gw-3"]
    rebooted.crash("a")
    rebooted.serving = None
    found = await reconcile(world)
    assert found.strays == {"gw-3": "sends new sessions nowhere"}
    await until(lambda: world.serving()["gw-3"] == "1.1.6")
    assert rebooted.login("192.0.2.1") is not None


@pytest.mark.sweep
async def test_a_silent_gateway_is_not_judged(world: World) -> None:
    world.gateways["gw-1"].serve(NEW, "b")
    world.gateways["gw-1"].fail("observe", Unavailable("gw-1 does not answer"), times=10_000)
    assert (await reconcile(world)).strays == {}


async def test_a_rollout_nobody_ended_is_closed_in_the_ledger(world: World) -> None:
    left = world.left_open()
    found = await reconcile(world)
    assert (found.strays, found.open_changes) == ({}, (left,))
    await until(lambda: world.book.open_changes(world.fleet.name) == ())
    assert {ending.outcome for ending in world.book.closed} == {Outcome.ROLLED_BACK}
    assert all(fake.effects == [] for fake in world.gateways.values())


@pytest.mark.sweep
async def test_what_a_rollout_nobody_ended_left_running_is_emptied_and_stopped(world: World) -> None:
    world.left_open()
    canary = world.gateways["gw-1"]
    canary.serve(NEW, "b")
    canary.serve(OLD, "a")
    found = await reconcile(world)
    assert found.strays == {}
    await until(lambda: canary.slots["b"].state == "stopped")
    assert canary.serving == "a"
    assert world.gateways["gw-2"].effects == []


@pytest.fixture
def service(real: World) -> ChangeService:
    return ChangeService(real.client, real.book)


async def promoted(real: World, service: ChangeService) -> None:
    name = await service.start(real.plan(("gw-1",), ("gw-2",)), "http://repository", "ana", "new")
    assert name == "edge-2"
    assert (await result_of(service._change("edge"))).outcome is Outcome.PROMOTED


@pytest.mark.sweep
async def test_a_start_that_is_sent_again_is_the_same_upgrade(real: World, service: ChangeService) -> None:
    real.judge.says(UNDECIDED)
    plan = real.plan(("gw-1",), ("gw-2",))

    async def start(key: str) -> str | None:
        return await service.start(plan, "http://repository", "ana", "new", key=key)

    names = await asyncio.gather(*[start("ana/one") for _ in range(5)])
    assert {*names} == {"edge-2"}
    with pytest.raises(Conflict, match="a change of edge is under way"):
        await start("ana/two")
    assert await start("ana/one") == "edge-2"
    await service.roll_back(real.fleet, "ana", "enough")
    await service.client.get_workflow_handle("change/edge").result()
    assert await start("ana/one") == "edge-2"
    assert [row.name for row in real.book.history("edge")] == ["edge-2", "edge-1"]


@pytest.mark.sweep
async def test_a_start_waits_for_a_look_that_finds_nothing_to_do(real: World, service: ChangeService) -> None:
    real.judge.says(UNDECIDED)
    real.gateways["gw-1"].fail("observe", Unavailable("gw-1 does not answer"), times=10_000)
    order = ChangeOrder(fleet="edge", kind=ChangeKind.GO_BACK, bakes_on=True, reason="nobody looks after it")
    look = await service.client.start_workflow(
        Change.run, ChangeRun(order=order), id=change_of("edge"), task_queue=CONTROL_QUEUE
    )
    assert await service.is_under_way("edge")
    name = await service.start(real.plan(("gw-2",)), "http://repository", "ana", "new")
    assert name == "edge-2"
    assert (await look.result()).reason == "every gateway is on its known-good already"
    with pytest.raises(Conflict, match="a change of edge is under way"):
        await service.start(real.plan(("gw-2",)), "http://repository", "ana", "again")
    await service.roll_back(real.fleet, "ana", "enough")
    assert [row.name for row in real.book.history("edge")] == ["edge-2", "edge-1"]


@pytest.mark.sweep
async def test_a_rollback_after_promotion_moves_the_fleet_and_its_known_good_once(
    real: World, service: ChangeService
) -> None:
    await promoted(real, service)
    assert set(real.serving().values()) == {"1.3.0", "1.1.6"}
    said = await service.roll_back(real.fleet, "ana", "users call")
    assert said.sentence == (
        "Rolling back: 1.3.0, promoted by edge-2, is taken back: gw-1, gw-2 will serve 1.1.6."
    )
    back = await service.client.get_workflow_handle("change/edge").result()
    assert back is not None
    assert set(real.serving().values()) == {"1.1.6"}
    assert real.book.known_good("edge") == dict.fromkeys(real.gateways, OLD)
    assert (await reconcile(real)).sentence == "every gateway is on its known-good"
    again = await service.roll_back(real.fleet, "ana", "users still call")
    assert again.sentence.startswith("Nothing to do")
    assert not again.accepted
    assert set(real.serving().values()) == {"1.1.6"}


@pytest.mark.sweep
async def test_an_order_after_the_end_is_a_conflict_in_words(real: World, service: ChangeService) -> None:
    await promoted(real, service)
    order = Command(id="hold-1", kind=CommandKind.HOLD, person="ana", reason="late")
    with pytest.raises(Conflict, match="no change of edge is under way"):
        await service.command("edge", order)


@pytest.mark.sweep
async def test_the_schedule_is_made_once_and_runs_every_minute(real: World) -> None:
    assert await have_reconcile(real.client, real.fleet)
    assert not await have_reconcile(real.client, real.fleet)
    described = await real.client.get_schedule_handle(reconcile_of("edge")).describe()
    assert described.schedule.spec.intervals[0].every == timedelta(seconds=60)
    assert described.schedule.policy.overlap is ScheduleOverlapPolicy.SKIP


@pytest.mark.sweep
async def test_an_engine_that_lost_its_database_gets_its_schedule_and_the_fleet_its_known_good(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("orchestrator.engine.schedules.LOOK", timedelta(milliseconds=500))
    with engine() as own:
        await lose_the_database(own)


async def lose_the_database(own: Engine) -> None:
    client = await own.client("n0")
    world = World.made(client, fleet_of("edge", lease=timedelta(minutes=10)))
    world.judge.says(UNDECIDED)
    async with working(world):
        keeping = asyncio.create_task(keep_reconciling(client, lambda: [world.fleet]))
        rollout = await world.start(("gw-1",))
        await in_phase(rollout, Phase.OBSERVING)
        own.kill()
        own.forget()
        own.start()
        await own.client("n0")
        # The schedule runs as soon as it is made again; the lease of ten minutes does not bring this back.
        await until(lambda: world.serving()["gw-1"] == "1.1.6", 90)
        assert world.gateways["gw-1"].effects.count("steer a") == 1
        keeping.cancel()


@pytest.mark.sweep
async def test_a_gateway_that_a_rollback_gave_up_is_brought_back_once_a_person_returns_it(
    real: World, service: ChangeService
) -> None:
    await promoted(real, service)
    real.gateways["gw-1"].fail("restore", Unavailable("gw-1 does not answer"), times=10_000)
    await service.roll_back(real.fleet, "ana", "users call")

    async def is_waited_for() -> bool:
        return "gw-1" in (await service.status("edge")).waits_for

    await until(is_waited_for)
    quarantine = QuarantineService(service)
    await quarantine.leave_out(real.fleet, ("gw-1",), "ana", "no power")
    await until(lambda: real.book.history("edge")[0].outcome is Outcome.ROLLBACK_INCOMPLETE)
    real.gateways["gw-1"].recover("restore")
    assert (await reconcile(real)).strays == {}  # a person's word keeps it as it is
    returned = await quarantine.take_in(real.fleet, ("gw-1",), "ana", "power is back")
    assert "penstock brings it back" in returned.stays["gw-1"]
    [handed_over] = real.book.quarantined("edge")
    assert real.book.clear_quarantine("edge", "gw-1", PENSTOCK, "its first minute is over")
    real.book.set_quarantine(
        handed_over.model_copy(update={"since": handed_over.since - timedelta(minutes=1)})
    )
    await reconcile(real)
    await until(lambda: real.serving()["gw-1"] == "1.1.6")
    await until(lambda: not real.book.quarantined("edge"))


@pytest.mark.sweep
async def test_whom_penstock_has_left_out_is_taken_in_again_once_it_is_seen_on_its_known_good(
    world: World,
) -> None:
    since = datetime.now(UTC) - timedelta(minutes=1)
    for name, person in (("gw-1", PENSTOCK), ("gw-2", "ana")):
        row = Quarantine(fleet="edge", gateway=name, reason="silent", person=person, since=since)
        world.book.set_quarantine(row)
    assert [*(await reconcile(world)).strays] == ["gw-1"]
    await until(lambda: [one.gateway for one in world.book.quarantined("edge")] == ["gw-2"])
    assert (await reconcile(world)).sentence == "every gateway is on its known-good"


@pytest.mark.sweep
async def test_a_gateway_that_answers_again_is_brought_back_at_once_while_another_one_is_silent(
    world: World,
) -> None:
    """Each look at the fleet lasts as long as the silent one may take, and minutes pass meanwhile."""
    world.gateways["gw-1"].serve(NEW, "b")
    world.gateways["gw-4"].fail("observe", Unavailable("gw-4 does not answer"), times=10_000)
    left_out = datetime.now(UTC) - timedelta(minutes=32, seconds=53)
    why = "left to reconcile, which tries again: gw-1 does not answer"
    row = Quarantine(fleet="edge", gateway="gw-1", reason=why, person=PENSTOCK, since=left_out)
    world.book.set_quarantine(row)
    assert (await reconcile(world)).sentence == "bringing back: gw-1"
    await until(lambda: world.serving()["gw-1"] == "1.1.6")
    await until(lambda: not world.book.quarantined("edge"))


@pytest.mark.sweep
async def test_a_gateway_that_refuses_to_go_back_is_tried_once_and_leaves_the_lock_to_others_for_a_pause(
    world: World,
) -> None:
    world.gateways["gw-1"].serve(NEW, "b")
    world.gateways["gw-1"].fail("restore", Refused("gw-1 refuses"), times=10_000)
    since = datetime.now(UTC) - timedelta(minutes=32)
    row = Quarantine(fleet="edge", gateway="gw-1", reason="refuses", person=PENSTOCK, since=since)
    world.book.set_quarantine(row)
    assert (await reconcile(world)).sentence == "bringing back: gw-1"
    change = world.client.get_workflow_handle(change_of("edge"), result_type=ChangeResult)
    assert (await result_of(change)).outcome is Outcome.ROLLBACK_INCOMPLETE
    [tried] = world.book.quarantined("edge")
    returns = world.book.returns("edge")["gw-1"]
    assert (returns.tries, returns.change, tried.since) == (1, world.newest, since)
    assert (await reconcile(world)).strays == {}


# A3: "within a minute" bounds every step of the return of single gateways (R4).


@pytest.mark.sweep
@pytest.mark.parametrize("step", ["open_change", "record_return", "plan_part", "close_change"])
async def test_single_gateways_that_return_keep_the_lock_only_for_their_time_whatever_the_ledger_does(
    world: World, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    monkeypatch.setattr("workflows.change.ALONE_IN_ALL", timedelta(seconds=2))
    world.gateways["gw-1"].serve(NEW, "b")
    with monkeypatch.context() as away:
        away.setattr(world.book, step, unavailable)
        assert (await reconcile(world)).sentence == "bringing back: gw-1"
        await until(partial(lock_is_free, world), SOON)
    await reconcile(world)
    await until(lambda: world.serving()["gw-1"] == "1.1.6")
    await until(partial(lock_is_free, world))
    await reconcile(world)
    await until(lambda: world.book.open_changes(world.fleet.name) == ())


@pytest.mark.sweep
async def test_the_return_of_single_gateways_gives_way_at_once_to_the_rollback_of_the_fleet(
    world: World,
) -> None:
    canary = world.gateways["gw-1"]
    canary.crash("a")
    canary.serve(NEW, "b")
    canary.fail("restore", Unavailable("gw-1 does not answer"), times=10_000)
    await reconcile(world)
    change = world.client.get_workflow_handle(change_of(world.fleet.name), result_type=ChangeResult)
    await until(lambda: world.newest != "edge-1")
    restore = world.client.get_workflow_handle(f"{change_of(world.fleet.name)}/{world.newest}/restore")
    await until(partial(runs, restore))
    await change.signal("harm", args=["gw-2 restarted by itself", "edge-1"])
    result = await result_of(change)
    assert result.incomplete == {"gw-1": "left to the rollback of the whole fleet"}
    await until(partial(is_over, restore))


def unavailable(*_: object) -> None:
    raise Unavailable("the ledger does not answer")


async def lock_is_free(world: World) -> bool:
    return await is_over(world.client.get_workflow_handle(change_of(world.fleet.name)))


async def is_over(running: WorkflowHandle[Any, Any]) -> bool:
    return (await running.describe()).status is not WorkflowExecutionStatus.RUNNING


async def runs(running: WorkflowHandle[Any, Any]) -> bool:
    try:
        return not await is_over(running)
    except RPCError:
        return False


async def asked_by(world: World, reconciles: int) -> list[set[str]]:
    """Reconcile so many times, and return which gateways' answers the ledger has from each."""
    found = list[set[str]]()
    for _ in range(reconciles):
        before = world.book.takes("edge")
        assert (await reconcile(world)).sentence == "every gateway is on its known-good"
        found.append({name for name, said in world.book.takes("edge").items() if said != before[name]})
    return found


@pytest.mark.sweep
async def test_a_part_of_a_large_fleet_is_scanned_again_when_every_other_one_was_whenever_reconcile_runs(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The minute chose the part, and the same one each time where reconcile ran at every other minute."""
    monkeypatch.setattr("activities.facts.MOST_MEMBERS", 1)
    monkeypatch.setattr("workflows.reconcile.PAGES_A_LOOK", 1)
    assert await asked_by(world, 8) == [{"gw-1"}, {"gw-2"}, {"gw-3"}, {"gw-4"}] * 2


@pytest.mark.sweep
async def test_strays_are_looked_for_twice_in_the_same_part_of_a_large_fleet(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change may end between the first answer of a gateway and the last word of the ledger."""
    monkeypatch.setattr("activities.facts.MOST_MEMBERS", 1)
    monkeypatch.setattr("workflows.reconcile.PAGES_A_LOOK", 1)
    canary, looks = world.gateways["gw-1"], list[str]()
    canary.serve(NEW, "b")
    record = world.book.record_states

    def recorded(fleet: str, states: Sequence[GatewayState], *others: Any) -> None:
        looks.extend(state.gateway for state in states)
        if len(looks) == 1:
            canary.serve(OLD, "a")
        record(fleet, states, *others)

    monkeypatch.setattr(world.book, "record_states", recorded)
    assert (await reconcile(world)).strays == {}
    assert looks == ["gw-1", "gw-1"]


@pytest.mark.sweep
async def test_a_part_that_the_ledger_does_not_take_keeps_no_other_part_from_its_turn(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("activities.facts.MOST_MEMBERS", 1)
    monkeypatch.setattr("workflows.reconcile.PAGES_A_LOOK", 2)
    record = world.book.record_states

    def refused(fleet: str, states: Sequence[GatewayState], *others: Any) -> None:
        if any(state.gateway == "gw-1" for state in states):
            raise BadInput("no ledger takes that")
        record(fleet, states, *others)

    monkeypatch.setattr(world.book, "record_states", refused)
    assert await asked_by(world, 3) == [{"gw-2"}, {"gw-3"}, {"gw-4"}]
