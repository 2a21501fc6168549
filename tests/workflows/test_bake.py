"""After promotion: the gates go on, and harm still sends the fleet back."""

import threading
from datetime import timedelta

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowExecutionStatus

from policies.model.change import ChangeKind, ChangeOrder, KnownGoodBatch, Outcome, Phase
from policies.model.command import CommandKind
from policies.model.errors import Unavailable
from policies.model.report import TakenOver
from policies.model.verdict import Action, Decision, GateReading, GateVerdict
from policies.model.way_back import Confirmation
from policies.notices.entries import HARM, UNWATCHED
from tests.fakes.control import CLOSED, MEASURED, QUIET, UNDECIDED, UNHEALTHY
from tests.patience import PATIENCE, until
from tests.unit.test_harm_asked import COHORTS, alerting
from tests.workflows.engine import Engine
from tests.workflows.recorded import Recorded
from tests.workflows.test_rollback_facts import without
from tests.workflows.world import (
    NEXT,
    OLD,
    Running,
    World,
    began_with,
    fleet_of,
    in_phase,
    reconcile,
    result_of,
    say,
    working,
)
from workflows import steps
from workflows.bake import Bake, BakeOrder
from workflows.identities import bake_of, change_of
from workflows.steps import CONTROL_QUEUE
from workflows.watch import watch_of

IN_A_MINUTE = 60.0
"""Seconds: the promise for harm that is found after a promotion."""

CRASHED = Decision(action=Action.ROLL_BACK, verdict=GateVerdict.HARD, reason="gw-1 restarted by itself")

BLIND = Decision(
    action=Action.HOLD, verdict=GateVerdict.METRICS_UNAVAILABLE, reason="Prometheus does not answer"
)

CONFLICTING = Decision(
    action=Action.HOLD, verdict=GateVerdict.CONFLICTING, reason="gw-1 fails, but control does as well"
)


async def test_harm_found_after_promotion_sends_the_whole_fleet_back(world: World) -> None:
    world.judge.says(UNDECIDED, wave=0)
    result = await world.upgrade(("gw-1",), ("gw-2", "gw-3", "gw-4"))
    assert result.outcome is Outcome.PROMOTED
    world.judge.says(CRASHED, wave=0)
    await until(lambda: set(world.serving().values()) == {"1.1.6"})
    await until(lambda: world.book.known_good(world.fleet.name) == dict.fromkeys(world.gateways, OLD))


@pytest.mark.sweep
async def test_a_quiet_bake_ends_in_peace_and_changes_nothing(server: Engine) -> None:
    fleet = fleet_of("edge", kept=timedelta(seconds=4), lease=timedelta(seconds=15))
    async with working(World.made(await server.client(), fleet)) as world:
        await world.upgrade(("gw-1",), ("gw-2", "gw-3", "gw-4"))
        ended = await result_of(world.client.get_workflow_handle(bake_of(world.fleet.name)))
    assert ended["peaceful"] is True
    assert set(world.serving().values()) == {"1.3.0"}


@pytest.mark.sweep
async def test_a_bake_that_ends_while_the_metrics_cannot_be_read_is_no_peace(server: Engine) -> None:
    fleet = fleet_of("edge", kept=timedelta(seconds=4), lease=timedelta(seconds=15))
    async with working(World.made(await server.client(), fleet)) as world:
        world.judge.says(BLIND, wave=0)
        await world.upgrade(("gw-1",), ("gw-2", "gw-3", "gw-4"))
        ended = await result_of(world.client.get_workflow_handle(bake_of(world.fleet.name)))
    assert ended["peaceful"] is False
    assert BLIND.reason in ended["reason"]
    assert set(world.serving().values()) == {"1.3.0"}


@pytest.mark.sweep
async def test_the_bake_watches_the_promoted_change_as_its_wave_0(world: World) -> None:
    await world.upgrade(("gw-1",), ("gw-2", "gw-3", "gw-4"))
    await until(lambda: bool(world.judge.bakes))
    asked = world.judge.bakes[0]
    assert (asked.change, asked.wave, asked.complete) == (world.newest, 0, True)


@pytest.mark.sweep
async def test_the_next_rollout_ends_the_bake_of_the_last(world: World) -> None:
    world.judge.says(UNDECIDED, wave=0)
    await world.upgrade(("gw-1",))
    await until(lambda: bool(world.judge.bakes))
    result = await world.upgrade(("gw-1",), release=NEXT)
    assert result.outcome is Outcome.PROMOTED, result.reason
    assert world.serving()["gw-1"] == "1.4.0"


