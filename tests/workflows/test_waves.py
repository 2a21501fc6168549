"""A wave: who of it may fail alone, who has to be told, and what passes by itself."""

import asyncio
import re
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from temporalio.client import Client, WorkflowFailureError
from temporalio.testing import WorkflowEnvironment

from policies.model.change import GatewayResult, KnownGoodBatch, Outcome, Phase
from policies.model.command import CommandKind
from policies.model.errors import Refused, Unavailable
from policies.model.fleet import Automation
from policies.model.offer import Verb
from policies.model.plan import Strategy
from policies.model.report import WatchReport
from policies.model.status import ChangeStatus
from policies.model.verdict import Decision, Window
from policies.status.sentences import PHASE_SENTENCES
from tests.fakes.control import AT_CAP, BLIND, CRASHING, HEALTHY, UNDECIDED, UNHEALTHY, FakeJudge
from tests.patience import PATIENCE, until
from tests.workflows.engine import Engine
from tests.workflows.recorded import SOON, soon
from tests.workflows.world import (
    OLD,
    Running,
    World,
    began_with,
    fleet_of,
    in_phase,
    refusal_of,
    result_of,
    run_of,
    say,
    status_of,
    working,
)
from workflows import steps
from workflows.drain import DrainOrder
from workflows.steps import SHORT_HISTORY
from workflows.watch import watch_of

SILENT = 10_000
"""Calls that fail of a gateway that is silent for as long as a test looks."""


@asynccontextmanager
async def quick(server: Engine, **limits: Any) -> AsyncIterator[World]:
    """Run a fleet with these limits, under workflows that load quickly."""
    fleet = fleet_of("edge", lease=timedelta(seconds=15), **limits)
    async with working(World.made(await server.client(), fleet)) as made:
        yield made


# --- who may fail alone --------------------------------------------------------------------


@pytest.mark.sweep
async def test_a_wave_of_120_runs_in_three_batches_and_goes_on_without_the_two_that_fail(
    server: Engine,
) -> None:
    fleet = fleet_of("edge", size=121, lease=timedelta(minutes=2), switching=150)
    world = World.made(await server.client(), fleet)
    names = tuple(world.gateways)
    bad = {"gw-7": "gw-7: the disk is full", "gw-90": "gw-90: the disk is full"}
    for name, why in bad.items():
        world.gateways[name].fail("start", Refused(why))
    async with working(world):
        result = await result_of(await world.start(names[:1], names[1:]))
        assert (result.outcome, result.aside) == (Outcome.PROMOTED, bad)
        header = world.book.plan_header(world.order(names[:1], names[1:]).plan or "")
        assert [wave.parts for wave in header.waves] == [1, 3]
        for part in (1, 2, 3):
            batch = world.client.get_workflow_handle(f"change/edge/edge-2/wave/002/{part:04}")
            assert (await batch.result())["kept"] in {39, 40}
        for name in bad:
            restore = world.client.get_workflow_handle(f"restore/{name}/edge-2")
            assert (await soon(restore.result()))["back"] == 1
    serving = world.serving()
    assert {name: serving.pop(name) for name in bad} == dict.fromkeys(bad, "1.1.6")
    assert set(serving.values()) == {"1.3.0"}
    assert {name for name, good in world.book.known_good("edge").items() if good == OLD} == set(bad)


@pytest.mark.sweep
async def test_more_failures_than_a_wave_may_have_are_the_fault_of_the_release(server: Engine) -> None:
    async with quick(server, size=7, switching=6) as world:
        names = tuple(world.gateways)
        for name in names[2:4]:
            world.gateways[name].fail("start", Refused(f"{name}: the disk is full"))
        result = await world.upgrade(names[:1], names[1:])
    assert result.outcome is Outcome.ROLLED_BACK
    assert result.reason.startswith("2 of 6 gateways failed by themselves, 1 may: gw-3: gw-3: the disk is")
    assert set(world.serving().values()) == {"1.1.6"}


