"""No gateway is promoted that an operator has steered back before the promotion (R9)."""

import asyncio
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from temporalio import activity
from temporalio.client import WorkflowExecutionStatus, WorkflowHandle
from temporalio.service import RPCError

from policies.model.change import GatewayResult, Outcome, Phase
from policies.model.command import CommandKind
from policies.model.errors import Unavailable
from policies.model.instance import GatewayState
from policies.planning.cohorts import KEPT, LEFT_OUT
from policies.status.told import Told
from tests.fakes.control import HEALTHY
from tests.patience import until
from tests.workflows.engine import Engine
from tests.workflows.test_passed_waves import second_wave_that
from tests.workflows.test_steered_by_hand import steered_back
from tests.workflows.test_way_back_at_once import AT_ONCE, serves_known_good
from tests.workflows.world import NEW, OLD, Running, World, fleet_of, result_of, say, status_of, working
from workflows import steps
from workflows.change import Change, ChangeRun, Continued
from workflows.steps import CONTROL_QUEUE

SILENT = Unavailable("it does not answer")


async def of_waves(server: Engine, waves: list[tuple[str, ...]]) -> tuple[World, ChangeRun]:
    """Return a fleet on which these waves have passed, and the run of the change that promotes them."""
    world = World.made(await server.client(), fleet_of("edge", size=sum(map(len, waves))))
    order = world.order(*waves)
    name, now = world.opened(order), datetime.now(UTC)
    rows = [
        GatewayResult(gateway=one, wave=number, state=KEPT, at=now, started=now.timestamp(), slot="b")
        for number, wave in enumerate(waves, start=1)
        for one in wave
    ]
    world.book.record_gateways(name, rows)
    for row in rows:
        world.gateways[row.gateway].serve(NEW, "b")
    assert order.plan is not None
    continued = Continued(
        name=name,
        header=world.book.plan_header(order.plan),
        epoch=int(time.time() * 1000) - 60_000,
        passed=len(waves),
        told=Told(name=name, moved=True, begun=len(waves), phase=Phase.OBSERVING),
        receipts={},
    )
    return world, ChangeRun(order=order, continued=continued)


async def promoting(world: World, run: ChangeRun) -> Running:
    return await world.client.start_workflow(Change.run, run, id="change/edge", task_queue=CONTROL_QUEUE)


async def look_of(world: World) -> WorkflowHandle[Any, Any]:
    """Return the look before the promotion once it has begun; the change may be cut after it."""
    running = world.client.get_workflow_handle("change/edge")
    async with asyncio.timeout(60):
        while True:
            run = (await running.describe()).run_id
            look = world.client.get_workflow_handle(f"change/edge/{world.newest}/last-look/{run}")
            with suppress(RPCError):  # there is none yet
                await look.describe()
                return look
            await asyncio.sleep(0.1)


async def test_no_gateway_of_a_whole_site_that_operators_steered_back_is_promoted(server: Engine) -> None:
    """The first fifty were left out, and the others got a known-good that they did not serve."""
    names = [f"gw-{number}" for number in range(1, 65)]
    world, run = await of_waves(server, [tuple(names[:32]), tuple(names[32:])])
    steered = names[:60]
    for one in steered:
        await steered_back(world.gateways[one])
    async with working(world):
        running = await promoting(world, run)
        result = await result_of(running)
        status = await status_of(running)
    assert result.outcome is Outcome.PROMOTED
    good = world.book.known_good("edge")
    assert {one for one in names if good[one] == NEW} == {*names[60:]}
    assert (len(result.aside), len(status.aside) + status.more_aside) == (50, 60)
    assert {row.gateway for row in world.book.gateways_of(world.newest, LEFT_OUT)} == {*steered}


async def test_an_upgrade_of_which_each_gateway_is_left_to_operators_ends_held_and_promotes_nothing(
    server: Engine,
) -> None:
    """It ended as promoted, and its screen said that every gateway takes its sessions on the release."""
    names = ("gw-1", "gw-2")
    world, run = await of_waves(server, [names[:1], names[1:]])
    for one in names:
        await steered_back(world.gateways[one])
    async with working(world):
        running = await promoting(world, run)
        result = await result_of(running)
        status = await status_of(running)
    assert (result.outcome, sorted(result.aside)) == (Outcome.HELD, [*names])
    assert "no gateway runs" in result.reason
    assert (status.what, status.why, status.runbook) == ("held: needs a person", result.reason, "held-decide")
    assert world.book.known_good("edge") == dict.fromkeys(world.gateways, OLD)