@pytest.mark.sweep
async def test_nothing_begins_on_top_of_what_is_found_harmful_while_it_is_being_checked(world: World) -> None:
    world.judge.says(UNDECIDED, wave=0)
    await world.upgrade(("gw-1",))
    await until(lambda: bool(world.judge.bakes))
    world.admission.pause = 10
    rollout = await world.start(("gw-2",), release=NEXT)
    world.judge.says(CRASHED, wave=0)
    result = await result_of(rollout)
    assert (result.outcome, CRASHED.reason in result.reason) == (Outcome.REFUSED, True)
    await until(lambda: set(world.serving().values()) == {"1.1.6"})


# A4: the lock is not kept from harm by a change that waits (R3).


@pytest.mark.sweep
@pytest.mark.parametrize("waits_for", ["its window", "a hold", "a second person", "its check"])
async def test_harm_in_the_bake_goes_back_at_once_whatever_the_next_change_waits_for(
    world: World, waits_for: str
) -> None:
    world.judge.says(UNDECIDED, wave=0)
    await world.upgrade(("gw-1",), ("gw-2", "gw-3", "gw-4"))
    await until(lambda: bool(world.judge.bakes))
    waiting = await change_that_waits(world, waits_for)
    world.judge.says(CRASHED, wave=0)
    result = await result_of(waiting)
    assert (result.outcome, CRASHED.reason in result.reason) == (Outcome.REFUSED, True)
    await until(lambda: set(world.serving().values()) == {"1.1.6"}, IN_A_MINUTE)


@pytest.mark.sweep
async def test_harm_found_while_the_next_upgrade_begins_takes_both_back(world: World) -> None:
    """A4: the bake ends only for a change that goes back; any other one gives way to it."""
    world.judge.says(UNDECIDED, wave=0)
    await world.upgrade(("gw-1",), ("gw-2", "gw-3", "gw-4"))
    await until(lambda: bool(world.judge.bakes))
    world.judge.says(UNDECIDED, wave=1)
    rollout = await world.start(("gw-1",), release=NEXT)
    await in_phase(rollout, Phase.OBSERVING)
    await rollout.signal("harm", args=["edge-2: gw-1 restarted by itself", "edge-2"])
    result = await result_of(rollout)
    assert (result.outcome, "restarted by itself" in result.reason) == (Outcome.ROLLED_BACK, True)


# A7: what stands is watched for the rest of its time.


@pytest.mark.sweep
async def test_what_serves_is_watched_on_after_the_next_release_went_back(world: World) -> None:
    world.judge.says(UNDECIDED, wave=0)
    await world.upgrade(("gw-1",), ("gw-2", "gw-3", "gw-4"))
    promoted = world.newest
    await until(lambda: bool(world.judge.bakes))
    world.judge.says(UNHEALTHY, wave=1)
    result = await world.upgrade(("gw-1",), ("gw-2",), release=NEXT)
    assert result.outcome is Outcome.ROLLED_BACK
    world.judge.bakes.clear()
    world.judge.says(CRASHED, wave=0)
    await until(lambda: set(world.serving().values()) == {"1.1.6"}, IN_A_MINUTE)
    assert {asked.change for asked in world.judge.bakes} == {promoted}


@pytest.mark.sweep
async def test_a_watch_over_a_promotion_that_was_lost_is_begun_again_within_a_minute(world: World) -> None:
    """A7: also where the next change, or the bake itself, was ended by force."""
    world.judge.says(UNDECIDED, wave=0)
    await world.upgrade(("gw-1",), ("gw-2", "gw-3", "gw-4"))
    await until(lambda: bool(world.judge.bakes))
    await world.client.get_workflow_handle(bake_of(world.fleet.name)).terminate("the engine lost it")
    await reconcile(world)
    looks = len(world.judge.bakes)
    await until(lambda: len(world.judge.bakes) > looks)


