"""Harm, a yes and a rollback act at once, whatever is away, hangs or is under way beside them (R3, R4)."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.service import RPCError

from orchestrator.service.changes import ChangeService
from policies.model.change import PENSTOCK_WATCH, ChangeOrder, Outcome, Phase
from policies.model.command import Command, CommandKind
from policies.model.errors import Refused, Unavailable
from policies.model.fleet import Automation
from policies.status.told import Told
from tests.fakes.control import CRASHING, FROZEN, HEALTHY, MEASURED, OPEN, PASSED, QUIET, UNDECIDED, UNHEALTHY
from tests.patience import until
from tests.workflows.engine import Engine
from tests.workflows.recorded import SOON, Recorded, blocked
from tests.workflows.test_commands import half_promoted
from tests.workflows.test_passed_waves import second_wave_that
from tests.workflows.test_reload import begun as reload_begun
from tests.workflows.test_rollback import second_wave_on_trial
from tests.workflows.test_way_back import answer, ask_for, is_waiting
from tests.workflows.test_way_back_holds_nothing_up import (
    RING_1,
    cut_amid_a_way_back,
    serve,
    waits_for_gw_3,
)
from tests.workflows.test_windows import held_by_a_freeze
from tests.workflows.world import (
    OLD,
    Running,
    World,
    fleet_of,
    in_phase,
    result_of,
    run_of,
    say,
    status_of,
    working,
)
from workflows import change
from workflows.identities import return_of

AT_ONCE = 25.0
"""Seconds within which gateways go back: fewer than the 30 in which an entry is tried."""

REFUSED_WITHIN = 20.0
"""Seconds within which a gateway is back that has refused three tries."""

BACK = Command(id="1", kind=CommandKind.ROLL_BACK, person="ana", reason="users call")


@contextmanager
def hanging(
    monkeypatch: pytest.MonkeyPatch, world: World, method: str, which: Callable[..., bool] = lambda *_: True
) -> Iterator[threading.Event]:
    """Have the ledger not answer this, for as long as the block lasts; the event says that it was asked.

    Args:
        monkeypatch: Of the test.
        world: Whose ledger.
        method: What is not answered.
        which: Whether a call with these arguments is one of those; all are by default.
    """
    asked, released = threading.Event(), threading.Event()
    original = getattr(world.book, method)

    def hangs(*arguments: Any, **more: Any) -> Any:
        if which(*arguments):
            asked.set()
            released.wait()
        return original(*arguments, **more)

    with monkeypatch.context() as patched:
        patched.setattr(world.book, method, hangs)
        try:
            yield asked
        finally:
            released.set()


@contextmanager
def away(monkeypatch: pytest.MonkeyPatch, world: World) -> Iterator[list[str]]:
    """Have nothing of the ledger answer for as long as the block lasts; return the names of what is asked."""
    asked = list[str]()
    names = [name for name in dir(world.book) if not name.startswith("_") and name != "forget"]

    def silent(name: str) -> Callable[..., Any]:
        def answer(*_: Any, **__: Any) -> Any:
            asked.append(name)
            raise Unavailable("the ledger does not answer")

        return answer

    with monkeypatch.context() as patched:
        for name in names:
            if callable(getattr(world.book, name)):
                patched.setattr(world.book, name, silent(name))
        yield asked


def of_wave_2(_: ChangeOrder, told: Told, *__: object) -> bool:
    """Return whether this state of the change is the first one of its second wave."""
    return told.begun == 2


async def has_begun(rollout: Running) -> bool:
    """Whether it has told the bake that a wave takes gateways over; there is no bake here."""
    kinds = [event.event_type async for event in rollout.fetch_history_events()]
    return EventType.EVENT_TYPE_SIGNAL_EXTERNAL_WORKFLOW_EXECUTION_FAILED in kinds


async def answers_of_its_window(rollout: Running) -> int:
    """Return how many answers the change has heard about when its waves may start."""
    signals = [
        event.workflow_execution_signaled_event_attributes.signal_name
        async for event in rollout.fetch_history_events()
    ]
    return signals.count("window")


async def has_heard(rollout: Running, answers: int) -> bool:
    return await answers_of_its_window(rollout) >= answers


def serves_known_good(world: World, *names: str) -> Callable[[], bool]:
    return lambda: {world.serving()[name] for name in names or world.gateways} == {"1.1.6"}


# --- what was let in -------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["an approval", "the deadline"])
async def test_a_rollback_that_was_answered_waits_for_no_reload_that_it_let_in(
    recorded: Recorded, by: str
) -> None:
    """A host that hung in the reload kept every gateway from going back for five minutes."""
    world, service = recorded.world, recorded.service
    running = await ask_for(world, **({} if by == "an approval" else {"answer_within": "8s"}))
    await until(lambda: is_waiting(running))
    world.look()
    async with blocked(world.gateways["gw-4"], "reload", range(1, 1000)) as taken:
        plan = await service.plan_reload(world.fleet)
        assert await service.reload(world.fleet, plan, "on call", "a key was stolen") is not None
        await until(taken.is_set)
        if by == "an approval":
            await answer(running, CommandKind.APPROVE, "bo")
        to = "1.4.0" if by == "an approval" else "1.1.6"
        await until(lambda: world.serving()["gw-1"] == to, SOON)
    assert (await result_of(running)).outcome is Outcome.ROLLED_BACK


# --- harm about which operators decide --------------------------------------------------------


@pytest.fixture
async def asking(server: Engine) -> AsyncIterator[World]:
    fleet = fleet_of("edge", lease=timedelta(seconds=15), automation=Automation.ASK)
    async with working(World.made(await server.client(), fleet)) as made:
        yield made


async def held_for_harm(world: World) -> Running:
    """Return an upgrade of which harm was found where a wave has passed; its window is open by then."""
    rollout = await second_wave_that(world, "its window")
    world.judge.says(MEASURED, wave=PASSED)
    await in_phase(rollout, Phase.HELD)
    world.judge.says(HEALTHY, wave=2)
    world.windows.answer = OPEN
    return rollout


@pytest.mark.sweep
async def test_harm_where_a_wave_has_passed_holds_a_change_whose_operators_decide(asking: World) -> None:
    """It was told to nobody, and the next wave began when its window opened."""
    rollout = await held_for_harm(asking)
    status = await status_of(rollout)
    assert status.needs_you == (
        f"held by {PENSTOCK_WATCH}: harm was found where its waves have passed: {MEASURED.reason}"
    )
    looks = len(asking.judge.passed)
    await until(lambda: len(asking.judge.passed) > looks + 2)
    assert (await status_of(rollout)).phase is Phase.HELD
    await say(rollout, CommandKind.ROLL_BACK)
    assert (await result_of(rollout)).outcome is Outcome.ROLLED_BACK


@pytest.mark.sweep
async def test_harm_of_which_operators_have_decided_holds_no_change_again(asking: World) -> None:
    rollout = await held_for_harm(asking)
    asking.judge.says(QUIET, wave=PASSED)
    await say(rollout, CommandKind.RESUME, "ana", hold_of=PENSTOCK_WATCH)
    assert (await result_of(rollout)).outcome is Outcome.PROMOTED


# --- a wave that is kept -----------------------------------------------------------------------


@pytest.mark.sweep
@pytest.mark.parametrize("found", ["by the watch", "on a host"])
async def test_harm_takes_a_wave_back_at_once_while_one_host_refuses_to_keep_it(
    world: World, found: str
) -> None:
    """It was heard and not acted on before the host that refused was given up, for up to two minutes."""
    world.judge.says(UNDECIDED)
    rollout = await world.start(("gw-1", "gw-2", "gw-3"), ("gw-4",))
    await in_phase(rollout, Phase.OBSERVING)
    world.gateways["gw-3"].fail("make_permanent", Unavailable("gw-3: nft is locked"), times=1000)
    if found == "on a host":
        world.gateways["gw-2"].fail("make_permanent", Refused("gw-2: slot b does not run"))
    world.judge.says(HEALTHY)
    await until(lambda: "keep b" in world.gateways["gw-1"].effects)
    if found == "by the watch":
        world.judge.says(CRASHING)
    await until(serves_known_good(world, "gw-1", "gw-2"), AT_ONCE)
    world.gateways["gw-3"].recover("make_permanent")
    assert (await result_of(rollout)).outcome is Outcome.ROLLED_BACK


@pytest.mark.sweep
async def test_a_gateway_that_fails_alone_as_it_is_kept_goes_back_while_another_host_refuses(
    server: Engine,
) -> None:
    fleet = fleet_of("edge", size=5, lease=timedelta(seconds=15), failures="50%")
    async with working(World.made(await server.client(), fleet)) as world:
        world.gateways["gw-3"].fail("make_permanent", Unavailable("gw-3: nft is locked"), times=1000)
        world.gateways["gw-2"].fail("make_permanent", Refused("gw-2: slot b does not run"))
        rollout = await world.start(("gw-1", "gw-2", "gw-3", "gw-4"), ("gw-5",))
        await until(lambda: "keep b" in world.gateways["gw-1"].effects)
        returns = world.client.get_workflow_handle(return_of("gw-2", world.newest))

        async def is_under_way() -> bool:
            with suppress(RPCError):
                return bool(await returns.describe())
            return False

        await until(is_under_way, AT_ONCE)
        assert (await status_of(rollout)).phase is Phase.PROMOTING
        world.gateways["gw-3"].recover("make_permanent")
        result = await result_of(rollout)
    assert (result.outcome, list(result.aside)) == (Outcome.PROMOTED, ["gw-2"])


# --- a promotion ------------------------------------------------------------------------------


@pytest.mark.sweep
async def test_harm_takes_back_a_promotion_that_waits_for_the_ledger(world: World) -> None:
    """The watch over it told the change, which did not listen before its last part was promoted."""
    world.judge.says(UNDECIDED, wave=0)
    async with half_promoted(world) as rollout:
        await until(lambda: bool(world.judge.bakes))
        world.judge.says(CRASHING, wave=0)
        await until(serves_known_good(world), SOON)
    result = await result_of(rollout)
    assert result.outcome is Outcome.ROLLED_BACK
    assert CRASHING.reason in result.reason
    assert set(world.book.known_good("edge").values()) == {OLD}


@pytest.mark.sweep
async def test_a_rollback_waits_for_no_ledger_that_does_not_take_the_end_of_a_promotion(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was answered "Rolling back", and nothing moved until the ledger was back."""
    with hanging(monkeypatch, world, "close_change") as asked:
        rollout = await world.start(("gw-1",), ("gw-2",))
        await until(asked.is_set)
        await say(rollout, CommandKind.ROLL_BACK)
        await until(serves_known_good(world), SOON)
    result = await result_of(rollout)
    assert result.outcome is Outcome.ROLLED_BACK
    assert world.book.change(world.newest).outcome is Outcome.ROLLED_BACK
    assert set(world.book.known_good("edge").values()) == {OLD}


