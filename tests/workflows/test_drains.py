"""Drains: sessions end by themselves; what else may end them is announced, counted and limited."""

import asyncio
import re
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from temporalio.client import WorkflowFailureError, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.exceptions import CancelledError

from orchestrator.service.updates import give
from policies.drains import DESERTED_FOR, SILENT_FOR
from policies.model.change import ChangeKind, ChangeOrder, Outcome, Phase
from policies.model.command import CommandKind, CommandReceipt
from policies.model.drain import (
    DRAIN_OVER,
    DrainEnding,
    DrainEvent,
    DrainExtension,
    DrainLimits,
    DrainStatus,
    Silence,
    Step,
)
from policies.model.errors import BadInput, Unavailable
from policies.model.instance import InstanceState
from policies.model.operation import Operation
from policies.model.verdict import Action, Decision, GateReading, GateVerdict
from policies.planning.leases import beat_of
from tests.fakes.control import UNDECIDED
from tests.fakes.gateway import FakeGateway, FakeSlot
from tests.patience import until
from tests.workflows.engine import SUGGEST_SHORT_HISTORY
from tests.workflows.world import NEW, NEXT, OLD, World, in_phase, result_of, waiting_for
from tests.workflows.world import say as command
from workflows import steps
from workflows.drain import Drain, DrainResult
from workflows.failures import sentence_of
from workflows.steps import CONTROL_QUEUE

LIMITS = DrainLimits(
    warning=timedelta(seconds=1), batch=2, pause=timedelta(milliseconds=50), forced=50, tunnel_gates=("loss",)
)
LOSSY = Decision(
    action=Action.ROLL_BACK,
    verdict=GateVerdict.UNHEALTHY,
    reason="9 of 10 tunnels lose packets",
    readings=(GateReading(gate="loss", verdict=GateVerdict.UNHEALTHY, reason="9 of 10 tunnels"),),
)
FOR_LONG = 10_000
"""Refusals that no test waits for the end of."""
Running = WorkflowHandle[Any, DrainResult]


def with_people(world: World, number: int) -> FakeGateway:
    """A gateway that serves the new release while so many people are on the old one."""
    fake = world.gateways["gw-1"]
    for person in range(number):
        fake.login(f"192.0.2.{person}")
    fake.serve(NEW, "b")
    return fake


async def drain(world: World, seconds: float = 2, *, limits: DrainLimits = LIMITS, **more: Any) -> Running:
    order = world.drain_order("gw-1", deadline=timedelta(seconds=seconds), limits=limits, rate=6000.0, **more)
    return await world.client.start_workflow(
        Drain.run, order, id=f"drain/gw-1/{uuid4().hex}", task_queue=CONTROL_QUEUE
    )


async def status_of(running: Running) -> DrainStatus:
    status: DrainStatus = await running.query("status", result_type=DrainStatus)
    return status


async def holds(running: Running) -> bool:
    return any(slot.step is Step.HOLD for slot in (await status_of(running)).slots)


async def say(running: Running, order: DrainExtension | DrainEnding) -> CommandReceipt:
    return await give(running, "extend" if isinstance(order, DrainExtension) else "end", order)


def told(world: World) -> list[str]:
    """Return what the record heard on the way to the end, which every drain tells."""
    return [action for action, _, _ in world.book.events.values() if action != DRAIN_OVER]


async def test_a_drain_ends_when_its_last_session_has_ended_by_itself(world: World) -> None:
    fake = with_people(world, 2)
    running = await drain(world, seconds=60)
    await until(lambda: "a" in fake.slots)
    fake.logout("192.0.2.0")
    fake.logout("192.0.2.1")
    result = await result_of(running)
    assert (result.stopped, result.sessions_ended) == (("gw-1 a",), 0)
    assert fake.effects == ["stop a"]
    (said,) = [one for one in world.book.events.values() if one[0] == DRAIN_OVER]
    sentence = "1 of its instances are stopped, 0 sessions were ended, 0 lost"
    assert said[1:] == ("part 000-0001/edge-1", {"sentence": sentence})


