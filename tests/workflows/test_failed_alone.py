"""A gateway that fails alone on a promoted release is taken back, whatever is in the way of that (R3, R7)."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import Field

from activities.ledger import GatewayResults
from orchestrator.service.changes import STOPPED_WITHIN
from policies.model.change import ChangeKind, ChangeOrder, GatewayResult, Outcome, Phase, Quarantine
from policies.model.command import CommandKind
from policies.model.errors import Refused, Unavailable
from policies.model.fleet import Automation
from policies.model.report import TakenOver
from policies.model.way_back import Confirmation
from policies.notices.entries import HARM, NOT_TAKEN_BACK, TAKEN_BACK, UNWATCHED
from tests.fakes.control import BLIND, CLOSED, CRASHING, HEALTHY, MEASURED, PASSED, QUIET, UNDECIDED
from tests.patience import until
from tests.workflows.engine import Engine
from tests.workflows.recorded import Recorded
from tests.workflows.test_passed_waves import second_wave_that
from tests.workflows.world import (
    NEXT,
    OLD,
    Running,
    World,
    fleet_of,
    in_phase,
    result_of,
    say,
    status_of,
    working,
)
from workflows import steps

IN_A_MINUTE = 60.0
"""Seconds."""

ONE_FAILED = QUIET.model_copy(update={"failed": ("gw-2",)})


def told(world: World) -> list[str]:
    """Return what was written down for operators, in order."""
    return [action for action, *_ in world.book.events.values()]


def said(world: World, action: str) -> str:
    """Return what these entries say."""
    bodies = [body for one, _, body in world.book.events.values() if one == action]
    return "; ".join(body["sentence"] for body in bodies if isinstance(body, dict))


def away(world: World, step: str, monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], Callable[[], None]]:
    """Have the ledger answer one question no more; return how often it was asked, and what ends that."""
    answers, asked, is_away = getattr(world.book, step), list[str](), [True]

    def answer(*arguments: Any, **named: Any) -> Any:
        if not is_away:
            return answers(*arguments, **named)
        asked.append(step)
        raise Unavailable("the ledger does not answer: terminating connection due to administrator command")

    monkeypatch.setattr(world.book, step, answer)
    return asked, is_away.clear


async def first_ring(world: World) -> str:
    """Promote the release on the first two gateways, and return the change once that is watched."""
    world.judge.says(UNDECIDED, wave=0)
    assert (await world.upgrade(("gw-1", "gw-2"))).outcome is Outcome.PROMOTED
    await until(lambda: bool(world.judge.bakes))
    return world.newest


async def second_ring(world: World) -> Running:
    """Begin to upgrade the other gateways, and return once the first of them is watched."""
    world.judge.says(UNDECIDED)
    rollout = await world.start(("gw-3",), ("gw-4",))
    await in_phase(rollout, Phase.OBSERVING)
    return rollout


@pytest.mark.sweep
async def test_a_gateway_that_fails_alone_is_taken_back_after_a_ledger_that_was_away(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five seconds of a failover were enough for it never to be tried again."""
    monkeypatch.setattr(steps, "NOT_BACK_FOR", timedelta(seconds=1))
    first = await first_ring(world)
    asked, is_back = away(world, "targets", monkeypatch)
    world.judge.after[first] = ONE_FAILED
    await until(lambda: NOT_TAKEN_BACK in told(world))
    assert "the ledger does not answer" in said(world, NOT_TAKEN_BACK)
    tries = len(asked)
    await until(lambda: len(asked) > tries)
    is_back()
    await until(lambda: world.serving()["gw-2"] == "1.1.6", IN_A_MINUTE)
    await until(lambda: TAKEN_BACK in told(world))
    assert (world.serving()["gw-1"], world.book.known_good("edge")["gw-2"]) == ("1.3.0", OLD)


@pytest.mark.sweep
async def test_a_gateway_that_fails_alone_after_its_wave_is_taken_back_after_a_ledger_that_was_away(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "NOT_BACK_FOR", timedelta(seconds=1))
    rollout = await second_wave_that(world, "its window")
    asked, is_back = away(world, "plan_parts", monkeypatch)
    world.judge.says(ONE_FAILED, wave=PASSED)
    await until(lambda: NOT_TAKEN_BACK in told(world))
    tries = len(asked)
    await until(lambda: len(asked) > tries)
    is_back()
    await until(lambda: world.serving()["gw-2"] == "1.1.6", IN_A_MINUTE)
    assert (await status_of(rollout)).phase is Phase.WAITING