@pytest.mark.sweep
async def test_a_silent_gateway_is_quarantined_named_and_given_up_by_a_persons_word(world: World) -> None:
    """D6."""
    world.judge.says(UNDECIDED)
    rollout = await world.start(("gw-1", "gw-2"))
    await in_phase(rollout, Phase.OBSERVING)
    world.gateways["gw-1"].fail("restore", Unavailable("gw-1 does not answer"), times=SILENT)
    world.judge.says(UNHEALTHY)

    async def is_named() -> bool:
        return (await status_of(rollout)).needs_you == "1 gateway is not back: gw-1: gw-1 does not answer"

    await until(is_named)
    await until(lambda: bool(world.book.quarantined(world.fleet.name)))
    [quarantine] = world.book.quarantined(world.fleet.name)
    assert (quarantine.gateway, quarantine.reason) == ("gw-1", "gw-1 does not answer")
    assert Verb.QUARANTINE in {offer.verb for offer in (await status_of(rollout)).can_do}
    sentence = await refusal_of(say(rollout, CommandKind.QUARANTINE, gateways=("gw-2",)))
    assert sentence.startswith("gw-2 is not waited for")
    await say(rollout, CommandKind.QUARANTINE, "ana", reason="its disk is being replaced", gateways=("gw-1",))
    result = await result_of(rollout)
    assert result.outcome is Outcome.ROLLBACK_INCOMPLETE
    assert result.incomplete == {"gw-1": "given up by ana: its disk is being replaced"}
    assert world.serving()["gw-2"] == "1.1.6"


async def test_a_rollback_does_not_wait_for_a_dead_gateway_whose_sessions_never_moved(world: World) -> None:
    """R3: it is named, and reconcile brings it back should it serve anything else once it answers."""
    world.judge.says(UNDECIDED)
    dead = world.gateways["gw-2"]
    dead.fail("stage", Unavailable("gw-2 does not answer"), times=SILENT)
    dead.fail("restore", Unavailable("gw-2 does not answer"), times=SILENT)
    rollout = await world.start(("gw-1", "gw-2", "gw-3"))
    await until(lambda: {world.serving()[name] for name in ("gw-1", "gw-3")} == {"1.3.0"})
    await say(rollout, CommandKind.ROLL_BACK)
    result = await result_of(rollout)
    assert (result.outcome, result.incomplete) == (Outcome.ROLLED_BACK, {})
    assert "not waited for, since no session had moved there: gw-2: gw-2 does not answer" in result.reason
    assert set(world.serving().values()) == {"1.1.6"}


# --- what passes by itself -----------------------------------------------------------------


async def test_where_harm_only_asks_it_holds_and_proposes_the_way_back(server: Engine) -> None:
    async with quick(server, automation=Automation.ASK) as world:
        world.judge.says(UNHEALTHY)
        rollout = await world.start(("gw-1",), ("gw-2",))
        await in_phase(rollout, Phase.HELD)
        status = await status_of(rollout)
        assert status.needs_you == "9 of 10 logins fail"
        assert "this fleet asks a person before it goes back" in status.next
        assert Verb.ROLL_BACK in {offer.verb for offer in status.can_do}
        assert world.serving()["gw-1"] == "1.3.0"
        await say(rollout, CommandKind.ROLL_BACK, "ana", reason="yes")
        result = await result_of(rollout)
    assert (result.outcome, result.reason) == (Outcome.ROLLED_BACK, "ana: yes")
    assert world.serving()["gw-1"] == "1.1.6"


@pytest.mark.sweep
@pytest.mark.parametrize("votes", [0, 2])
async def test_where_harm_only_asks_no_further_gateway_of_the_wave_is_switched_before_operators_answer(
    server: Engine, monkeypatch: pytest.MonkeyPatch, votes: int
) -> None:
    """At night a wave of thousands went on to switch to a release that was proven to be bad."""
    async with quick(server, size=5, automation=Automation.ASK, switching=1) as world:
        world.judge.says(UNHEALTHY)
        slow, fetched = world.gateways["gw-2"], asyncio.Event()
        stage = slow.stage

        async def fetches(*of: Any) -> Any:
            await fetched.wait()
            return await stage(*of)

        monkeypatch.setattr(slow, "stage", fetches)
        rollout = await world.start(("gw-1", "gw-2", "gw-3", "gw-4"))
        await in_phase(rollout, Phase.HELD)
        status = await status_of(rollout)
        assert status.needs_you == "9 of 10 logins fail"
        assert status.next.startswith("nothing: harm was found, and this fleet asks a person")
        fetched.set()
        await until(lambda: slow.trial is not None)
        looks = len(world.judge.orders)
        await until(lambda: len(world.judge.orders) > looks + 2, SOON)
        assert {name for name, fake in world.gateways.items() if fake.trial} == {"gw-1", "gw-2"}
        for person in ("ana", "ben")[:votes]:
            await say(rollout, CommandKind.PROMOTE, person)
        if not votes:
            await say(rollout, CommandKind.ROLL_BACK)
        result = await soon(result_of(rollout))
    moved = {"gw-1", "gw-2", "gw-3", "gw-4"} if votes else set()
    assert result.outcome is (Outcome.PROMOTED if votes else Outcome.ROLLED_BACK)
    assert {name for name, serves in world.serving().items() if serves == "1.3.0"} == moved
    assert bool(world.gateways["gw-3"].effects) is bool(votes)