async def test_a_part_of_a_large_fleet_begins_to_drain_when_its_turn_has_come(world: World) -> None:
    fake = with_people(world, 0)
    running = await drain(world, before=steps.DRAINS_AT_ONCE)
    extension = DrainExtension(id="1", by=timedelta(hours=1), person="on call", reason="a call")
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await say(running, extension)
    assert refused.value.cause is not None
    assert re.search(r"looked at yet; try again after \d\d:\d\d:\d\d UTC", sentence_of(refused.value.cause))
    assert not fake.effects
    assert (await result_of(running)).stopped == ("gw-1 a",)
    events = [event async for event in running.fetch_history_events()]
    fired = next(event for event in events if event.HasField("timer_fired_event_attributes"))
    looked = next(event for event in events if event.HasField("activity_task_scheduled_event_attributes"))
    assert fired.event_time.ToDatetime() - events[0].event_time.ToDatetime() >= steps.TURN_OF_A_DRAIN
    assert looked.event_id > fired.event_id


def test_five_hundred_gateways_begin_to_drain_at_once_and_ten_thousand_within_ten_minutes() -> None:
    turns = [steps.drain_turn(before) for before in range(200)]
    assert turns[: steps.DRAINS_AT_ONCE] == [timedelta(0)] * 10
    assert turns[steps.DRAINS_AT_ONCE :] == [number * steps.TURN_OF_A_DRAIN for number in range(1, 191)]
    assert turns[-1] < timedelta(minutes=10)


@pytest.mark.sweep
async def test_a_drain_that_waited_for_a_person_says_that_it_does_not_any_more(world: World) -> None:
    fake = with_people(world, 5)
    running = await drain(world)
    await until(lambda: DrainEvent.HELD in told(world))
    for person in range(5):
        fake.logout(f"192.0.2.{person}")
    await result_of(running)
    assert told(world)[-1] == DrainEvent.EMPTIED


@pytest.mark.sweep
async def test_people_are_warned_before_a_deadline_ends_anybody(world: World) -> None:
    fake = with_people(world, 1)
    result = await result_of(await drain(world))
    assert result.sessions_ended == 1
    assert told(world) == ["drain deadline announced", "sessions are being ended"]
    assert fake.effects == ["end 1 in a", "stop a"]


@pytest.mark.sweep
async def test_a_deadline_ends_sessions_in_small_batches(world: World) -> None:
    fake = with_people(world, 5)
    limits = LIMITS.model_copy(update={"forced": 100.0})
    assert (await result_of(await drain(world, limits=limits))).sessions_ended == 5
    assert fake.effects == ["end 2 in a", "end 2 in a", "end 1 in a", "stop a"]


async def _waits_for_its_turn(running: Running, name: str) -> bool:
    return [slot.step for slot in (await status_of(running)).slots if slot.gateway == name] == [Step.END]


@pytest.mark.sweep
@pytest.mark.parametrize("more", [timedelta(hours=1), timedelta(seconds=3)], ids=["an hour", "a moment"])
async def test_who_is_given_more_time_while_others_are_being_ended_is_warned_again_before_an_end(
    world: World, more: timedelta
) -> None:
    """However long the turn takes to come: the step that was right before it may be wrong by then."""
    fakes = {"gw-1": with_people(world, 4), "gw-2": world.gateways["gw-2"]}
    for person in range(4):
        fakes["gw-2"].login(f"192.0.2.10{person}")
    fakes["gw-2"].serve(NEW, "b")
    limits = LIMITS.model_copy(update={"forced": 100.0, "pause": timedelta(seconds=6)})
    order = world.drain_order(*fakes, deadline=timedelta(seconds=2), limits=limits, rate=6000.0)
    running: Running = await world.client.start_workflow(
        Drain.run, order, id=f"drain/both/{uuid4().hex}", task_queue=CONTROL_QUEUE
    )
    await until(lambda: any(fake.effects for fake in fakes.values()))
    [other] = [name for name, fake in fakes.items() if not fake.effects]
    [first] = fakes.keys() - {other}
    await until(lambda: _waits_for_its_turn(running, other))
    extension = DrainExtension(id="1", by=more, person="on call", reason="a call", gateway=other)
    assert (await say(running, extension)).accepted
    await until(lambda: "stop a" in fakes[first].effects)
    if more > timedelta(minutes=1):
        assert (fakes[other].effects, len(fakes[other].slots["a"].people)) == ([], 4)
        await running.cancel()
        return
    await result_of(running)
    of_other = [action for action, subject, _ in world.book.events.values() if subject.startswith(other)]
    assert of_other == [
        "drain deadline announced",
        "drain extended",
        "drain deadline announced",
        "sessions are being ended",
    ]