@pytest.mark.sweep
async def test_a_gateway_that_fails_alone_in_quarantine_is_taken_back_once_it_is_returned(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R9: and not before."""
    monkeypatch.setattr(steps, "NOT_BACK_FOR", timedelta(seconds=1))
    first = await first_ring(world)
    since = datetime.now(UTC)
    world.book.set_quarantine(
        Quarantine(fleet="edge", gateway="gw-2", reason="no power", person="ana", since=since)
    )
    world.judge.after[first] = ONE_FAILED
    await until(lambda: NOT_TAKEN_BACK in told(world))
    assert "in quarantine by ana: no power" in said(world, NOT_TAKEN_BACK)
    assert (world.newest, world.serving()["gw-2"]) == (first, "1.3.0")
    world.book.clear_quarantine("edge", "gw-2", "ana", "it has power")
    await until(lambda: world.serving()["gw-2"] == "1.1.6", IN_A_MINUTE)


@pytest.mark.sweep
async def test_a_gateway_that_fails_alone_is_taken_back_while_the_next_ring_is_upgraded(world: World) -> None:
    first = await first_ring(world)
    rollout = await second_ring(world)
    second = world.newest
    world.judge.after[first] = ONE_FAILED
    await until(lambda: world.serving()["gw-2"] == "1.1.6", IN_A_MINUTE)
    assert (await status_of(rollout)).phase is Phase.OBSERVING
    await until(lambda: world.book.open_changes("edge") == (second,))
    assert world.book.known_good("edge")["gw-2"] == OLD
    world.judge.says(HEALTHY)
    assert (await result_of(rollout)).outcome is Outcome.PROMOTED
    assert world.serving() == {"gw-1": "1.3.0", "gw-2": "1.1.6", "gw-3": "1.3.0", "gw-4": "1.3.0"}


@pytest.mark.sweep
async def test_a_gateway_that_could_not_go_back_alone_is_tried_again_while_the_next_ring_is_upgraded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its known-good has moved by then, and reconcile leaves it to the change that has the lock."""
    monkeypatch.setattr("workflows.change.ALONE_WITHIN", timedelta(seconds=1))
    monkeypatch.setattr("workflows.failed_alone.REST", timedelta(seconds=1))
    monkeypatch.setattr(steps, "NOT_BACK_FOR", timedelta(seconds=1))
    first = await first_ring(world)
    rollout = await second_ring(world)
    world.gateways["gw-2"].fail("restore", Unavailable("gw-2 does not answer"), times=10_000)
    world.judge.after[first] = ONE_FAILED
    await until(lambda: NOT_TAKEN_BACK in told(world))
    assert "gw-2 does not answer" in said(world, NOT_TAKEN_BACK)
    assert world.book.known_good("edge")["gw-2"] == OLD
    world.gateways["gw-2"].recover("restore")
    await until(lambda: world.serving()["gw-2"] == "1.1.6", IN_A_MINUTE)
    await until(lambda: TAKEN_BACK in told(world))
    assert (await status_of(rollout)).phase is Phase.OBSERVING


@pytest.mark.sweep
async def test_an_upgrade_of_a_gateway_that_failed_alone_ends_before_it_begins(world: World) -> None:
    """Its plan is not true of that gateway any more."""
    first = await first_ring(world)
    world.windows.answer = CLOSED
    order = world.order(("gw-2",), ("gw-1",), release=NEXT)
    waiting = await world.run(order.model_copy(update={"asks_window": True}))
    await in_phase(waiting, Phase.WAITING, wave=0)
    world.judge.after[first] = ONE_FAILED
    assert (await result_of(waiting)).outcome is Outcome.REFUSED
    await until(lambda: world.serving()["gw-2"] == "1.1.6", IN_A_MINUTE)


@pytest.mark.sweep
async def test_a_watch_hears_harm_and_silence_while_a_gateway_waits_to_be_taken_back(
    server: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for a second person's answer about a rollback that has it in its plan."""
    monkeypatch.setattr(steps, "UNREAD_FOR", timedelta(seconds=1))
    monkeypatch.setattr(steps, "NOT_BACK_FOR", timedelta(seconds=1))
    fleet = fleet_of("edge", lease=timedelta(seconds=15), automation=Automation.ASK)
    async with working(World.made(await server.client(), fleet)) as world:
        first = await first_ring(world)
        plan = world.book.record_return(world.fleet, {"gw-2": OLD})
        confirm = Confirmation(
            reason="1.1.6 is not known-good", within=timedelta(hours=1), change=plan, known_good=plan
        )
        order = ChangeOrder(
            fleet="edge", kind=ChangeKind.GO_BACK, plan=plan, reason="ana: one moment", confirm=confirm
        )
        waiting = await world.run(order)
        await in_phase(waiting, Phase.HELD, wave=0)
        second = world.newest
        world.judge.after[first] = ONE_FAILED
        await until(lambda: NOT_TAKEN_BACK in told(world))
        assert f"{second} has the fleet's lock, and changes gw-2" in said(world, NOT_TAKEN_BACK)
        world.judge.after[first] = BLIND
        await until(lambda: UNWATCHED in told(world))
        world.judge.after[first] = MEASURED
        await until(lambda: HARM in told(world))
        assert world.serving()["gw-2"] == "1.3.0"
        await waiting.terminate("over")


# What ends a change ends what it has let in: neither a rollback nor harm waits for a dead gateway.


async def dead_gateway_returns(world: World, first: str) -> None:
    """Have a silent gateway fail alone, and return once the change that waits has let its return in."""
    world.gateways["gw-2"].fail("restore", Unavailable("gw-2 does not answer"), times=100_000)
    world.judge.after[first] = ONE_FAILED
    await until(lambda: len(world.book.open_changes("edge")) == 2)


async def waits_for_tonight(world: World) -> Running:
    """Begin to upgrade the other gateways, and return once that waits for its window."""
    world.windows.answer = CLOSED
    order = world.order(("gw-3",), ("gw-4",), release=NEXT)
    waiting = await world.run(order.model_copy(update={"asks_window": True}))
    await in_phase(waiting, Phase.WAITING, wave=0)
    return waiting


@pytest.mark.sweep
@pytest.mark.parametrize("has_just_ended", [False, True])
async def test_a_rollback_waits_for_no_return_of_a_dead_gateway_that_a_waiting_upgrade_has_let_in(
    recorded: Recorded, has_just_ended: bool
) -> None:
    """It was refused for half a minute as one of a change that "has ended (rolled back)"."""
    world = recorded.world
    first = await first_ring(world)
    waiting = await waits_for_tonight(world)
    await dead_gateway_returns(world, first)
    if has_just_ended:
        await say(waiting, CommandKind.ROLL_BACK)
        await until(lambda: len(world.book.open_changes("edge")) < 2)
    began = time.monotonic()
    receipt = await recorded.service.roll_back(world.fleet, "ana", "users of gw-1 cannot log in")
    assert time.monotonic() - began < STOPPED_WITHIN.total_seconds() + 5
    assert receipt.accepted
    await until(lambda: world.serving()["gw-1"] == "1.1.6")


@pytest.mark.sweep
async def test_a_rollback_waits_for_no_dead_gateway_that_returns_by_itself(recorded: Recorded) -> None:
    """It goes back already, and that kept the lock for a minute."""
    world = recorded.world
    first = await first_ring(world)
    world.gateways["gw-2"].fail("restore", Unavailable("gw-2 does not answer"), times=100_000)
    world.judge.after[first] = ONE_FAILED
    await until(lambda: world.book.known_good("edge")["gw-2"] == OLD)
    assert (await recorded.service.roll_back(world.fleet, "ana", "users of gw-1 cannot log in")).accepted
    await until(lambda: world.serving()["gw-1"] == "1.1.6")


@pytest.mark.sweep
async def test_harm_waits_for_no_return_of_a_dead_gateway_that_a_waiting_upgrade_has_let_in(
    world: World,
) -> None:
    first = await first_ring(world)
    waiting = await waits_for_tonight(world)
    await dead_gateway_returns(world, first)
    world.judge.after[first] = CRASHING
    await until(lambda: world.serving()["gw-1"] == "1.1.6", 15)
    assert (await result_of(waiting)).outcome is Outcome.REFUSED


# The next upgrade answers for the gateways that it moves: the others are watched, tried and named on (R7).


async def one_in_quarantine(world: World, *gateways: str) -> str:
    """Promote the release, and return the change once one that failed alone is kept by a quarantine."""
    world.judge.says(UNDECIDED, wave=0)
    assert (await world.upgrade(gateways)).outcome is Outcome.PROMOTED
    first = world.newest
    await until(lambda: bool(world.judge.bakes))
    since = datetime.now(UTC)
    world.book.set_quarantine(
        Quarantine(fleet="edge", gateway="gw-2", reason="its disk is checked", person="ana", since=since)
    )
    world.judge.after[first] = ONE_FAILED
    await until(lambda: NOT_TAKEN_BACK in told(world))
    return first


async def next_release(world: World) -> Running:
    """Begin to upgrade one gateway to the next release, and return once that is watched."""
    world.judge.says(UNDECIDED)
    rollout = await world.start(("gw-1",), release=NEXT)
    await in_phase(rollout, Phase.OBSERVING)
    return rollout


@pytest.mark.sweep
async def test_a_gateway_that_failed_alone_is_taken_back_during_the_upgrade_that_leaves_it_out(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its notice was settled, and it stayed on the release that it failed on."""
    monkeypatch.setattr(steps, "NOT_BACK_FOR", timedelta(seconds=1))
    await one_in_quarantine(world, "gw-1", "gw-2", "gw-3", "gw-4")
    rollout = await next_release(world)
    assert TAKEN_BACK not in told(world)
    world.book.clear_quarantine("edge", "gw-2", "ana", "it may go back now")
    await until(lambda: world.serving()["gw-2"] == "1.1.6", IN_A_MINUTE)
    await until(lambda: TAKEN_BACK in told(world))
    assert (await status_of(rollout)).phase is Phase.OBSERVING
    assert world.serving() == {"gw-1": "1.4.0", "gw-2": "1.1.6", "gw-3": "1.3.0", "gw-4": "1.3.0"}


@pytest.mark.sweep
async def test_harm_on_gateways_that_the_next_upgrade_leaves_out_takes_both_releases_back(
    world: World,
) -> None:
    """No daemon of theirs was watched for as long as the upgrade went on."""
    world.judge.says(UNDECIDED, wave=0)
    assert (await world.upgrade(("gw-1", "gw-2", "gw-3", "gw-4"))).outcome is Outcome.PROMOTED
    first = world.newest
    await until(lambda: bool(world.judge.bakes))
    rollout = await next_release(world)
    assert world.judge.bakes[-1].left_to in {None, TakenOver(change=world.newest, up_to=1)}
    await until(lambda: world.judge.bakes[-1].left_to == TakenOver(change=world.newest, up_to=1))
    world.judge.after[first] = CRASHING
    await until(lambda: set(world.serving().values()) == {"1.1.6"}, IN_A_MINUTE)
    assert (await result_of(rollout)).outcome is Outcome.ROLLED_BACK


@pytest.mark.sweep
async def test_the_notice_of_a_gateway_that_failed_alone_is_settled_once_an_upgrade_takes_it_over(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "NOT_BACK_FOR", timedelta(seconds=1))
    first = await first_ring(world)
    _, is_back = away(world, "targets", monkeypatch)
    world.judge.after[first] = ONE_FAILED
    await until(lambda: NOT_TAKEN_BACK in told(world))
    world.judge.says(UNDECIDED)
    world.judge.says(UNDECIDED, wave=2)
    rollout = await world.start(("gw-1",), ("gw-2",), release=NEXT)
    await in_phase(rollout, Phase.OBSERVING)
    world.judge.after[first] = QUIET
    is_back()
    assert TAKEN_BACK not in told(world)  # its wave has not begun
    world.judge.says(HEALTHY)
    await in_phase(rollout, Phase.OBSERVING, wave=2)
    await until(lambda: TAKEN_BACK in told(world), IN_A_MINUTE)
    assert said(world, TAKEN_BACK) == "the fleet's next change answers for it"
    assert world.serving()["gw-2"] == "1.4.0"
    assert (await status_of(rollout)).phase is Phase.OBSERVING


@pytest.mark.sweep
async def test_a_gateway_that_failed_alone_is_taken_back_after_the_promotion_that_left_it_out(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "NOT_BACK_FOR", timedelta(seconds=1))
    first = await one_in_quarantine(world, "gw-1", "gw-2")
    world.judge.says(HEALTHY)
    world.judge.after[first] = QUIET
    assert (await world.upgrade(("gw-3",), ("gw-4",))).outcome is Outcome.PROMOTED
    second = world.newest
    world.judge.bakes.clear()
    await until(lambda: {asked.change for asked in world.judge.bakes} == {first, second})
    assert TAKEN_BACK not in told(world)
    world.book.clear_quarantine("edge", "gw-2", "ana", "it may go back now")
    await until(lambda: world.serving()["gw-2"] == "1.1.6", IN_A_MINUTE)
    await until(lambda: TAKEN_BACK in told(world))


# Many that fail alone at once: 500 are named together, here one.


@pytest.fixture
def one_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workflows.failed_alone.MOST_TOGETHER", 1, raising=False)


@pytest.mark.sweep
async def test_each_of_more_gateways_than_one_question_names_is_taken_back_after_a_promotion(
    world: World, one_together: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of them was, and the notice read "ask for at most 500"."""
    first = await first_ring(world)
    monkeypatch.setattr("orchestrator.store.known_good.MOST", 1)
    world.judge.after[first] = QUIET.model_copy(update={"failed": ("gw-1", "gw-2")})
    await until(lambda: [*world.serving().values()][:2] == ["1.1.6", "1.1.6"], IN_A_MINUTE)


@pytest.mark.sweep
async def test_each_of_more_gateways_than_one_step_names_is_taken_back_after_their_wave(
    world: World, one_together: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows of more than 500 gateways failed, and those that failed later were never taken back."""

    class OneResult(GatewayResults):
        results: tuple[GatewayResult, ...] = Field(max_length=1)

    monkeypatch.setattr("workflows.passed.GatewayResults", OneResult)
    world.judge.says(UNDECIDED, wave=2)
    rollout = await world.start(("gw-1", "gw-2", "gw-3"), ("gw-4",))
    await in_phase(rollout, Phase.OBSERVING, wave=2)
    failed = QUIET.model_copy(update={"failed": ("gw-1", "gw-2")})
    world.judge.says(failed, wave=PASSED)
    await until(lambda: [*world.serving().values()][:3] == ["1.1.6", "1.1.6", "1.3.0"], IN_A_MINUTE)
    world.judge.says(failed.model_copy(update={"failed": ("gw-1", "gw-2", "gw-3")}), wave=PASSED)
    await until(lambda: world.serving()["gw-3"] == "1.1.6", IN_A_MINUTE)
    assert (await status_of(rollout)).phase is Phase.OBSERVING


@pytest.mark.sweep
async def test_no_gateway_beyond_those_that_a_result_names_is_called_taken_back_that_is_not(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of more than 50 that were not back the others' pages were settled, and none was tried again."""
    monkeypatch.setattr("workflows.children.NAMED", 1)
    monkeypatch.setattr("policies.planning.parts.most_together", lambda members: 1)
    monkeypatch.setattr("workflows.change.ALONE_WITHIN", timedelta(seconds=4))
    monkeypatch.setattr("workflows.failed_alone.REST", timedelta(seconds=1))
    monkeypatch.setattr(steps, "NOT_BACK_FOR", timedelta(seconds=1))
    first = await first_ring(world)
    _, ledger_is_back = away(world, "targets", monkeypatch)
    world.judge.after[first] = QUIET.model_copy(update={"failed": ("gw-1", "gw-2")})
    await until(lambda: told(world).count(NOT_TAKEN_BACK) == 2)
    for name in ("gw-1", "gw-2"):
        world.gateways[name].fail("restore", Refused(f"{name} refuses"), times=10_000)
    ledger_is_back()
    await until(lambda: Outcome.ROLLBACK_INCOMPLETE in ends(world), IN_A_MINUTE)
    await until(lambda: ends(world).count(Outcome.ROLLBACK_INCOMPLETE) > 1, IN_A_MINUTE)
    assert TAKEN_BACK not in told(world)
    for name in ("gw-1", "gw-2"):
        world.gateways[name].recover("restore")
    await until(lambda: told(world).count(TAKEN_BACK) == 2, IN_A_MINUTE)
    assert [world.serving()[name] for name in ("gw-1", "gw-2")] == ["1.1.6", "1.1.6"]


def ends(world: World) -> list[Outcome | None]:
    """Return how the fleet's changes have ended."""
    return [record.outcome for record in world.book.history("edge")]
