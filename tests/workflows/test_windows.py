"""Waves wait for their window, and hear of its closing and of freezes; the way back never waits."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from temporalio import activity
from temporalio.api.history.v1 import HistoryEvent

from activities.windows import WindowQuery
from policies.model.change import ChangeResult, KnownGoodBatch, Outcome, Phase
from policies.model.command import CommandKind
from policies.model.errors import Unavailable
from policies.model.windows import OnWindowClose, WindowAnswer, WindowOverride
from tests.fakes.control import CLOSED, FROZEN, HEALTHY, OPEN, UNDECIDED, UNHEALTHY, FakeWindows
from tests.patience import until
from tests.workflows.engine import SUGGEST_SHORT_HISTORY, Engine
from tests.workflows.world import (
    Running,
    World,
    fleet_of,
    in_phase,
    refusal_of,
    result_of,
    say,
    status_of,
    working,
)
from workflows.wave_window import WaveWindow


async def start(world: World, *waves: tuple[str, ...], **more: object) -> Running:
    """Start an upgrade that asks for its window."""
    order = world.order(*(waves or (("gw-1",), ("gw-2",))))
    return await world.run(order.model_copy(update={"asks_window": True, **more}))


async def held_by_a_freeze(world: World) -> Running:
    """Start an upgrade, and return it once a freeze holds its first wave."""
    world.judge.says(UNDECIDED)
    rollout = await start(world)
    await in_phase(rollout, Phase.OBSERVING)
    world.windows.answer = FROZEN
    await in_phase(rollout, Phase.HELD)
    return rollout


async def waits(rollout: Running) -> None:
    async def does() -> bool:
        return (await status_of(rollout)).window is not None

    await until(does)


def closing(world: World, what: OnWindowClose) -> None:
    world.fleet = world.fleet.model_copy(update={"on_window_close": what})


@pytest.mark.sweep
async def test_a_start_before_the_window_waits_and_says_for_what_and_until_when(world: World) -> None:
    world.windows.answer = CLOSED
    rollout = await start(world)
    await waits(rollout)
    status = await status_of(rollout)
    assert status.phase is Phase.WAITING
    assert status.what == "waiting for its window: opens Tue 2026-11-24 02:00 Europe/Berlin (01:00Z)"
    assert status.what in [event.sentence for event in status.events]
    assert status.why == "closed: next opening Tue 2026-11-24 02:00 Europe/Berlin (01:00Z)"
    assert status.next == "the next wave starts by itself at 2026-11-24 01:00 UTC"
    assert all(fake.effects == [] for fake in world.gateways.values())
    world.windows.answer = OPEN
    assert (await result_of(rollout)).outcome is Outcome.PROMOTED
    assert (await status_of(rollout)).window is None


@pytest.mark.sweep
async def test_each_next_wave_asks_again_and_one_that_does_not_fit_waits_for_the_next_opening(
    world: World,
) -> None:
    world.judge.says(UNDECIDED)
    rollout = await start(world)
    await in_phase(rollout, Phase.OBSERVING)
    world.windows.answer = CLOSED.model_copy(
        update={"is_open": True, "sentence": "open, but only for 10 m more: next opening Wed"}
    )
    world.judge.says(HEALTHY)
    await waits(rollout)
    status = await status_of(rollout)
    assert status.wave == 1
    assert status.why.startswith("open, but only for 10 m more")
    assert status.what == (
        "wave 1 of 2 is over, waiting for its next window, since this one closes too soon: "
        "opens Tue 2026-11-24 02:00 Europe/Berlin (01:00Z)"
    )
    assert world.gateways["gw-2"].effects == []
    world.windows.answer = OPEN
    assert (await result_of(rollout)).outcome is Outcome.PROMOTED


@pytest.mark.parametrize(
    ("kind", "outcome"), [(CommandKind.ABORT, Outcome.ABORTED), (CommandKind.ROLL_BACK, Outcome.ROLLED_BACK)]
)
async def test_whoever_stops_a_change_that_waits_needs_no_window(
    world: World, kind: CommandKind, outcome: Outcome
) -> None:
    world.windows.answer = CLOSED
    rollout = await start(world)
    await waits(rollout)
    await say(rollout, kind)
    assert (await result_of(rollout)).outcome is outcome
    assert all(fake.effects == [] for fake in world.gateways.values())


@pytest.mark.sweep
async def test_a_change_that_is_held_while_it_waits_does_not_start_when_its_window_opens(
    world: World,
) -> None:
    world.windows.answer = CLOSED
    rollout = await start(world)
    await waits(rollout)
    await say(rollout, CommandKind.HOLD, reason="not tonight")
    world.windows.answer = OPEN
    asked = len(world.windows.asked)
    await until(lambda: len(world.windows.asked) > asked + 2)
    status = await status_of(rollout)
    assert (status.phase, status.why) == (Phase.HELD, "held by on call: not tonight")
    assert world.gateways["gw-1"].effects == []
    await say(rollout, CommandKind.RESUME)
    assert (await result_of(rollout)).outcome is Outcome.PROMOTED


@pytest.mark.sweep
async def test_once_its_hold_is_lifted_a_change_waits_for_its_window_again_and_says_so(world: World) -> None:
    world.windows.answer = CLOSED
    rollout = await start(world)
    await waits(rollout)
    before = await status_of(rollout)
    await say(rollout, CommandKind.HOLD, reason="not tonight")
    await in_phase(rollout, Phase.HELD, wave=0)
    receipt = await say(rollout, CommandKind.RESUME)
    assert receipt.sentence == "Resumed. The next wave starts when its patch window opens."
    after = await status_of(rollout)
    for said in ("phase", "what", "why", "next", "needs_you", "can_do"):
        assert getattr(after, said) == getattr(before, said), said
    world.windows.answer = OPEN
    assert (await result_of(rollout)).outcome is Outcome.PROMOTED


@pytest.mark.sweep
async def test_a_hold_between_two_waves_that_is_lifted_is_none_any_more(world: World) -> None:
    world.judge.says(UNDECIDED)
    rollout = await start(world)
    await in_phase(rollout, Phase.OBSERVING)
    world.windows.answer = CLOSED
    world.judge.says(HEALTHY)
    await waits(rollout)
    await say(rollout, CommandKind.HOLD, reason="not tonight")
    await in_phase(rollout, Phase.HELD)
    await say(rollout, CommandKind.RESUME)
    status = await status_of(rollout)
    assert status.phase is not Phase.HELD
    assert status.needs_you is None
    assert status.what.startswith("wave 1 of 2 is over, waiting for its window: opens Tue 2026-11-24 02:00")
    world.windows.answer = OPEN
    assert (await result_of(rollout)).outcome is Outcome.PROMOTED


@pytest.mark.sweep
async def test_a_rollback_between_two_waves_returns_those_of_the_first_without_a_window(world: World) -> None:
    rollout = await start(world)
    world.windows.answer = OPEN
    world.judge.says(UNDECIDED)
    await in_phase(rollout, Phase.OBSERVING)
    world.windows.answer = CLOSED
    world.judge.says(HEALTHY)
    await waits(rollout)
    await say(rollout, CommandKind.ROLL_BACK)
    assert (await result_of(rollout)).outcome is Outcome.ROLLED_BACK
    assert world.serving()["gw-1"] == "1.1.6"


@pytest.mark.sweep
async def test_a_window_that_closes_in_mid_wave_lets_the_wave_be_finished_and_the_next_one_wait(
    world: World,
) -> None:
    world.judge.says(UNDECIDED)
    rollout = await start(world)
    await in_phase(rollout, Phase.OBSERVING)
    world.windows.answer = CLOSED

    async def is_said() -> bool:
        return any(
            "the window closed; wave 1 is finished" in e.sentence for e in (await status_of(rollout)).events
        )

    await until(is_said)
    assert (await status_of(rollout)).phase is Phase.OBSERVING
    world.judge.says(HEALTHY)
    await waits(rollout)
    assert world.serving()["gw-1"] == "1.3.0"
    assert world.gateways["gw-2"].effects == []
    world.windows.answer = OPEN
    assert (await result_of(rollout)).outcome is Outcome.PROMOTED


@pytest.mark.sweep
async def test_a_window_that_closes_in_mid_wave_holds_where_that_is_declared_until_it_opens_again(
    world: World,
) -> None:
    closing(world, OnWindowClose.HOLD)
    world.judge.says(UNDECIDED)
    rollout = await start(world)
    await in_phase(rollout, Phase.OBSERVING)
    world.windows.answer = CLOSED
    await in_phase(rollout, Phase.HELD)
    world.judge.says(HEALTHY)
    assert (await status_of(rollout)).why.startswith("held by penstock: closed: next opening Tue")
    world.windows.answer = OPEN
    assert (await result_of(rollout)).outcome is Outcome.PROMOTED


@pytest.mark.sweep
async def test_a_window_that_closes_in_mid_wave_rolls_back_where_that_is_declared(world: World) -> None:
    closing(world, OnWindowClose.ROLLBACK)
    world.judge.says(UNDECIDED)
    rollout = await start(world)
    await in_phase(rollout, Phase.OBSERVING)
    world.windows.answer = CLOSED
    result = await result_of(rollout)
    assert result.outcome is Outcome.ROLLED_BACK
    assert result.reason.startswith("penstock: closed: next opening Tue")
    assert world.serving()["gw-1"] == "1.1.6"


@pytest.mark.sweep
async def test_a_freeze_added_in_mid_change_holds_and_cuts_nobody_and_harm_still_goes_back(
    world: World,
) -> None:
    rollout = await held_by_a_freeze(world)
    assert (await status_of(rollout)).why == "held by penstock: closed by the freeze black-friday"
    assert world.serving()["gw-1"] == "1.3.0"
    world.judge.says(UNHEALTHY)
    assert (await result_of(rollout)).outcome is Outcome.ROLLED_BACK


@pytest.mark.sweep
async def test_a_hold_of_the_window_ends_with_its_wave_and_is_nobody_elses(world: World) -> None:
    world.judge.says(UNDECIDED)
    rollout = await start(world)
    await in_phase(rollout, Phase.OBSERVING)
    await say(rollout, CommandKind.HOLD, reason="lunch")
    world.windows.answer = FROZEN

    async def both() -> bool:
        return "penstock" in (await status_of(rollout)).why

    await until(both)
    world.windows.answer = OPEN

    async def one() -> bool:
        return (await status_of(rollout)).why == "held by on call: lunch"

    await until(one)
    world.judge.says(HEALTHY)
    await say(rollout, CommandKind.RESUME)
    assert (await result_of(rollout)).outcome is Outcome.PROMOTED


async def answered(world: World, answer: WindowAnswer) -> None:
    """Have this answered, and wait until it was taken over: the next question comes after that."""
    world.windows.answer = answer
    before = len(world.windows.asked)
    await until(lambda: len(world.windows.asked) >= before + 3)


async def resumed_by_penstock(rollout: Running) -> bool:
    events = (await status_of(rollout)).events
    return any(event.sentence.startswith("penstock: resume") for event in events)


@pytest.mark.sweep
async def test_a_freeze_that_is_told_again_otherwise_goes_on_holding(world: World) -> None:
    rollout = await held_by_a_freeze(world)
    await answered(world, OPEN.model_copy(update={"is_known": False, "fits": False, "sentence": "away"}))
    await answered(world, FROZEN)
    longer = datetime(2026, 11, 26, 1, tzinfo=UTC)
    await answered(world, FROZEN.model_copy(update={"freeze": "cyber-monday", "until": longer}))
    assert (await status_of(rollout)).phase is Phase.HELD
    assert not await resumed_by_penstock(rollout)
    world.windows.answer = OPEN
    await in_phase(rollout, Phase.OBSERVING)
    assert await resumed_by_penstock(rollout)
    world.judge.says(HEALTHY)
    assert (await result_of(rollout)).outcome is Outcome.PROMOTED


@pytest.mark.sweep
async def test_a_person_who_lifts_the_hold_of_a_freeze_is_not_overruled_and_the_next_freeze_holds(
    world: World,
) -> None:
    rollout = await held_by_a_freeze(world)
    await say(rollout, CommandKind.RESUME, hold_of="penstock")
    await answered(world, FROZEN.model_copy(update={"until": datetime(2026, 11, 26, 1, tzinfo=UTC)}))
    assert (await status_of(rollout)).phase is Phase.OBSERVING
    await answered(world, OPEN)
    assert not await resumed_by_penstock(rollout), "what it does not hold it does not let go"
    world.windows.answer = FROZEN
    await in_phase(rollout, Phase.HELD)
    world.windows.answer = OPEN
    world.judge.says(HEALTHY)
    assert (await result_of(rollout)).outcome is Outcome.PROMOTED


@pytest.mark.sweep
async def test_what_was_approved_for_one_opening_does_not_start_in_a_later_one(world: World) -> None:
    world.windows.answer = CLOSED
    rollout = await start(world, start_by=datetime.now(UTC) + timedelta(seconds=2))
    result = await result_of(rollout)
    assert result.outcome is Outcome.REFUSED
    assert "its plan was approved for the opening that closed at" in result.reason
    assert "plan again, and have that approved" in result.reason
    assert all(fake.effects == [] for fake in world.gateways.values())


@pytest.mark.sweep
async def test_an_override_is_shown_to_whoever_looks(world: World) -> None:
    override = WindowOverride(person="ana", reason="CVE", ticket="INC-7", at=datetime.now(UTC))
    rollout = await start(world, override=override)
    assert (await result_of(rollout)).outcome is Outcome.PROMOTED
    status = await status_of(rollout)
    assert status.banner == "PATCH WINDOWS OVERRIDDEN by ana, INC-7: CVE"
    assert status.banner in [event.sentence for event in status.events]
    assert {query.overridden_at for query in world.windows.asked} == {override.at}


@pytest.mark.sweep
async def test_a_long_wait_leaves_a_short_history(world: World) -> None:
    world.windows.answer = CLOSED.model_copy(update={"again": timedelta(milliseconds=20)})
    rollout = await start(world)
    await until(lambda: len(world.windows.asked) > 8)
    events = [event async for event in rollout.fetch_history_events()]
    assert len(events) < 120
    before = len(events)
    await until(lambda: len(world.windows.asked) > 24)
    assert len([event async for event in rollout.fetch_history_events()]) <= before + 6
    await say(rollout, CommandKind.ABORT)
    await result_of(rollout)


@pytest.mark.sweep
async def test_a_change_of_before_asks_nobody_about_windows(world: World) -> None:
    world.windows.answer = CLOSED
    assert (await world.upgrade(("gw-1",))).outcome is Outcome.PROMOTED
    assert world.windows.asked == []


@pytest.mark.sweep
async def test_a_promotion_waits_for_no_wave_that_waits(world: World) -> None:
    world.windows.answer = CLOSED
    rollout = await start(world)
    await waits(rollout)
    refused = await refusal_of(say(rollout, CommandKind.PROMOTE))
    assert refused.startswith("there is no verdict on this wave yet")
    await asyncio.sleep(0)
    await say(rollout, CommandKind.ABORT)
    await result_of(rollout)


UNKNOWN = CLOSED.model_copy(
    update={
        "is_open": True,
        "is_known": False,
        "until": None,
        "sentence": "nobody can say: the ledger is away",
    }
)


async def asked_again(world: World, times: int = 3) -> None:
    """Wait until so many more questions were answered: whatever an answer leads to has begun by then."""
    asked = len(world.windows.asked)
    await until(lambda: len(world.windows.asked) >= asked + times)


@pytest.mark.sweep
async def test_a_hold_of_a_freeze_is_not_lifted_because_nobody_can_say_whether_it_is_over(
    world: World,
) -> None:
    rollout = await held_by_a_freeze(world)
    world.windows.answer = UNKNOWN
    world.judge.says(HEALTHY)
    await asked_again(world)
    status = await status_of(rollout)
    assert (status.phase, status.why) == (
        Phase.HELD,
        "held by penstock: closed by the freeze black-friday",
    )
    world.windows.answer = OPEN
    assert (await result_of(rollout)).outcome is Outcome.PROMOTED


@pytest.mark.sweep
async def test_no_rollback_begins_because_nobody_can_say_whether_the_window_has_closed(world: World) -> None:
    closing(world, OnWindowClose.ROLLBACK)
    world.judge.says(UNDECIDED)
    rollout = await start(world)
    await in_phase(rollout, Phase.OBSERVING)
    world.windows.answer = UNKNOWN.model_copy(update={"is_open": False})  # as of a calendar that is lost
    await asked_again(world)
    assert (await status_of(rollout)).phase is Phase.OBSERVING
    world.windows.answer = OPEN
    world.judge.says(HEALTHY)
    assert (await result_of(rollout)).outcome is Outcome.PROMOTED


@pytest.mark.sweep
async def test_a_wave_that_is_to_be_finished_goes_on_when_its_freeze_is_over_though_the_window_has_closed(
    world: World,
) -> None:
    rollout = await held_by_a_freeze(world)
    world.windows.answer = CLOSED
    await in_phase(rollout, Phase.OBSERVING)
    world.judge.says(HEALTHY)
    await waits(rollout)
    assert world.serving()["gw-1"] == "1.3.0"
    world.windows.answer = OPEN
    assert (await result_of(rollout)).outcome is Outcome.PROMOTED


@pytest.mark.sweep
async def test_what_closes_while_the_ledger_is_away_begins_no_wave(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = asyncio.Event()

    def is_away(name: str) -> None:
        away.set()
        raise Unavailable(f"the ledger does not answer about {name}")

    with monkeypatch.context() as lost:
        lost.setattr(world.book, "require_open", is_away)
        rollout = await start(world)
        await until(away.is_set)
        world.windows.answer = FROZEN
        await waits(rollout)
    await asked_again(world, 8)
    status = await status_of(rollout)
    assert (status.phase, status.wave) == (Phase.WAITING, 0)
    assert not [one for fake in world.gateways.values() for one in fake.effects if one.startswith("start")]
    world.windows.answer = OPEN
    assert (await result_of(rollout)).outcome is Outcome.PROMOTED


@pytest.mark.sweep
async def test_who_is_asked_to_go_back_while_the_ledger_is_away_begins_no_wave(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = asyncio.Event()

    def is_away(name: str) -> None:
        away.set()
        raise Unavailable(f"the ledger does not answer about {name}")

    with monkeypatch.context() as lost:
        lost.setattr(world.book, "require_open", is_away)
        rollout = await world.run(world.order(("gw-1",), ("gw-2",)))
        await until(away.is_set)
        await say(rollout, CommandKind.ROLL_BACK)
    assert (await result_of(rollout)).outcome is Outcome.ROLLED_BACK
    assert not [one for fake in world.gateways.values() for one in fake.effects if one.startswith("start")]


@pytest.mark.sweep
@pytest.mark.parametrize("what", [FROZEN, CLOSED])
async def test_what_closes_in_the_moment_in_which_a_wave_begins_is_acted_on_and_not_only_told(
    world: World, monkeypatch: pytest.MonkeyPatch, what: WindowAnswer
) -> None:
    """The answer came before the wave did, and is not told again, since it stays the same."""
    closing(world, OnWindowClose.HOLD)
    monkeypatch.setattr(WaveWindow, "may_start", True)  # it was let begin a moment before
    away = asyncio.Event()

    def is_away(name: str) -> None:
        away.set()
        raise Unavailable(f"the ledger does not answer about {name}")

    world.judge.says(UNDECIDED)
    with monkeypatch.context() as lost:
        lost.setattr(world.book, "require_open", is_away)
        rollout = await start(world)
        await until(away.is_set)
        world.windows.answer = what
        await waits(rollout)
    await in_phase(rollout, Phase.HELD)
    status = await status_of(rollout)
    assert (status.window, status.wave) == (None, 1)
    assert status.why == f"held by penstock: {what.lasting}"
    world.judge.says(HEALTHY)
    world.windows.answer = OPEN
    assert (await result_of(rollout)).outcome is Outcome.PROMOTED


@pytest.mark.sweep
async def test_a_window_that_closes_once_the_last_wave_has_passed_takes_nothing_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    closing(world, OnWindowClose.ROLLBACK)
    write = world.book.record_known_good_batch

    def closes_then(batch: KnownGoodBatch) -> int:
        world.windows.answer = CLOSED
        return write(batch)

    monkeypatch.setattr(world.book, "record_known_good_batch", closes_then)
    rollout = await start(world, ("gw-1",))
    assert (await result_of(rollout)).outcome is Outcome.PROMOTED
    assert world.windows.answer is CLOSED
    assert world.serving()["gw-1"] == "1.3.0"


@pytest.mark.sweep
async def test_a_second_freeze_holds_also_where_somebody_has_lifted_the_hold_of_the_first(
    world: World,
) -> None:
    rollout = await held_by_a_freeze(world)
    await say(rollout, CommandKind.RESUME, hold_of="penstock")
    await in_phase(rollout, Phase.OBSERVING)
    second = {"freeze": "dns-move", "sentence": "closed by the freeze dns-move"}
    world.windows.answer = FROZEN.model_copy(update=second)
    await in_phase(rollout, Phase.HELD)
    assert (await status_of(rollout)).why == "held by penstock: closed by the freeze dns-move"
    world.judge.says(HEALTHY)
    world.windows.answer = OPEN
    assert (await result_of(rollout)).outcome is Outcome.PROMOTED


@pytest.mark.sweep
async def test_an_opening_that_ends_while_the_ledger_is_away_refuses_what_was_approved_for_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = asyncio.Event()

    def is_away(name: str) -> None:
        away.set()
        raise Unavailable(f"the ledger does not answer about {name}")

    with monkeypatch.context() as lost:
        lost.setattr(world.book, "require_open", is_away)
        rollout = await start(world, start_by=datetime.now(UTC) + timedelta(seconds=6))
        await until(away.is_set)
        world.windows.answer = CLOSED
        await waits(rollout)
    result = await result_of(rollout)
    assert result.outcome is Outcome.REFUSED
    assert "its plan was approved for the opening that closed at" in result.reason


DAYS = 90


class Nights(FakeWindows):
    """A window that is closed at each of many days for another reason, of which each takes a moment here."""

    @activity.defn(name="ask_window")
    async def ask_window(self, query: WindowQuery) -> WindowAnswer:
        self.asked.append(query)
        if len(self.asked) > DAYS:
            return OPEN
        until_then = datetime(2027, 1, 1, tzinfo=UTC) + timedelta(days=len(self.asked))
        return CLOSED.model_copy(update={"until": until_then, "again": timedelta(milliseconds=20)})


@pytest.mark.sweep
async def test_no_history_of_a_change_grows_with_the_nights_that_it_waits_for(server: Engine) -> None:
    """R3: the engine ends a workflow of 51,200 events; a change was cut between its waves only."""
    world = World.made(await server.client(), fleet_of("edge"))
    world.windows = Nights()
    async with working(world):
        rollout = await start(world)
        newest = world.client.get_workflow_handle(rollout.id, result_type=ChangeResult)
        assert (await result_of(newest)).outcome is Outcome.PROMOTED
        events = await events_before_its_waves(world, rollout)
    assert len(events) > 1
    assert max(events) < 2 * SUGGEST_SHORT_HISTORY, events


async def events_before_its_waves(world: World, rollout: Running) -> list[int]:
    """Return of each run of the change how many events it has until a wave begins."""
    events, run = list[int](), str(rollout.first_execution_run_id)
    while run:
        history = await world.client.get_workflow_handle(rollout.id, run_id=run).fetch_history()
        waves = [event.event_id for event in history.events if is_of_a_wave(event)]
        events.append(min(waves, default=len(history.events)))
        run = history.events[-1].workflow_execution_continued_as_new_event_attributes.new_execution_run_id
    return events


def is_of_a_wave(event: HistoryEvent) -> bool:
    """Whether a wave begins with it."""
    started = event.start_child_workflow_execution_initiated_event_attributes
    return started.workflow_type.name == "Wave"