@pytest.mark.sweep
async def test_the_pause_between_two_batches_is_kept_when_the_history_is_cut_in_it(world: World) -> None:
    fake = with_people(world, 4)
    limits = LIMITS.model_copy(update={"forced": 100.0, "pause": timedelta(seconds=6)})
    started = await drain(world, limits=limits)
    running: Running = world.client.get_workflow_handle(started.id, result_type=DrainResult)
    await until(lambda: len(fake.effects) == 1)
    seen = asyncio.get_running_loop().time()
    again = DrainEnding(id="1", person="on call", reason="the old release has a hole")
    await asyncio.gather(*[running.execute_update("end", again) for _ in range(SUGGEST_SHORT_HISTORY // 2)])
    await until(lambda: _is_another_run(running, started.first_execution_run_id))
    assert len(fake.effects) == 1
    await until(lambda: len(fake.effects) > 1)
    assert asyncio.get_running_loop().time() - seen > 4
    assert (await result_of(running)).sessions_ended == 4


async def _is_another_run(running: Running, first: str | None) -> bool:
    return (await running.describe()).run_id != first


@pytest.mark.sweep
async def test_a_deadline_that_would_end_too_many_ends_nobody_and_asks_a_person(world: World) -> None:
    fake = with_people(world, 5)
    running = await drain(world)
    await until(lambda: holds(running))
    await until(lambda: "drain held for a person" in told(world))
    assert len(fake.slots["a"].people) == 5
    [slot] = (await status_of(running)).slots
    assert slot.why == "5 of 5 sessions are left after the deadline, which may end 3 (50%)"
    world.book.record_states(world.fleet.name, [await fake.observe()], {})
    assert world.book.held_drains(world.fleet.name) == {"gw-1/a": slot.why}
    await say(running, DrainEnding(id="1", person="on call", reason="the old release has a hole"))
    assert (await result_of(running)).sessions_ended == 5
    assert world.book.held_drains(world.fleet.name) == {}


async def test_a_hold_ends_by_itself_when_enough_people_have_left(world: World) -> None:
    fake = with_people(world, 5)
    running = await drain(world)
    await until(lambda: holds(running))
    for person in range(5):
        fake.logout(f"192.0.2.{person}")
    assert (await result_of(running)).sessions_ended == 0


async def test_blue_is_kept_and_what_an_earlier_change_left_beside_it_is_emptied_at_once(
    world: World,
) -> None:
    """A change that begins while the one before still drains takes its gateways over, drains included."""
    fake = with_people(world, 2)
    fake.slots["c"] = FakeSlot(NEXT, InstanceState.RUNNING, fake.now())
    order = world.drain_order("gw-1", release=OLD, after=timedelta(hours=1), limits=LIMITS)
    order = order.model_copy(update={"release": NEW})
    running: Running = await world.client.start_workflow(
        Drain.run, order, id=f"drain/gw-1/{uuid4().hex}", task_queue=CONTROL_QUEUE
    )

    async def is_stopped() -> bool:
        return [slot.slot for slot in (await status_of(running)).slots] == ["a"]

    await until(is_stopped)
    assert "stop c" in fake.effects
    [slot] = (await status_of(running)).slots
    assert (slot.slot, slot.why[:10]) == ("a", "kept until")
    await running.cancel()


@pytest.mark.sweep
async def test_a_gateway_first_seen_after_the_deadline_is_warned_like_the_others(
    world: World,
) -> None:
    with_people(world, 1).fail("observe", Unavailable("gw-1 does not answer"), times=5)
    assert (await result_of(await drain(world, seconds=2))).sessions_ended == 1
    assert told(world) == ["drain deadline announced", "sessions are being ended"]


@pytest.mark.sweep
async def test_one_gateway_on_which_nobody_can_be_ended_keeps_no_other_from_its_turn(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(steps.END, "schedule_to_close_timeout", timedelta(seconds=2))
    hung, other = with_people(world, 1), world.gateways["gw-2"]
    other.login("192.0.2.9")
    other.serve(NEW, "b")
    hung.fail("end", Unavailable("gw-1 does not answer"), times=FOR_LONG)
    order = world.drain_order("gw-1", "gw-2", deadline=timedelta(hours=1), limits=LIMITS, rate=6000.0)
    running: Running = await world.client.start_workflow(
        Drain.run, order, id=f"drain/both/{uuid4().hex}", task_queue=CONTROL_QUEUE
    )
    await until(lambda: _drains_both(running))
    await say(running, DrainEnding(id="1", person="on call", reason="their tunnels carry nothing"))
    await until(lambda: "stop a" in other.effects)
    hung.recover("end")
    assert (await result_of(running)).sessions_ended == 2


async def _drains_both(running: Running) -> bool:
    return len((await status_of(running)).slots) == 2


async def test_what_an_earlier_change_left_on_broken_tunnels_is_not_waited_for(world: World) -> None:
    fake = with_people(world, 0)
    fake.slots["c"] = FakeSlot(NEXT, InstanceState.RUNNING, fake.now(), ["192.0.2.1"])
    fake.dead_tunnels.add(NEXT.digest)
    order = world.drain_order("gw-1", release=OLD, limits=LIMITS).model_copy(update={"release": NEW})
    running: Running = await world.client.start_workflow(
        Drain.run, order, id=f"drain/gw-1/{uuid4().hex}", task_queue=CONTROL_QUEUE
    )
    assert (await result_of(running)).sessions_ended == 1
    assert "tunnels found broken" in told(world)


@pytest.mark.sweep
async def test_a_drain_that_is_cancelled_while_sessions_are_being_ended_goes_no_further(world: World) -> None:
    fake = with_people(world, 1)
    fake.fail("end", Unavailable("gw-1 does not answer"), times=FOR_LONG)
    running = await drain(world)
    await until(lambda: "sessions are being ended" in told(world))
    await running.cancel()
    async with asyncio.timeout(20):
        with pytest.raises(WorkflowFailureError) as ended:
            await running.result()
    assert isinstance(ended.value.cause, CancelledError)


@pytest.mark.sweep
async def test_a_drain_that_a_newer_change_takes_over_says_what_was_pending(world: World) -> None:
    fake = with_people(world, 2)
    running = await drain(world, seconds=60)
    await until(lambda: holds_people(running, 2))
    await fake.fence(Operation(rollout="edge-9", epoch=2, gateway="gw-1", step="back", digest=NEW.digest))
    assert list((await result_of(running)).superseded) == ["gw-1"]
    assert "drain handed over" in told(world)


@pytest.mark.sweep
async def test_a_gateway_that_a_newer_change_has_takes_no_commands_for_its_old_drain(world: World) -> None:
    fake, other = with_people(world, 1), world.gateways["gw-2"]
    other.login("192.0.2.9")
    other.serve(NEW, "b")
    order = world.drain_order("gw-1", "gw-2", limits=LIMITS)
    running: Running = await world.client.start_workflow(
        Drain.run, order, id=f"drain/both/{uuid4().hex}", task_queue=CONTROL_QUEUE
    )
    await until(lambda: _drains_both(running))
    await fake.fence(Operation(rollout="edge-9", epoch=2, gateway="gw-1", step="back", digest=NEW.digest))
    await until(lambda: "drain handed over" in told(world))
    assert [slot.gateway for slot in (await status_of(running)).slots] == ["gw-2"]
    ending = DrainEnding(id="1", person="on call", reason="now", gateway="gw-1")
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await say(running, ending)
    assert refused.value.cause is not None
    assert sentence_of(refused.value.cause) == "nothing drains on gw-1 any more"
    other.logout("192.0.2.9")
    assert (await result_of(running)).stopped == ("gw-2 a",)


@pytest.mark.sweep
async def test_one_gateway_that_refuses_its_steps_ends_no_other_drain(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "NEXT_LOOK", timedelta(seconds=0.1))
    broken, other = with_people(world, 1), world.gateways["gw-2"]
    other.login("192.0.2.9")
    other.serve(NEW, "b")
    for step in ("observe", "count", "stop"):
        broken.fail(step, BadInput("gw-1 has no slot a"), times=2)
    order = world.drain_order("gw-1", "gw-2", limits=LIMITS)
    running: Running = await world.client.start_workflow(
        Drain.run, order, id=f"drain/both/{uuid4().hex}", task_queue=CONTROL_QUEUE
    )
    other.logout("192.0.2.9")
    await until(lambda: "stop a" in other.effects)
    assert "drain waits for its gateway" in told(world)
    broken.logout("192.0.2.0")
    assert (await result_of(running)).stopped == ("gw-1 a", "gw-2 a")


async def holds_people(running: Running, number: int) -> bool:
    return any(slot.sessions == number for slot in (await status_of(running)).slots)


@pytest.mark.sweep
async def test_the_engine_hears_of_each_drain_the_more_seldom_the_more_there_are(world: World) -> None:
    fake = with_people(world, 1)
    running = await drain(world, seconds=36_000, draining=1_000)
    await until(lambda: holds_people(running, 1))
    fake.logout("192.0.2.0")
    await result_of(running)
    events = (await running.fetch_history()).events
    asked = [event.activity_task_scheduled_event_attributes for event in events]
    beats = [
        one.heartbeat_timeout.ToTimedelta() for one in asked if one.activity_type.name == "drain_instance"
    ]
    assert max(beats) == 2.5 * beat_of(1_000)


@pytest.mark.sweep
async def test_an_exempt_session_outlives_every_deadline(world: World) -> None:
    fake = with_people(world, 2)
    fake.exempt = {"192.0.2.0"}
    running = await drain(world)
    await until(lambda: holds(running))
    assert fake.slots["a"].people == ["192.0.2.0"]
    await say(running, DrainEnding(id="1", person="on call", reason="asked them", exempt_too=True))
    assert (await result_of(running)).sessions_ended == 2


@pytest.mark.sweep
async def test_a_command_given_while_a_hold_is_written_down_is_carried_out_at_once(world: World) -> None:
    fake = with_people(world, 5)
    world.book.slow["drain held for a person"] = 0.5
    running = await drain(world)
    await until(lambda: holds(running))
    await say(running, DrainEnding(id="1", person="on call", reason="asked them"))
    async with asyncio.timeout(20):
        assert (await result_of(running)).sessions_ended == 5
    assert fake.slots["a"].people == []


@pytest.mark.sweep
async def test_a_long_drain_forgets_neither_silent_gateways_nor_commands(world: World) -> None:
    """The server of these tests suggests a short history after 120 events."""
    here, silent = with_people(world, 1), world.gateways["gw-2"]
    silent.serve(NEW, "b")
    silent.fail("observe", Unavailable("gw-2 does not answer"), times=FOR_LONG)
    order = world.drain_order("gw-1", "gw-2", deadline=timedelta(hours=1), limits=LIMITS)
    started = await world.client.start_workflow(
        Drain.run, order, id=f"drain/edge/{uuid4().hex}", task_queue=CONTROL_QUEUE
    )
    running: Running = world.client.get_workflow_handle(started.id, result_type=DrainResult)
    await until(lambda: _counted(running, 1))
    first = (await running.describe()).run_id
    orders = [
        DrainExtension(id=str(number), by=timedelta(minutes=1), person="on call", reason="a long call")
        for number in range(20)
    ]
    receipts = [await say(running, order) for order in orders]

    await until(lambda: _is_another_run(running, first))
    await until(lambda: _counted(running, 1))
    [before] = (await status_of(running)).slots
    assert await say(running, orders[-1]) == receipts[-1]
    assert (await status_of(running)).slots == (before,)
    silent.recover("observe")
    here.logout("192.0.2.0")
    assert (await result_of(running)).stopped == ("gw-1 a", "gw-2 a")


@pytest.mark.sweep
async def test_no_name_or_address_of_an_exempt_person_is_in_the_history(world: World) -> None:
    fake = with_people(world, 2)
    fake.exempt = {"192.0.2.0"}
    running = await drain(world)
    await until(lambda: holds(running))
    fake.logout("192.0.2.0")
    await result_of(running)
    history = await running.fetch_history()
    told = b"".join(event.SerializeToString() for event in history.events)
    assert b"drain_instance" in told
    assert b"192.0.2." not in told


@pytest.mark.sweep
async def test_an_extension_moves_the_deadline_and_the_warning(world: World) -> None:
    fake = with_people(world, 1)
    slowly = LIMITS.model_copy(update={"warning": timedelta(seconds=59)})
    running = await drain(world, seconds=60, limits=slowly)
    await until(lambda: "drain deadline announced" in told(world))
    before = (await status_of(running)).slots[0].deadline
    extension = DrainExtension(id="1", by=timedelta(hours=1), person="on call", reason="a long call")
    receipt = await say(running, extension)
    assert receipt.sentence.startswith("The deadline is")
    assert (await status_of(running)).slots[0].deadline == before + timedelta(hours=1)
    assert await say(running, extension) == receipt
    assert (await status_of(running)).slots[0].deadline == before + timedelta(hours=1)
    fake.logout("192.0.2.0")
    assert (await result_of(running)).sessions_ended == 0


@pytest.mark.sweep
async def test_sessions_that_cannot_be_counted_are_never_ended(world: World) -> None:
    fake = with_people(world, 1)
    fake.uncountable.add("a")
    running = await drain(world)
    await until(lambda: holds(running))
    assert fake.effects == []
    [slot] = (await status_of(running)).slots
    assert (slot.sessions, slot.why) == (None, "its sessions cannot be counted, so nobody is ended")
    fake.uncountable.clear()
    fake.logout("192.0.2.0")
    assert (await result_of(running)).stopped == ("gw-1 a",)


@pytest.mark.sweep
async def test_an_instance_that_becomes_silent_is_listed_with_since_when_and_ended_by_an_operator(
    world: World,
) -> None:
    fake = with_people(world, 2)
    running = await drain(world, seconds=3600)
    await until(lambda: _counted(running, 2))
    fake.silences["a"] = Silence(lasts=2 * SILENT_FOR)
    fake.uncountable.add("a")
    await until(lambda: _is_silent(running))
    [slot] = (await status_of(running)).slots
    assert (slot.sessions, slot.step) == (None, Step.WAIT)
    assert "--exempt-too" in slot.why
    ending = DrainEnding(id="1", person="on call", reason="it hangs")
    assert "--exempt-too" in (await say(running, ending)).sentence
    await until(lambda: DrainEvent.HELD in told(world))
    assert fake.effects == []
    ending = ending.model_copy(update={"id": "2", "exempt_too": True})
    assert "every session that it has is lost" in (await say(running, ending)).sentence
    assert (await result_of(running)).stopped == ("gw-1 a",)
    assert fake.effects == ["stop a"]


@pytest.mark.sweep
async def test_an_instance_that_answers_in_another_form_is_listed_with_it_and_not_as_a_silent_one(
    world: World,
) -> None:
    fake = with_people(world, 2)
    unread = "OpenVPN answers in a form that penstock does not read (Real Address)"
    fake.silences["a"] = Silence(lasts=2 * SILENT_FOR, unread=unread)
    fake.uncountable.add("a")
    running = await drain(world, seconds=3600)

    async def is_listed() -> bool:
        return any(slot.why.startswith(unread) for slot in (await status_of(running)).slots)

    await until(is_listed)
    [slot] = (await status_of(running)).slots
    assert "--exempt-too" not in slot.why
    said = (await say(running, DrainEnding(id="1", person="on call", reason="it hangs"))).sentence
    assert said.endswith(
        f"In slot a of gw-1, {unread}: it is not stopped: count its users on its host, and update "
        "penstock to a version that reads the answer."
    )
    fake.uncountable.clear()
    fake.silences.clear()
    assert (await result_of(running)).stopped == ("gw-1 a",)


@pytest.mark.sweep
async def test_an_order_for_one_slot_means_nobody_in_another_slot_of_the_gateway(world: World) -> None:
    """To stop what hangs in slot c by the gateway's name would end every good session in slot a."""
    fake = with_people(world, 2)
    fake.slots["c"] = FakeSlot(NEXT, InstanceState.RUNNING)
    fake.silences["c"] = Silence(lasts=2 * SILENT_FOR)
    fake.uncountable.add("c")
    running = await drain(world, seconds=3600)
    await until(lambda: _is_silent(running))
    ending = DrainEnding(
        id="1", person="on call", reason="it hangs", gateway="gw-1", slot="c", exempt_too=True
    )
    assert (await say(running, ending)).accepted
    await until(lambda: "stop c" in fake.effects)
    await until(lambda: _counted(running, 2))
    longer = DrainExtension(
        id="2", by=timedelta(hours=1), person="on call", reason="a call", gateway="gw-1", slot="c"
    )
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await say(running, longer)
    assert refused.value.cause is not None
    assert sentence_of(refused.value.cause) == "nothing drains on slot c of gw-1 any more"
    assert fake.effects == ["stop c"]
    for address in tuple(fake.slots["a"].people):
        fake.logout(address)
    result = await result_of(running)
    assert (result.stopped, result.sessions_ended) == (("gw-1 a", "gw-1 c"), 0)


@pytest.mark.sweep
async def test_the_deadline_stops_a_silent_instance_only_when_its_kernel_has_shown_no_user_for_long(
    world: World,
) -> None:
    fake = with_people(world, 0)
    fake.uncountable.add("a")
    fake.silences["a"] = Silence(lasts=2 * DESERTED_FOR, deserted=timedelta(0))
    running = await drain(world)
    await until(lambda: holds(running))
    assert fake.effects == []
    fake.silences["a"] = Silence(lasts=2 * DESERTED_FOR, deserted=DESERTED_FOR)
    later = DrainExtension(id="1", by=timedelta(seconds=1), person="on call", reason="a look again")
    await say(running, later)
    assert (await result_of(running)).stopped == ("gw-1 a",)
    assert told(world)[-1] == DrainEvent.ENDING


@pytest.mark.sweep
async def test_a_rollback_that_waits_for_a_slot_has_what_hangs_in_it_listed_and_ended(world: World) -> None:
    world.judge.says(UNDECIDED)
    canary = world.gateways["gw-1"]
    del canary.slots["c"]
    rollout = await world.start(("gw-1",))
    await in_phase(rollout, Phase.OBSERVING)
    canary.login("192.0.2.1")
    canary.uncountable.add("b")
    canary.silences["b"] = Silence(lasts=2 * SILENT_FOR)
    await command(rollout, CommandKind.ROLL_BACK)
    assert (await result_of(rollout)).outcome is Outcome.ROLLED_BACK
    [before] = await _drains(world)
    plan = world.book.record_return(world.fleet, {"gw-1": NEXT})
    order = ChangeOrder(
        fleet="edge", kind=ChangeKind.GO_BACK, plan=plan, source="lab", reason="to another one"
    )
    back = await world.run(order)
    await waiting_for(back, "gw-1")
    assert (await result_of(world.client.get_workflow_handle(before, result_type=DrainResult))).superseded
    await until(lambda: _drains_slot(world, "b"))
    [waits] = await _drains(world)
    ending = DrainEnding(id="1", person="on call", reason="it hangs", exempt_too=True)
    await say(world.client.get_workflow_handle(waits, result_type=DrainResult), ending)
    await result_of(back)
    assert world.serving()["gw-1"] == NEXT.version
    assert canary.effects[canary.effects.index("stop b") :][:3] == ["stop b", "start b", "steer b"]
    canary.login("192.0.2.2")
    await until(lambda: canary.slots["a"].state is InstanceState.STOPPED)
    assert waits not in await _drains(world)


async def _drains(world: World) -> list[str]:
    running = world.client.list_workflows("WorkflowType = 'Drain' AND ExecutionStatus = 'Running'")
    return [one.id async for one in running]


async def _drains_slot(world: World, slot: str) -> bool:
    for name in await _drains(world):
        status = await status_of(world.client.get_workflow_handle(name, result_type=DrainResult))
        if [one.slot for one in status.slots] == [slot]:
            return True
    return False


async def _is_silent(running: Running) -> bool:
    return any("has not answered since" in slot.why for slot in (await status_of(running)).slots)


@pytest.mark.sweep
async def test_tunnels_that_are_broken_end_at_once_in_small_batches(world: World) -> None:
    fake = with_people(world, 5)
    fake.dead_tunnels.add(OLD.digest)
    running = await drain(world, seconds=3600, went_back=True, failed=OLD.digest, decision=LOSSY)
    assert (await result_of(running)).sessions_ended == 5
    assert fake.effects == ["end 2 in a", "end 2 in a", "end 1 in a", "stop a"]
    assert "tunnels found broken" in told(world)


@pytest.mark.sweep
async def test_working_tunnels_of_a_release_on_which_logins_fail_are_waited_for(world: World) -> None:
    fake = with_people(world, 5)
    fake.bad_releases.add(OLD.digest)
    running = await drain(world, seconds=3600, went_back=True, failed=OLD.digest)
    await until(lambda: _counted(running, 5))
    assert fake.effects == []
    for person in range(5):
        fake.logout(f"192.0.2.{person}")
    assert (await result_of(running)).sessions_ended == 0


@pytest.mark.sweep
async def test_nobody_is_sent_from_broken_tunnels_to_an_instance_that_is_no_better(world: World) -> None:
    fake = with_people(world, 1)
    fake.bad_releases.add(NEW.digest)
    running = await drain(world, seconds=3600, went_back=True, failed=OLD.digest, decision=LOSSY)
    await until(lambda: _counted(running, 1))
    assert fake.effects == []
    fake.logout("192.0.2.0")
    await result_of(running)


@pytest.mark.sweep
@pytest.mark.parametrize("what", ["crash", "reboot"])
async def test_what_a_crash_or_reboot_cost_is_counted_as_such(world: World, what: str) -> None:
    fake = with_people(world, 3)
    running = await drain(world, seconds=3600)
    await until(lambda: _counted(running, 3))
    if what == "crash":
        fake.crash("a")
    else:
        fake.reboot()
    result = await result_of(running)
    lost = {"crash": (3, 0), "reboot": (0, 3)}[what]
    assert (result.lost_crash, result.lost_reboot) == lost
    assert result.sessions_ended == 0
    assert f"sessions lost_{what}" in told(world)


@pytest.mark.sweep
async def test_an_agent_that_fails_in_between_forgets_nothing(world: World) -> None:
    fake = with_people(world, 3)
    running = await drain(world, seconds=3600)
    await until(lambda: _counted(running, 3))
    fake.fail("count", Unavailable("gw-1 does not answer"), times=3)
    fake.crash("a")
    assert (await result_of(running)).lost_crash == 3


@pytest.mark.sweep
async def test_a_verdict_on_tunnels_ends_them_on_the_canary_it_sent_back(world: World) -> None:
    world.judge.says(UNDECIDED)
    rollout = await world.start(("gw-1",))
    await in_phase(rollout, Phase.OBSERVING)
    canary = world.gateways["gw-1"]
    assert [canary.login(f"192.0.2.{person}") for person in range(3)] == ["b", "b", "b"]
    [reading] = LOSSY.readings
    lossy = reading.model_copy(update={"gate": "packet-loss"})
    canary.dead_tunnels.add(NEW.digest)
    world.judge.says(LOSSY.model_copy(update={"readings": (lossy,)}))
    await result_of(rollout)
    await until(lambda: "stop b" in canary.effects, seconds=60)
    assert "end 3 in b" in canary.effects
    assert canary.login("192.0.2.0") == "a"


async def _counted(running: Running, sessions: int) -> bool:
    slots = (await status_of(running)).slots
    return bool(slots) and slots[0].sessions == sessions
