"""A change that only waits keeps nobody from the fleet: what moves no known-good is let in meanwhile (R3)."""

import asyncio
import time
from datetime import timedelta
from uuid import uuid4

import pytest

from policies.model.change import ChangeKind, ChangeOrder, Outcome, Phase
from policies.model.command import Command, CommandKind
from policies.model.errors import Conflict, Refused, Unavailable
from policies.model.offer import Verb
from policies.model.way_back import RollbackAsked
from policies.model.windows import WindowAnswer
from policies.status.told import Told
from tests.fakes.control import CLOSED, HEALTHY, OPEN, UNDECIDED
from tests.patience import answered, until
from tests.workflows.recorded import SOON, Recorded, blocked
from tests.workflows.test_settings import configured, with_settings
from tests.workflows.world import (
    NEW,
    NEXT,
    OLD,
    Running,
    World,
    in_phase,
    reconcile,
    release,
    result_of,
    say,
    status_of,
)
from workflows.change import Change, ChangeRun, Continued
from workflows.identities import beside
from workflows.steps import CONTROL_QUEUE


async def waiting(world: World) -> Running:
    """Start an upgrade, and return it once it waits for its window."""
    world.windows.answer = CLOSED
    order = world.order(("gw-1",), ("gw-2", "gw-3", "gw-4"))
    rollout = await world.run(order.model_copy(update={"asks_window": True}))
    await in_phase(rollout, Phase.WAITING, wave=0)
    return rollout


def drift(world: World) -> None:
    """Have a gateway serve another release than its known-good."""
    world.gateways["gw-3"].serve(NEW, "b")


@pytest.mark.sweep
@pytest.mark.parametrize("held", [False, True])
async def test_a_gateway_that_drifts_is_brought_back_while_an_upgrade_only_waits(
    world: World, held: bool
) -> None:
    rollout = await waiting(world)
    if held:
        await say(rollout, CommandKind.HOLD)
        await in_phase(rollout, Phase.HELD, wave=0)
    drift(world)
    await reconcile(world)
    await until(lambda: world.serving()["gw-3"] == "1.1.6")
    assert (await status_of(rollout)).phase is (Phase.HELD if held else Phase.WAITING)
    if held:
        await say(rollout, CommandKind.RESUME)
    world.windows.answer = OPEN
    result = await result_of(rollout)
    assert (result.outcome, result.aside) == (Outcome.PROMOTED, {}), result.reason
    assert set(world.serving().values()) == {"1.3.0"}
    assert world.book.open_changes("edge") == ()


async def between_waves(world: World) -> Running:
    """Start an upgrade, and return it once its first wave has passed and the second waits for its window."""
    world.judge.says(UNDECIDED)
    order = world.order(("gw-1",), ("gw-2", "gw-3", "gw-4"))
    rollout = await world.run(order.model_copy(update={"asks_window": True}))
    await in_phase(rollout, Phase.OBSERVING)
    world.windows.answer = CLOSED
    world.judge.says(HEALTHY)
    await in_phase(rollout, Phase.WAITING)
    return rollout


@pytest.mark.sweep
async def test_what_drifts_between_two_waves_is_brought_back_and_what_has_passed_is_left_alone(
    world: World,
) -> None:
    rollout = await between_waves(world)
    world.gateways["gw-3"].crash("a")
    await reconcile(world)
    await until(lambda: "keep b" in world.gateways["gw-3"].effects)
    await until(lambda: len(world.book.open_changes("edge")) == 1)
    assert world.serving() == {"gw-1": "1.3.0", "gw-2": "1.1.6", "gw-3": "1.1.6", "gw-4": "1.1.6"}
    world.windows.answer = OPEN
    result = await result_of(rollout)
    assert (result.outcome, result.aside) == (Outcome.PROMOTED, {}), result.reason
    assert set(world.serving().values()) == {"1.3.0"}


async def test_an_upgrade_between_two_waves_hears_nothing_of_the_gateways_that_it_has_changed_itself(
    world: World,
) -> None:
    rollout = await between_waves(world)
    await reconcile(world)
    events = [event async for event in rollout.fetch_history_events()]
    signals = [event.workflow_execution_signaled_event_attributes.signal_name for event in events]
    assert "let_in" not in signals


@pytest.mark.sweep
async def test_credentials_are_reloaded_in_an_emergency_between_two_waves(recorded: Recorded) -> None:
    world = recorded.world
    rollout = await between_waves(world)
    plan = await recorded.service.plan_reload(world.fleet)
    name = await recorded.service.reload(world.fleet, plan, "on call", "a key was stolen")
    assert name is not None
    await until(lambda: world.book.change(name).outcome is Outcome.PROMOTED)
    assert world.serving()["gw-1"] == "1.3.0"
    world.windows.answer = OPEN
    assert (await result_of(rollout)).outcome is Outcome.PROMOTED