@pytest.mark.sweep
async def test_a_promotion_that_was_taken_back_or_is_old_is_watched_no_more(world: World) -> None:
    world.judge.says(UNDECIDED, wave=0)
    await world.upgrade(("gw-1",), ("gw-2", "gw-3", "gw-4"))
    world.judge.says(CRASHED, wave=0)
    await until(lambda: set(world.serving().values()) == {"1.1.6"})
    change = world.client.get_workflow_handle(change_of(world.fleet.name))
    await until(lambda: world.book.open_changes(world.fleet.name) == ())
    await change.result()
    looks = len(world.judge.bakes)
    await reconcile(world)
    bake = await world.client.get_workflow_handle(bake_of(world.fleet.name)).describe()
    assert (bake.status, len(world.judge.bakes)) == (WorkflowExecutionStatus.COMPLETED, looks)


@pytest.mark.sweep
async def test_reconcile_leaves_no_watch_over_what_a_rollback_is_taking_back(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Harm that it found there had the rollback itself end without hosts that were silent."""
    world, moves, taking_back = recorded.world, threading.Event(), threading.Event()
    world.judge.says(UNDECIDED, wave=0)
    await recorded.upgrade(("gw-1",), ("gw-2", "gw-3", "gw-4"))
    await until(lambda: bool(world.judge.bakes))
    record = world.book.record_known_good_batch

    def late(batch: KnownGoodBatch) -> None:
        taking_back.set()
        moves.wait(PATIENCE)
        record(batch)

    monkeypatch.setattr(world.book, "record_known_good_batch", late)
    await recorded.service.roll_back(world.fleet, "ana", "users call")
    await until(taking_back.is_set)
    await recorded.reconcile()
    looks = len(world.judge.bakes)

    async def is_over() -> bool:
        return not await recorded.bakes()

    await until(is_over, 20)
    assert len(world.judge.bakes) <= looks + 1
    moves.set()
    await recorded.everybody_on(OLD)


@pytest.mark.sweep
@pytest.mark.parametrize("automation", ["ask", "observe"])
async def test_a_hard_sign_in_the_bake_goes_back_also_after_harm_that_operators_decide_about(
    server: Engine, automation: str
) -> None:
    """B5: the watch goes on after the first statistical verdict."""
    fleet = fleet_of("edge", lease=timedelta(seconds=15), automation=automation)
    async with working(World.made(await server.client(), fleet)) as world:
        world.judge.says(UNDECIDED, wave=0)
        assert (await world.upgrade(("gw-1", "gw-2", "gw-3", "gw-4"))).outcome is Outcome.PROMOTED
        world.judge.says(MEASURED, wave=0)
        await until(lambda: asked(world) == [MEASURED.reason])
        assert set(world.serving().values()) == {"1.3.0"}
        world.judge.says(CRASHED, wave=0)
        await until(lambda: set(world.serving().values()) == {"1.1.6"}, IN_A_MINUTE)


@pytest.mark.sweep
async def test_operators_are_asked_about_harm_that_is_measured_after_the_promotion(server: Engine) -> None:
    """The judge rolls back only for hard signs there: the harm was written nowhere, and the bake peaceful."""
    fleet = fleet_of("edge", kept=timedelta(seconds=12), lease=timedelta(seconds=15))
    async with working(World.made(await server.client(), fleet)) as world:
        world.judge.says(MEASURED, wave=0)
        await world.upgrade(("gw-1",), ("gw-2", "gw-3", "gw-4"))
        await until(lambda: asked(world) == [MEASURED.reason])
        ended = await result_of(world.client.get_workflow_handle(bake_of(world.fleet.name)))
        assert asked(world) == [MEASURED.reason]
        assert set(world.serving().values()) == {"1.3.0"}
    assert ended["peaceful"] is False
    assert f"still seen, and no rollback followed: {MEASURED.reason}" in ended["reason"]


@pytest.mark.sweep
async def test_harm_that_is_gone_is_named_at_the_end_of_the_bake(server: Engine) -> None:
    fleet = fleet_of("edge", kept=timedelta(seconds=12), lease=timedelta(seconds=15))
    async with working(World.made(await server.client(), fleet)) as world:
        world.judge.says(MEASURED, wave=0)
        await world.upgrade(("gw-1",), ("gw-2", "gw-3", "gw-4"))
        await until(lambda: asked(world) == [MEASURED.reason])
        world.judge.says(QUIET, wave=0)
        ended = await result_of(world.client.get_workflow_handle(bake_of(world.fleet.name)))
    assert ended["peaceful"] is False
    assert f"not seen any more, and no rollback followed: {MEASURED.reason}" in ended["reason"]


@pytest.mark.sweep
async def test_operators_are_asked_once_more_when_another_gate_shows_harm_and_never_twice_of_one(
    world: World,
) -> None:
    logins = GateReading(gate="logins", verdict=GateVerdict.UNHEALTHY, reason="logins: 9 of 10 bad")
    tunnels = GateReading(gate="tunnels", verdict=GateVerdict.UNHEALTHY, reason="tunnels: 5 of 6 bad")
    blind = GateReading(gate="tunnels", verdict=GateVerdict.METRICS_UNAVAILABLE, reason="tunnels: no value")

    def shown(*readings: GateReading) -> None:
        found = MEASURED.model_copy(update={"reason": readings[0].reason, "readings": readings})
        looks = len(world.judge.bakes)
        world.judge.says(found, wave=0)
        seen.append(looks + 2)

    async def is_seen() -> None:
        await until(lambda: len(world.judge.bakes) > seen[-1])

    seen = list[int]()
    world.judge.says(UNDECIDED, wave=0)
    await world.upgrade(("gw-1",), ("gw-2", "gw-3", "gw-4"))
    for readings in ((logins,), (logins, blind), (tunnels, logins), (logins,), (tunnels,)):
        shown(*readings)
        await is_seen()
    await until(lambda: asked(world) == [logins.reason, tunnels.reason])


@pytest.mark.sweep
async def test_operators_are_asked_again_when_harm_comes_back_and_not_because_it_has_gone(
    world: World,
) -> None:
    """Operators were asked once more while the hold cleared, and never about the harm that came back."""
    firing, *clearing, cleared = alerting({3}, 8, COHORTS)[3:]

    async def episode(number: int) -> None:
        for said in (firing, clearing[0], firing, *clearing, cleared):
            seen = len(world.judge.bakes) + 2
            world.judge.says(said, wave=0)
            await until(lambda: len(world.judge.bakes) > seen)  # noqa: B023 - awaited in the same turn
        await until(lambda: asked(world) == [firing.reason] * number)

    world.judge.says(UNDECIDED, wave=0)
    await world.upgrade(("gw-1",), ("gw-2", "gw-3", "gw-4"))
    await episode(1)
    await episode(2)


@pytest.mark.sweep
async def test_evidence_that_conflicts_to_the_end_of_the_bake_is_no_peace(
    server: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R5: while a shared part is ill no harm would be found, and the bake said that none was."""
    monkeypatch.setattr(steps, "UNREAD_FOR", timedelta(seconds=1))
    fleet = fleet_of("edge", kept=timedelta(seconds=12), lease=timedelta(seconds=15))
    async with working(World.made(await server.client(), fleet)) as world:
        world.judge.says(CONFLICTING, wave=0)
        await world.upgrade(("gw-1",), ("gw-2", "gw-3", "gw-4"))
        await until(lambda: UNWATCHED in [action for action, *_ in world.book.events.values()])
        ended = await result_of(world.client.get_workflow_handle(bake_of(world.fleet.name)))
    assert (ended["peaceful"], CONFLICTING.reason in ended["reason"]) == (False, True)


def asked(world: World) -> list[str]:
    """Return about which harm operators were asked, in the order in which that was written."""
    entries = world.book.events.values()
    found = [body["sentence"] for action, _, body in entries if action == HARM and isinstance(body, dict)]
    return [sentence.removesuffix("; a person decides whether to go back") for sentence in found]


# Rings: a promotion on some gateways ends no watch over one on others.


@pytest.mark.sweep
async def test_a_ring_is_watched_to_its_end_after_the_next_ring_was_promoted(world: World) -> None:
    world.judge.says(UNDECIDED, wave=0)
    await world.upgrade(("gw-1", "gw-2"))
    first = world.newest
    await until(lambda: bool(world.judge.bakes))
    assert (await world.upgrade(("gw-3",), ("gw-4",))).outcome is Outcome.PROMOTED
    second = world.newest
    world.judge.bakes.clear()
    await until(lambda: {asked.change for asked in world.judge.bakes} == {first, second})
    world.judge.after[first] = CRASHED
    await until(lambda: {world.serving()[name] for name in ("gw-1", "gw-2")} == {"1.1.6"}, IN_A_MINUTE)
    assert {world.serving()[name] for name in ("gw-3", "gw-4")} == {"1.3.0"}
    world.judge.bakes.clear()
    await until(lambda: second in {asked.change for asked in world.judge.bakes})


@pytest.mark.sweep
async def test_a_promotion_is_watched_once_after_harm_in_a_newer_one_was_taken_back(world: World) -> None:
    """Two watches took a gateway that failed alone back, and the second ended the next upgrade for it."""
    first, second = await two_promotions(world, ("gw-3",), ("gw-4",))
    world.judge.after[second] = CRASHED
    await until(lambda: world.serving()["gw-3"] == "1.1.6", IN_A_MINUTE)

    async def is_watched_once() -> bool:
        return await watches(world) == [(bake_of("edge"), first)]

    await until(is_watched_once)


@pytest.mark.sweep
async def test_a_wave_that_begins_as_a_watch_does_is_left_out_of_the_watch_over_older_promotions_too(
    world: World,
) -> None:
    """They were begun by what the ledger had of the wave, which was nothing yet."""
    first, _ = await two_promotions(world, ("gw-3",), ("gw-4",))
    order, _ = await began_with(world.client, bake_of("edge"), BakeOrder)
    older = f"{bake_of('edge')}/{first}"
    for watch in (bake_of("edge"), older):
        await world.client.get_workflow_handle(watch).terminate("the engine lost it")
    await until(lambda: watches_nothing(world))
    taken = TakenOver(change="edge-9", up_to=1)
    await world.client.start_workflow(
        Bake.run,
        order,
        id=bake_of("edge"),
        task_queue=CONTROL_QUEUE,
        start_signal="take_over",
        start_signal_args=[taken],
    )
    # Slices of the watches that were lost may still end, so the order of the new one is asked.
    await until(lambda: any(asked.left_to == taken for asked in world.judge.bakes if asked.change == first))
    begun, _ = await began_with(world.client, older, BakeOrder)
    assert begun.left_to == taken


async def watches_nothing(world: World) -> bool:
    return not await watches(world)


async def two_promotions(world: World, *newer: tuple[str, ...]) -> tuple[str, str]:
    """Promote one release on two gateways and then the next in these waves; return both once watched."""
    world.judge.says(UNDECIDED, wave=0)
    await world.upgrade(("gw-1", "gw-2"))
    first = world.newest
    await world.upgrade(*newer, release=NEXT)
    second = world.newest
    await until(lambda: {asked.change for asked in world.judge.bakes} == {first, second})
    return first, second


async def watches(world: World) -> list[tuple[str, str]]:
    """Return each watch over a promotion that runs, and the change that it watches."""
    running = "WorkflowType = 'Bake' AND ExecutionStatus = 'Running'"
    found = [one async for one in world.client.list_workflows(running)]
    orders = [await began_with(world.client, one.id, BakeOrder, one.run_id) for one in found]
    return sorted((one.id, order.change) for one, (order, _) in zip(found, orders, strict=True))


@pytest.mark.sweep
async def test_a_watch_begins_although_the_one_before_it_is_still_ending(world: World) -> None:
    """The bake had no watch at all from then on: a ring was promoted, and nobody looked at it."""
    world.judge.says(UNDECIDED, wave=0)
    named = watch_of(bake_of("edge"))
    ending = await world.client.start_workflow("Watch", id=named, task_queue="which nobody serves")
    await world.upgrade(("gw-1", "gw-2"))
    bake = world.client.get_workflow_handle(bake_of("edge"))
    await until(lambda: has_tried_to_watch(bake))
    assert not world.judge.bakes
    await ending.terminate("it has ended")
    await until(lambda: bool(world.judge.bakes))


async def has_tried_to_watch(bake: Running) -> bool:
    """Return whether the watch of this bake was refused because another of its name runs."""
    failed = EventType.EVENT_TYPE_START_CHILD_WORKFLOW_EXECUTION_FAILED
    return failed in {event.event_type async for event in bake.fetch_history_events()}


@pytest.mark.sweep
async def test_harm_in_an_older_promotion_takes_back_no_gateway_that_a_later_one_has_moved(
    world: World,
) -> None:
    """R1: its whole plan went back, and gateways of the later release skipped one."""
    first, _ = await two_promotions(world, ("gw-2",), ("gw-3",))
    world.judge.after[first] = CRASHED
    await until(lambda: world.serving()["gw-1"] == "1.1.6", IN_A_MINUTE)
    await until(lambda: world.book.open_changes(world.fleet.name) == ())
    assert {world.serving()[name] for name in ("gw-2", "gw-3")} == {"1.4.0"}
    assert world.book.known_good(world.fleet.name)["gw-2"] == NEXT


@pytest.mark.sweep
async def test_a_gateway_that_failed_and_left_the_file_has_no_later_promotion_taken_back(
    server: Engine,
) -> None:
    """No plan could be made without it, and everything went back as it had been promoted."""
    world = World.made(await server.client(), fleet_of("edge", size=5, failures="50%"))
    async with working(world):
        world.gateways["gw-4"].fail("stage", Unavailable("gw-4 has no space left"), times=10_000)
        world.judge.says(UNDECIDED, wave=0)
        result = await world.upgrade(("gw-1",), ("gw-2", "gw-3", "gw-4"))
        assert (result.outcome, [*result.aside]) == (Outcome.PROMOTED, ["gw-4"])
        first = world.newest
        world.folder.known["edge"] = without(world.fleet, "gw-4")
        await world.upgrade(("gw-2",), release=NEXT)
        second = world.newest
        await until(lambda: {asked.change for asked in world.judge.bakes} >= {first, second})
        world.judge.after[first] = CRASHED
        await until(lambda: world.serving()["gw-1"] == world.serving()["gw-3"] == "1.1.6", IN_A_MINUTE)
        await until(lambda: world.book.open_changes("edge") == ())
        assert world.serving()["gw-2"] == "1.4.0"


@pytest.mark.sweep
async def test_harm_found_after_promotion_waits_for_no_dead_gateway_that_left_the_file(world: World) -> None:
    """It was tried for ever, and the fleet's lock with it; a rollback that an operator orders goes on."""
    world.judge.says(UNDECIDED, wave=0)
    await world.upgrade(("gw-1",), ("gw-2", "gw-3", "gw-4"))
    promoted = world.newest
    await until(lambda: bool(world.judge.bakes))
    world.gateways["gw-4"].fail("restore", Unavailable("gw-4 does not answer"), times=10_000)
    world.folder.known["edge"] = without(world.fleet, "gw-4")
    world.judge.after[promoted] = CRASHED
    await until(lambda: world.book.closed[-1].outcome is Outcome.ROLLED_BACK, IN_A_MINUTE)
    assert "gw-4 left the fleet's file and did not go back" in world.book.closed[-1].sentence
    assert {world.serving()[name] for name in ("gw-1", "gw-2", "gw-3")} == {"1.1.6"}


@pytest.mark.sweep
async def test_a_ring_is_watched_on_while_the_next_ring_is_upgraded(world: World) -> None:
    world.judge.says(UNDECIDED, wave=0)
    await world.upgrade(("gw-1", "gw-2"))
    first = world.newest
    await until(lambda: bool(world.judge.bakes))
    world.judge.says(UNDECIDED)
    rollout = await world.start(("gw-3", "gw-4"))
    await in_phase(rollout, Phase.OBSERVING)
    world.judge.after[first] = CRASHED
    await until(lambda: set(world.serving().values()) == {"1.1.6"}, IN_A_MINUTE)


async def change_that_waits(world: World, waits_for: str) -> Running:
    """Start the fleet's next change, and return it once it waits for that."""
    if waits_for == "a second person":
        plan = world.book.record_return(world.fleet, {"gw-4": OLD})
        confirm = Confirmation(
            reason="1.1.6 is not known-good", within=timedelta(hours=1), change=plan, known_good=plan
        )
        order = ChangeOrder(
            fleet="edge", kind=ChangeKind.GO_BACK, plan=plan, reason="ana: one moment", confirm=confirm
        )
        waiting = await world.run(order)
        await in_phase(waiting, Phase.HELD, wave=0)
        return waiting
    world.windows.answer = CLOSED
    if waits_for == "its check":
        world.admission.pause = 60
    order = world.order(("gw-1",), release=NEXT)
    in_window = waits_for == "its window"
    waiting = await world.run(order.model_copy(update={"asks_window": in_window}))
    if waits_for == "a hold":
        await say(waiting, CommandKind.HOLD)
        await in_phase(waiting, Phase.HELD, wave=0)
    elif in_window:
        await in_phase(waiting, Phase.WAITING, wave=0)
    return waiting