# --- a ledger that hangs ----------------------------------------------------------------------


@pytest.mark.sweep
@pytest.mark.parametrize("by", ["harm", "an operator"])
async def test_a_wave_that_a_freeze_holds_goes_back_without_its_entry_in_the_audit_record(
    world: World, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    rollout = await held_by_a_freeze(world)
    with hanging(monkeypatch, world, "audit"):
        if by == "harm":
            world.judge.says(UNHEALTHY)
        else:
            await rollout.signal("command_fallback", BACK)
        await until(serves_known_good(world), AT_ONCE)
    assert (await result_of(rollout)).outcome is Outcome.ROLLED_BACK


@pytest.mark.sweep
async def test_a_rollback_as_the_next_wave_begins_waits_for_no_story_in_the_ledger(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    rollout = await second_wave_that(world, "its window")

    with hanging(monkeypatch, world, "record_story", of_wave_2) as asked:
        world.windows.answer = OPEN
        await until(asked.is_set)
        await rollout.signal("command_fallback", BACK)
        await until(serves_known_good(world), AT_ONCE)
    assert (await result_of(rollout)).outcome is Outcome.ROLLED_BACK


def refuse(world: World, name: str) -> None:
    """Have the gateway refuse three tries of the way back, each for another reason."""
    for number in range(3):
        world.gateways[name].fail("restore", Refused(f"process {number} holds the packet filter"))


@pytest.mark.sweep
async def test_no_try_of_a_rollback_waits_for_what_a_hanging_ledger_is_asked_and_told_of_its_gateway(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether sessions had moved there was waited for, and its quarantine with each new reason: 30 s each."""
    rollout = await second_wave_on_trial(world)
    refuse(world, "gw-1")
    with (
        hanging(monkeypatch, world, "has_moved") as asked,
        hanging(monkeypatch, world, "set_quarantine"),
    ):
        await rollout.signal("command_fallback", BACK)
        await until(serves_known_good(world), REFUSED_WITHIN)
    assert asked.is_set()
    assert (await result_of(rollout)).outcome is Outcome.ROLLED_BACK
    assert not world.book.quarantined("edge")


@pytest.mark.sweep
async def test_no_try_of_a_gateway_that_returns_alone_waits_for_a_hanging_ledger(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether an operator has quarantined it was waited for before each try: 30 s again and again."""
    await second_wave_that(world, "its window")
    refuse(world, "gw-1")
    with hanging(monkeypatch, world, "set_quarantine") as told:
        world.judge.says(QUIET.model_copy(update={"failed": ("gw-1",)}), wave=PASSED)
        await until(told.is_set)
        with hanging(monkeypatch, world, "quarantined"):
            await until(serves_known_good(world, "gw-1"), REFUSED_WITHIN)


@pytest.mark.sweep
async def test_a_worker_that_began_the_waves_takes_them_back_while_nothing_of_the_ledger_answers(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    rollout = await second_wave_on_trial(world)
    with away(monkeypatch, world):
        await ChangeService(world.client, world.book).command("edge", BACK)
        await until(serves_known_good(world), SOON)
    assert (await result_of(rollout)).outcome is Outcome.ROLLED_BACK


@pytest.mark.sweep
@pytest.mark.parametrize("by", ["harm", "an operator"])
async def test_a_rollback_between_two_waves_waits_for_no_word_of_the_ledger_that_the_change_is_open(
    world: World, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """It was answered "New sessions go to known-good", and nobody moved until the ledger was back."""
    rollout = await second_wave_that(world, "its window")
    with hanging(monkeypatch, world, "require_open") as asked:
        world.windows.answer = OPEN
        await until(asked.is_set)
        if by == "harm":
            world.judge.says(CRASHING, wave=PASSED)
        else:
            await say(rollout, CommandKind.ROLL_BACK)
        await until(serves_known_good(world), AT_ONCE)
    assert (await result_of(rollout)).outcome is Outcome.ROLLED_BACK


@pytest.mark.sweep
async def test_a_rollback_after_a_hold_was_lifted_between_two_waves_needs_nothing_of_the_ledger(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    rollout = await second_wave_that(world, "its window")
    await say(rollout, CommandKind.HOLD, "on call")
    await in_phase(rollout, Phase.HELD)
    answers = await answers_of_its_window(rollout)
    world.windows.answer = OPEN
    await until(partial(has_heard, rollout, answers + 1))
    with away(monkeypatch, world) as asked:
        resume = Command(id="2", kind=CommandKind.RESUME, person="on call", reason="all is well")
        await rollout.signal("command_fallback", resume.model_copy(update={"run": await run_of(rollout)}))
        await until(lambda: "require_open" in asked)
        await ChangeService(world.client, world.book).command("edge", BACK)
        await until(serves_known_good(world), SOON)
    assert (await result_of(rollout)).outcome is Outcome.ROLLED_BACK


@pytest.mark.sweep
async def test_a_hold_between_two_waves_waits_for_no_word_of_the_ledger_that_the_change_is_open(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wave began once the ledger had answered, and nobody watched its gateways while it was held."""
    rollout = await second_wave_that(world, "its window")
    with hanging(monkeypatch, world, "require_open") as asked:
        world.windows.answer = OPEN
        await until(asked.is_set)
        await say(rollout, CommandKind.HOLD)
        async with asyncio.timeout(AT_ONCE):
            await in_phase(rollout, Phase.HELD)
    await asyncio.sleep(2)  # in which it began
    assert not await has_begun(rollout)
    await say(rollout, CommandKind.RESUME)
    world.judge.says(HEALTHY, wave=2)
    assert (await result_of(rollout)).outcome is Outcome.PROMOTED


@pytest.mark.sweep
async def test_a_rollback_waits_for_no_audit_record_of_a_freeze_that_came_as_the_wave_began(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wave ended, and no gateway went back before its hold had been written down, or could not be."""
    rollout = await second_wave_that(world, "its window")
    answers = await answers_of_its_window(rollout)
    with hanging(monkeypatch, world, "audit"):
        with hanging(monkeypatch, world, "record_story", of_wave_2) as asked:
            world.windows.answer = OPEN
            await until(asked.is_set)
            world.windows.answer = FROZEN
            await until(partial(has_heard, rollout, answers + 2))
        await in_phase(rollout, Phase.HELD, wave=2)
        await rollout.signal("command_fallback", BACK)
        await until(serves_known_good(world), AT_ONCE)
    assert (await result_of(rollout)).outcome is Outcome.ROLLED_BACK


@pytest.mark.sweep
async def test_known_good_waits_for_no_audit_record_of_the_wait_for_a_second_person(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rollback by name that has to be approved is ended by one to known-good, which needs nobody."""
    with hanging(monkeypatch, world, "audit"):
        running = await ask_for(world)
        await until(lambda: is_waiting(running))
        await running.signal("command_fallback", BACK)
        await until(serves_known_good(world), AT_ONCE)
    assert (await result_of(running)).outcome is Outcome.ROLLED_BACK


@pytest.mark.sweep
async def test_a_reload_that_a_rollback_ends_waits_for_no_word_of_the_ledger_that_it_is_open(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It kept the fleet's lock from the rollback until the ledger was back."""
    with hanging(monkeypatch, world, "require_open") as asked:
        running = await reload_begun(world)
        await until(asked.is_set)
        await say(running, CommandKind.ROLL_BACK)
        async with asyncio.timeout(AT_ONCE):
            result = await result_of(running)
    assert result.outcome is Outcome.ABORTED
    assert "0 of 4 gateways use their hosts' present credentials" in result.reason
    assert not any(world.effects().values())


# --- a history that was cut -------------------------------------------------------------------


@pytest.mark.sweep
async def test_a_rollback_by_name_ends_a_canary_that_only_waits_also_after_a_cut(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each try was refused with "has not given up the fleet's lock yet: repeat this"."""
    monkeypatch.setattr(change, "RESTORES_STILL", timedelta(seconds=1))
    way_back = await waits_for_gw_3(recorded)
    await cut_amid_a_way_back(recorded)
    await recorded.service.roll_back(recorded.world.fleet, "ana", "ring 1 to 1.1.6, too", to=OLD)
    await until(lambda: serve(recorded, RING_1, "1.1.6"), SOON)
    assert recorded.ledger.change(way_back).outcome is Outcome.ROLLBACK_INCOMPLETE