@pytest.mark.sweep
@pytest.mark.parametrize("held", [False, True])
async def test_a_reload_that_a_wave_on_trial_keeps_out_is_offered_no_hold_which_changes_nothing(
    recorded: Recorded, held: bool
) -> None:
    world = recorded.world
    world.judge.says(UNDECIDED)
    rollout = await world.run(world.order(("gw-1",), ("gw-2", "gw-3", "gw-4")))
    await in_phase(rollout, Phase.OBSERVING)
    if held:
        await say(rollout, CommandKind.HOLD)
        await in_phase(rollout, Phase.HELD)
    plan = await recorded.service.plan_reload(world.fleet, at_once=True, unserved=False)
    with pytest.raises(
        Conflict, match=r"which lets this in before its first wave and between waves"
    ) as refused:
        await recorded.service.reload(world.fleet, plan, "on call", "an account was stolen")
    assert [offer.verb for offer in refused.value.offers] == [Verb.STATUS, Verb.ROLL_BACK]
    await say(rollout, CommandKind.ROLL_BACK)
    assert (await result_of(rollout)).outcome is Outcome.ROLLED_BACK
    assert await recorded.service.reload(world.fleet, plan, "on call", "an account was stolen")


@pytest.mark.sweep
async def test_a_rollback_ends_what_a_waiting_upgrade_has_let_in(world: World) -> None:
    rollout = await waiting(world)
    drift(world)
    world.gateways["gw-3"].fail("restore", Unavailable("gw-3 does not answer"), times=10_000)
    await reconcile(world)
    await until(lambda: len(world.book.open_changes("edge")) > 1)
    await say(rollout, CommandKind.ROLL_BACK)
    assert (await result_of(rollout)).outcome is Outcome.ROLLED_BACK
    assert world.book.open_changes("edge") == ()


@pytest.mark.sweep
async def test_credentials_are_reloaded_in_an_emergency_while_an_upgrade_only_waits(
    recorded: Recorded,
) -> None:
    world = recorded.world
    rollout = await waiting(world)
    plan = await recorded.service.plan_reload(world.fleet)
    name = await recorded.service.reload(world.fleet, plan, "on call", "a key was stolen")
    assert name is not None
    await until(lambda: world.book.change(name).outcome is Outcome.PROMOTED)
    assert world.book.change(name).kind is ChangeKind.RELOAD
    assert all("reload a" in fake.effects for fake in world.gateways.values())
    world.windows.answer = OPEN
    assert (await result_of(rollout)).outcome is Outcome.PROMOTED


@pytest.mark.sweep
async def test_an_emergency_reload_waits_for_no_gateway_that_reconcile_brings_back(
    recorded: Recorded,
) -> None:
    """It was refused as long as the return that reconcile had let in waited for a host."""
    world = recorded.world
    await waiting(world)
    drift(world)
    world.gateways["gw-3"].fail("restore", Unavailable("gw-3 does not answer"), times=10_000)
    plan = await recorded.service.plan_reload(world.fleet)
    await reconcile(world)
    await until(lambda: len(world.book.open_changes("edge")) > 1)
    name = await recorded.service.reload(world.fleet, plan, "on call", "a key was stolen")
    assert name is not None
    await until(lambda: world.book.change(name).outcome is Outcome.PROMOTED)
    assert all("reload a" in world.gateways[gateway].effects for gateway in ("gw-1", "gw-2", "gw-4"))


async def reload_order(recorded: Recorded) -> ChangeOrder:
    """Return an operator's order to reload credentials, as the service gives it to the change under way."""
    plan = await recorded.service.plan_reload(recorded.world.fleet)
    return ChangeOrder(
        fleet="edge",
        kind=ChangeKind.RELOAD,
        plan=plan.digest,
        requested_by="on call",
        reason="a key was stolen",
        key=uuid4().hex,
    )


@pytest.mark.sweep
@pytest.mark.parametrize("window", [CLOSED, OPEN], ids=["waits on", "begins its next wave"])
async def test_an_order_in_the_first_task_after_a_cut_is_let_in_before_the_next_wave(
    recorded: Recorded, window: WindowAnswer
) -> None:
    """It was dropped: a run that had just begun did not know yet that it only waits."""
    world = recorded.world
    world.windows.answer = window
    reload = await reload_order(recorded)
    order = world.order(("gw-1",), ("gw-2", "gw-3", "gw-4")).model_copy(update={"asks_window": True})
    assert order.plan is not None
    name = world.opened(order)
    cut = Continued(
        name=name,
        header=world.book.plan_header(order.plan),
        epoch=time.time_ns() // 1_000_000,
        passed=0,
        told=Told(name=name),
        receipts={},
    )
    rollout = await world.client.start_workflow(
        Change.run,
        ChangeRun(order=order, continued=cut),
        id="change/edge",
        task_queue=CONTROL_QUEUE,
        start_signal="let_in",
        start_signal_args=[reload],
    )
    await until(lambda: recorded.ledger.change_of_key(reload.key or "") is not None, SOON)
    world.windows.answer = OPEN
    assert (await result_of(rollout)).outcome is Outcome.PROMOTED
    assert all(fake.effects[0] == "reload a" for fake in world.gateways.values())