@pytest.mark.sweep
@pytest.mark.parametrize("automation", Automation)
async def test_a_hard_failure_of_an_instance_goes_back_by_itself_whatever_is_automatic(
    server: Engine, automation: Automation
) -> None:
    async with quick(server, automation=automation) as world:
        world.judge.says(CRASHING)
        result = await world.upgrade(("gw-1",), ("gw-2",))
    assert (result.outcome, result.reason) == (Outcome.ROLLED_BACK, "the daemon restarted 3 times")


@pytest.mark.sweep
async def test_a_fleet_that_is_only_observed_passes_without_any_metrics_after_its_window(
    environment: WorkflowEnvironment,
) -> None:
    made = World.made(environment.client, fleet_of("edge", automation=Automation.OBSERVE))
    async with working(made) as world:
        world.judge.says(BLIND)
        rollout = await world.start(("gw-1",))
        assert (await result_of(rollout)).outcome is Outcome.PROMOTED
        told = {event.sentence: event.at for event in (await status_of(rollout)).events}
    assert "verdict metrics unavailable, hold: no sample for 60 s" in told
    watched = told["keeping the new release"] - told["gw-1 on trial"]
    assert watched >= Window().minimum


@pytest.mark.sweep
async def test_a_wave_that_goes_on_against_harm_does_so_at_the_time_that_its_status_names(
    server: Engine,
) -> None:
    """`Next: nothing, until a person decides` was shown, and the wave passed by itself a minute later."""
    async with quick(server, size=2, automation=Automation.OBSERVE) as world:
        world.judge.says(UNHEALTHY)
        order = world.order(("gw-1",), ("gw-2",))
        window = Window(minimum=timedelta(seconds=6), nominal=timedelta(seconds=10))
        plan = world.book.plan(order.plan or "").model_copy(update={"window": window})
        digest = world.book.record_plan(plan)
        rollout = await world.run(order.model_copy(update={"plan": digest}))
        passes = "HARM FOUND: 9 of 10 logins fail; the upgrade goes on to wave 2 at "
        status = await _needing(rollout, passes, Phase.SWITCHING)
        assert (status.phase, Phase.HELD.value in status.what) == (Phase.OBSERVING, False)
        named = re.search(r"at (\S+ \S+) UTC", status.next)
        assert named is not None
        at = datetime.fromisoformat(f"{named[1]}+00:00")
        status = await _needing(rollout, "HARM FOUND: wave 1 passed by time against: 9 of 10 logins fail")
        [began] = [event.at for event in status.events if event.sentence == "wave 2 of 2"]
        assert timedelta(0) <= began - at < timedelta(seconds=5)
        result = await soon(result_of(rollout))
        assert result.outcome is Outcome.PROMOTED
        assert "was passed by time, since this fleet only observes, against: 9 of 10" in result.reason


async def _needing(rollout: Running, words: str, *not_while: Phase) -> ChangeStatus:
    """Return the status once an operator is needed for this, and nothing is promoted or in these phases."""
    found: list[ChangeStatus] = []

    async def is_needed() -> bool:
        found[:] = [await status_of(rollout)]
        is_on = found[0].phase not in (Phase.PROMOTING, *not_while)
        return words in (found[0].needs_you or "") and is_on

    await until(is_needed)
    return found[0]