@pytest.mark.sweep
async def test_a_silent_gateway_of_one_part_delays_the_look_at_no_other_part(
    server: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look ended before it came to the last part, whose gateway was promoted."""
    monkeypatch.setattr("workflows.children.PARTS_AT_ONCE", 1)
    monkeypatch.setattr("workflows.children.TURN_LASTS", timedelta(seconds=2), raising=False)
    monkeypatch.setitem(steps.SURVEY, "schedule_to_close_timeout", timedelta(seconds=13))
    world, run = await of_waves(server, [("gw-1", "gw-2"), ("gw-3", "gw-4"), ("gw-5", "gw-6")])
    for one in ("gw-1", "gw-3", "gw-5"):
        world.gateways[one].fail("observe", SILENT, times=10_000)
    await steered_back(world.gateways["gw-6"])
    async with working(world):
        result = await result_of(await promoting(world, run))
    assert (result.outcome, list(result.aside)) == (Outcome.PROMOTED, ["gw-6"])
    assert world.book.known_good("edge") == {name: OLD if name == "gw-6" else NEW for name in world.gateways}


@pytest.mark.sweep
async def test_a_gateway_that_was_steered_back_is_not_promoted_because_the_ledger_fails_meanwhile(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether its operator has returned it could not be read, so it was taken for returned."""
    running = await second_wave_that(world, "its verdict")
    await steered_back(world.gateways["gw-1"])
    quarantined, failures = world.book.quarantined, [SILENT] * 6

    def fails(fleet: str) -> object:
        if activity.info().activity_type == "find_handed_over" and failures:
            raise failures.pop()
        return quarantined(fleet)

    monkeypatch.setattr(world.book, "quarantined", fails)
    world.judge.says(HEALTHY, wave=2)
    assert list((await result_of(running)).aside) == ["gw-1"]
    assert not failures
    assert world.book.known_good("edge")["gw-1"] == OLD


@pytest.mark.sweep
async def test_a_gateway_that_an_operator_steers_back_during_a_hold_after_the_last_wave_is_not_promoted(
    world: World,
) -> None:
    """It was asked before the hold, and reconcile reports it only within a minute."""
    running = await second_wave_that(world, "its verdict")
    world.gateways["gw-2"].fail("observe", SILENT, times=10_000)
    world.judge.says(HEALTHY, wave=2)
    look = await look_of(world)
    await say(running, CommandKind.HOLD)
    await look.result()
    await asyncio.sleep(1)  # until the change has heard of that
    await steered_back(world.gateways["gw-1"])
    await say(running, CommandKind.RESUME)
    assert list((await result_of(running)).aside) == ["gw-1"]
    assert world.book.known_good("edge")["gw-1"] == OLD


@pytest.mark.sweep
async def test_a_hold_that_is_lifted_before_the_last_look_has_ended_is_followed_by_a_new_look(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether an operator held was asked after the look alone, and a gateway steered back was promoted."""
    running = await second_wave_that(world, "its verdict")
    world.gateways["gw-2"].fail("observe", SILENT, times=10_000)
    asked, observe = asyncio.Event(), world.gateways["gw-1"].observe

    async def observed() -> GatewayState:
        state = await observe()
        if activity.in_activity() and "/last-look/" in (activity.info().workflow_id or ""):
            asked.set()
        return state

    monkeypatch.setattr(world.gateways["gw-1"], "observe", observed)
    world.judge.says(HEALTHY, wave=2)
    look = await look_of(world)
    await asked.wait()
    await say(running, CommandKind.HOLD)
    await steered_back(world.gateways["gw-1"])
    await say(running, CommandKind.RESUME)
    assert (await look.describe()).status is WorkflowExecutionStatus.RUNNING
    assert list((await result_of(running)).aside) == ["gw-1"]
    assert world.book.known_good("edge")["gw-1"] == OLD


@pytest.mark.sweep
async def test_a_rollback_waits_for_no_gateway_that_is_asked_before_the_promotion(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(steps.SURVEY, "schedule_to_close_timeout", timedelta(minutes=5))
    running = await second_wave_that(world, "its verdict")
    world.gateways["gw-2"].fail("observe", SILENT, times=10_000)
    world.judge.says(HEALTHY, wave=2)
    await look_of(world)
    await say(running, CommandKind.ROLL_BACK)
    await until(serves_known_good(world), AT_ONCE)
    assert (await result_of(running)).outcome is Outcome.ROLLED_BACK