@pytest.mark.sweep
async def test_an_order_that_arrives_ahead_of_the_end_of_what_was_let_in_is_not_lost(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rollback that ended a bad reload was refused, since the upgrade had not heard of that end."""
    monkeypatch.setattr("workflows.change.KEPT_FOR", timedelta(hours=1))  # that end takes what it takes
    world = recorded.world
    rollout = await waiting(world)
    ended, kept = await reload_order(recorded), await reload_order(recorded)
    async with blocked(world.gateways["gw-4"], "reload", times=range(1, 100)) as taken:
        await rollout.signal("let_in", ended)
        await asyncio.wait_for(taken.wait(), SOON)
        await rollout.signal("let_in", kept)
        guest = world.client.get_workflow_handle(beside("change/edge"))
        stop = Command(id="ends", kind=CommandKind.ABORT, person="ana", reason="nobody logs in")
        await guest.signal("command_fallback", stop)
        await until(lambda: recorded.ledger.change_of_key(kept.key or "") is not None, SOON)
    assert (await status_of(rollout)).phase is Phase.WAITING


@pytest.mark.sweep
async def test_a_bad_reload_that_an_upgrade_has_let_in_is_taken_back_before_it_has_ended(
    recorded: Recorded,
) -> None:
    """A host that did not answer the reload had its rollback refused, and nobody could log in."""
    world, service = recorded.world, recorded.service
    await waiting(world)
    async with blocked(world.gateways["gw-4"], "reload", times=range(1, 100)) as taken:
        plan = await service.plan_reload(world.fleet)
        name = await service.reload(world.fleet, plan, "on call", "a new CA")
        await asyncio.wait_for(taken.wait(), SOON)
        receipt = await service.roll_back(world.fleet, "ana", "nobody logs in", of=name)
        assert f"the credentials that it had before {name}" in receipt.sentence
        await until(lambda: recorded.ledger.history("edge")[0].outcome is Outcome.ROLLED_BACK)


@pytest.mark.sweep
async def test_bad_settings_are_taken_back_while_an_upgrade_only_waits_and_no_release_with_them(
    recorded: Recorded,
) -> None:
    """They were refused; the rollback that was offered instead took the last good promotion back."""
    world, service = recorded.world, recorded.service
    assert (await recorded.upgrade()).outcome is Outcome.PROMOTED
    await recorded.everybody_on(NEW)
    await configured(recorded, with_settings(recorded))
    await service.end_of("edge")
    world.windows.answer = CLOSED
    name = await recorded.start(release=NEXT)
    shown = await service.rollback_preview(world.fleet, RollbackAsked(settings=True), None)
    receipt = await service.roll_back(
        world.fleet, "ana", "no name is found", settings=True, shown=shown.digest
    )
    assert "the settings that it had before edge-3; every gateway keeps its release" in receipt.sentence
    await until(lambda: not any(fake.settings for fake in world.gateways.values()), SOON)
    assert set(world.serving().values()) == {NEW.version}
    status = await answered(lambda: service.status("edge"))
    assert (status.rollout, status.phase) == (name, Phase.WAITING)


@pytest.mark.sweep
async def test_bad_settings_are_taken_back_between_two_waves_of_an_upgrade(recorded: Recorded) -> None:
    world, service = recorded.world, recorded.service
    await configured(recorded, with_settings(recorded))
    await service.end_of("edge")
    rollout = await between_waves(world)
    await service.roll_back(world.fleet, "ana", "no name is found", settings=True)
    await until(lambda: not any(fake.settings for fake in world.gateways.values()), SOON)
    assert world.serving()["gw-1"] == NEW.version
    assert (await status_of(rollout)).phase is Phase.WAITING


@pytest.mark.sweep
async def test_a_rollback_to_a_release_by_name_ends_an_upgrade_that_only_waits(recorded: Recorded) -> None:
    world, service = recorded.world, recorded.service
    for newer in (NEW, NEXT):
        assert (await recorded.upgrade(release=newer)).outcome is Outcome.PROMOTED
        await recorded.everybody_on(newer)
    world.windows.answer = CLOSED
    name = await recorded.start(release=NEW)
    with pytest.raises(Refused, match="never known-good"):
        await service.roll_back(world.fleet, "ana", "users call", to=release("2.0.0"))
    status = await answered(lambda: service.status("edge"))
    assert status.phase is not Phase.ENDED  # what is refused ends nothing
    receipt = await service.roll_back(world.fleet, "ana", "users call", to=OLD)
    assert f"{name} has moved no session and ends." in receipt.sentence
    await recorded.everybody_on(OLD)