@pytest.mark.sweep
async def test_a_share_that_time_decides_is_taken_at_the_time_that_its_status_names(server: Engine) -> None:
    async with quick(server, size=2) as world:
        world.judge.says(UNDECIDED)
        rollout = await _by_shares(world, least=5)

        await until(_next_of(rollout, "50 % of new sessions go to the new release at"))
        assert {fake.share for fake in world.gateways.values()} == {10}
        named = re.search(r"at (\S+ \S+) UTC", (await status_of(rollout)).next)
        assert named is not None
        at = datetime.fromisoformat(f"{named[1]}+00:00")
        await until(lambda: {fake.share for fake in world.gateways.values()} == {50}, SOON)
        assert timedelta(0) <= datetime.now(UTC) - at < timedelta(seconds=5)
        await in_phase(rollout, Phase.OBSERVING)
        await until(_next_of(rollout, "promotion on proof"))
        await say(rollout, CommandKind.ROLL_BACK)
        await result_of(rollout)


def _next_of(rollout: Running, words: str) -> Callable[[], Awaitable[bool]]:
    async def said() -> bool:
        return (await status_of(rollout)).next.startswith(words)

    return said


@pytest.mark.sweep
async def test_a_share_that_is_proven_before_its_time_is_over_keeps_no_later_share_from_being_proven(
    server: Engine,
) -> None:
    async with quick(server, size=2) as world:
        world.judge.says(HEALTHY)
        result = await soon(result_of(await _by_shares(world)))
    assert result.outcome is Outcome.PROMOTED
    assert [one.restart for one in world.judge.orders].count(True) == 2
    assert set(world.serving().values()) == {"1.3.0"}


@pytest.mark.sweep
async def test_a_proof_of_the_share_before_passes_no_wave(server: Engine) -> None:
    async with quick(server, size=2) as world:
        world.judge.says(UNDECIDED)
        rollout = await _by_shares(world)
        await until(lambda: {fake.share for fake in world.gateways.values()} == {50}, SOON)
        wave = world.client.get_workflow_handle(_tree(world)[1])
        proven = WatchReport(
            change=world.newest,
            run=(await wave.describe()).run_id,
            at=datetime.now(UTC),
            beginning=(1,),
            number=99,
            decision=HEALTHY,
            window=0,
        )
        await wave.signal("report_watch", proven)
        looks = len(world.judge.orders)
        await until(lambda: len(world.judge.orders) > looks + 3, SOON)
        assert (await status_of(rollout)).phase is Phase.OBSERVING
        assert {fake.share for fake in world.gateways.values()} == {50}
        world.judge.says(HEALTHY)
        assert (await soon(result_of(rollout))).outcome is Outcome.PROMOTED


@pytest.mark.sweep
@pytest.mark.parametrize(("automation", "said"), [(Automation.ACT, BLIND), (Automation.ASK, UNHEALTHY)])
async def test_nobody_else_is_exposed_while_the_verdict_is_harm_or_nobody_can_tell(
    server: Engine, automation: Automation, said: Decision
) -> None:
    async with quick(server, size=2, automation=automation) as world:
        world.judge.says(said)
        rollout = await _by_shares(world, least=5)
        await in_phase(rollout, Phase.HELD)
        await asyncio.sleep(6)  # longer than a share lasts
        status = await status_of(rollout)
        assert (status.phase, status.decision and status.decision.reason) == (Phase.HELD, said.reason)
        assert {fake.share for fake in world.gateways.values()} == {10}


@pytest.mark.sweep
async def test_two_people_take_the_next_share_where_nobody_can_tell(server: Engine) -> None:
    async with quick(server, size=2) as world:
        world.judge.says(BLIND)
        rollout = await _by_shares(world, least=5)
        await in_phase(rollout, Phase.HELD)
        for person in ("ana", "ben"):
            await say(rollout, CommandKind.PROMOTE, person)
        await until(lambda: {fake.share for fake in world.gateways.values()} == {50}, SOON)
        world.judge.says(HEALTHY)
        assert (await soon(result_of(rollout))).outcome is Outcome.PROMOTED


@pytest.mark.sweep
async def test_a_ledger_that_takes_no_writes_for_a_while_is_told_of_every_trial_afterwards(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals = iter([Unavailable("the disk is full")] * 12)
    write = world.book.record_gateways

    def record(change: str, results: Sequence[GatewayResult]) -> None:
        for refusal in refusals:
            raise refusal
        write(change, results)

    monkeypatch.setattr(world.book, "record_gateways", record)
    world.judge.says(UNDECIDED)
    rollout = await world.start(("gw-1",))
    await in_phase(rollout, Phase.OBSERVING)
    await until(lambda: [row.state for row in world.book.gateways_of(world.newest)] == ["on trial"])


@pytest.mark.sweep
async def test_a_watch_that_is_ended_while_it_writes_a_decision_down_looks_no_further(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, begun = world.book.record_verdict, []

    def record(rollout: str, wave: int, decision: Decision, at: datetime) -> None:
        begun.append(decision)
        time.sleep(2)
        write(rollout, wave, decision, at)

    monkeypatch.setattr(world.book, "record_verdict", record)
    world.judge.says(UNDECIDED)
    rollout = await world.start(("gw-1",))
    await until(lambda: bool(begun))
    await say(rollout, CommandKind.ROLL_BACK)
    await result_of(rollout)
    watch = world.client.get_workflow_handle(watch_of(_tree(world)[1]))
    with pytest.raises(WorkflowFailureError):
        await soon(watch.result())


@pytest.mark.sweep
async def test_a_hold_at_the_barrier_sends_nobody_to_the_new_instances(server: Engine) -> None:
    async with quick(server, size=2) as world:
        world.judge.says(UNDECIDED)
        world.gateways["gw-2"].fail("start", Unavailable("gw-2 is slow"), times=4)
        rollout = await _by_shares(world)
        await until(lambda: "start b" in world.gateways["gw-1"].effects, SOON)
        await say(rollout, CommandKind.HOLD, "ana")
        await until(lambda: "start b" in world.gateways["gw-2"].effects, SOON)
        await asyncio.sleep(2)
        assert [fake.trial for fake in world.gateways.values()] == [None, None]
        await say(rollout, CommandKind.RESUME, "ana")
        world.judge.says(HEALTHY)
        assert (await soon(result_of(rollout))).outcome is Outcome.PROMOTED


@pytest.mark.sweep
async def test_a_window_whose_first_slice_fails_still_begins_anew(server: Engine) -> None:
    async with quick(server, size=2) as world:
        world.judge.says(UNDECIDED)
        world.judge.refused_slices = 1
        await _by_shares(world)
        await until(lambda: True in restarts(world)[:-1], SOON)
        refused = restarts(world).index(True)
        assert restarts(world)[refused + 1]


def restarts(world: World) -> list[bool]:
    """Return of each slice whether it begins a window."""
    return [one.restart for one in world.judge.orders]


async def _by_shares(world: World, least: float = 1) -> Running:
    """Start the upgrade of both gateways at once, with at least so many seconds for each share."""
    shortly = Window(minimum=timedelta(seconds=least), nominal=timedelta(seconds=10))
    order = world.order(("gw-1", "gw-2"))
    plan = world.book.plan(order.plan or "")
    wave = plan.waves[0].model_copy(update={"shares": (10, 50, 100)})
    changed = {"strategy": Strategy.BLUE_GREEN, "window": shortly, "waves": (wave,)}
    digest = world.book.record_plan(plan.model_copy(update=changed))
    return await world.run(order.model_copy(update={"plan": digest}))


# --- what does not grow --------------------------------------------------------------------


class SteadyJudge(FakeJudge):
    """Remembers no more after a week than after a minute."""

    def remember(self, state: str) -> str:
        return state or "."


A_WEEK = pytest.param(168, timedelta(minutes=10), marks=[pytest.mark.sweep, pytest.mark.timeout(600)])
"""Looked at more seldom: six hours show what grows with each look, a week what grows with the clock."""


@pytest.mark.sweep
@pytest.mark.parametrize(("hours", "pace"), [(6, timedelta(minutes=1)), A_WEEK])
async def test_a_held_change_has_no_longer_history_at_its_end_than_after_its_first_hour(
    environment: WorkflowEnvironment, monkeypatch: pytest.MonkeyPatch, hours: int, pace: timedelta
) -> None:
    """D7."""
    monkeypatch.setattr(steps, "HELD_PACE", pace)
    fleet = fleet_of("edge", lease=timedelta(minutes=15))
    made = World.made(environment.client, fleet)
    made.judge = SteadyJudge()
    made.judge.says(AT_CAP)
    async with working(made) as world:
        rollout = await world.start(("gw-1",), ("gw-2",))
        await in_phase(rollout, Phase.HELD)
        await say(rollout, CommandKind.HOLD, "ana")
        await environment.sleep(timedelta(hours=1))
        first = {name: await _size(world.client, name) for name in _tree(world)}
        for _ in range(hours - 1):
            await environment.sleep(timedelta(hours=1))
        last = {name: await _size(world.client, name) for name in _tree(world)}
        looked = len(world.judge.orders)
        world.judge.says(HEALTHY)
        await say(rollout, CommandKind.RESUME, "ana")
        await until(lambda: len(world.judge.orders) > looked, SOON)
        # Skipped, time fires timers that are cancelled, which this server cannot take (skipping.py).
        with environment.auto_time_skipping_disabled():
            assert (await result_of(rollout)).outcome is Outcome.PROMOTED
    assert looked > 0.8 * hours * (timedelta(hours=1) / pace)  # harm was looked for all the time
    change, wave, *lasting = _tree(world)
    for name in (change, wave):
        assert last[name] == first[name]
    for name in lasting:
        events, largest = last[name]
        assert events < SHORT_HISTORY + 100
        assert largest <= max(first[name][1], 4_096)


def _tree(world: World) -> tuple[str, str, str, str]:
    change = f"change/{world.fleet.name}"
    wave = f"{change}/{world.newest}/wave/001"
    return change, wave, f"{wave}/0001", f"{wave}/watch"


async def _size(client: Client, name: str) -> tuple[int, int]:
    """Return how many events the run has that goes on now, and how many bytes the largest has."""
    run = (await client.get_workflow_handle(name).describe()).run_id
    history = await client.get_workflow_handle(name, run_id=run).fetch_history()
    return len(history.events), max(event.ByteSize() for event in history.events)


@pytest.mark.parametrize("asked_back", [False, pytest.param(True, marks=pytest.mark.sweep)])
async def test_a_change_is_cut_between_waves_and_promoted_parts_and_nothing_is_done_twice(
    world: World, monkeypatch: pytest.MonkeyPatch, asked_back: bool
) -> None:
    promoted, goes_on = list[frozenset[str]](), threading.Event()
    promotes = world.book.record_known_good_batch

    def promote(batch: KnownGoodBatch) -> None:
        promoted.append(frozenset(batch.releases))
        if len(promoted) > 1:
            goes_on.wait(PATIENCE)
        promotes(batch)

    monkeypatch.setattr(steps, "SHORT_HISTORY", 1)
    monkeypatch.setattr(world.book, "record_known_good_batch", promote)
    rollout = await world.start(("gw-1",), ("gw-2",), ("gw-3", "gw-4"))
    newest, runs = world.client.get_workflow_handle(rollout.id), {await run_of(rollout)}
    await until(lambda: len(promoted) > 1, SOON)
    runs.add((await newest.describe()).run_id)
    if asked_back:
        await say(rollout, CommandKind.ROLL_BACK)
    goes_on.set()
    assert (await result_of(rollout)).outcome is (Outcome.ROLLED_BACK if asked_back else Outcome.PROMOTED)
    runs.add((await newest.describe()).run_id)
    assert len(runs) == 3  # a restore, too, outlives the history of its change
    if not asked_back:
        assert promoted == [{"gw-1"}, {"gw-2"}, {"gw-3", "gw-4"}]
        drains = [f"drain/{world.fleet.name}/{world.newest}/{wave:03}-0001" for wave in (1, 2, 3)]
        orders = [await began_with(world.client, name, DrainOrder) for name in drains]
        assert [order.before for order, _ in orders] == [0, 1, 2]
    events = Counter(event.sentence for event in (await status_of(rollout)).events)
    once = ("wave 1 of 3", "wave 2 of 3", "gw-2 kept", "gw-3 kept")
    assert ({events[line] for line in once}, events[PHASE_SENTENCES[Phase.PROMOTING]]) == ({1}, 3)
    assert [fake.effects.count("start b") for fake in world.gateways.values()] == [1] * 4
    assert {*world.serving().values()} == {"1.1.6" if asked_back else "1.3.0"}
