"""Whoever reaches the engine without keys repeats what was sealed before: no change goes on by it."""

import asyncio
import secrets
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio.api.common.v1 import Payload, WorkflowExecution
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import Client
from temporalio.common import RawValue
from temporalio.service import RPCError

from activities.drivers.private_files import write_private
from orchestrator.engine.schedules import end_reconcile, keep_reconciling, reconcile_of
from orchestrator.engine.sealing import data_converter
from policies.model.change import ChangeResult, Outcome, Phase
from policies.model.command import CommandKind
from tests.fakes.control import AT_CAP, UNHEALTHY
from tests.patience import until
from tests.workflows.engine import Engine
from tests.workflows.world import (
    NEXT,
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
from workflows import steps

FIRST_TASK_DONE = 4
"""The number of the event up to which a reset keeps a history: its first task was carried out."""


async def sealed(server: Engine, folder: Path) -> tuple[World, Client]:
    """Return a fleet whose orders are sealed, and a stranger at its engine."""
    stranger = await server.client()
    keys = folder / "master.keys"
    write_private(keys, f"one:{secrets.token_hex(32)}\n".encode())
    ours = await Client.connect(
        server.address, namespace=stranger.namespace, data_converter=data_converter(keys)
    )
    return World.made(ours, fleet_of("edge", lease=timedelta(seconds=15))), stranger


def repeated(world: World, run: str | None = None) -> Running:
    return world.client.get_workflow_handle("change/edge", run_id=run, result_type=ChangeResult)


def steered(world: World) -> dict[str, list[str]]:
    """Return what was done to users; the instance that they left is stopped whenever it is empty."""
    return {
        name: [one for one in done if not one.startswith("stop")] for name, done in world.effects().items()
    }


async def said_to(stranger: Client, run: str | None) -> list[Payload]:
    """Return the sealed commands of a change, as its history shows them to everybody."""
    history = stranger.get_workflow_handle("change/edge", run_id=run).fetch_history_events()
    updates = [
        event.workflow_execution_update_accepted_event_attributes.accepted_request async for event in history
    ]
    return [update.input.args.payloads[0] for update in updates if update.input.args.payloads]


@pytest.mark.sweep
async def test_votes_for_one_change_promote_no_other(server: Engine, tmp_path: Path) -> None:
    world, stranger = await sealed(server, tmp_path)
    async with working(world):
        world.judge.says(AT_CAP)
        first = await world.start(("gw-1",))
        await in_phase(first, Phase.HELD)
        for person in ("ana", "ben"):
            await say(first, CommandKind.PROMOTE, person)
        assert (await result_of(first)).outcome is Outcome.PROMOTED
        votes = await said_to(stranger, first.result_run_id)
        assert len(votes) == 2
        second = await world.start(("gw-1",), release=NEXT)
        await in_phase(second, Phase.HELD)
        for vote in votes:
            await stranger.get_workflow_handle("change/edge").signal("command_fallback", RawValue(vote))

        async def refused() -> bool:
            told = [event.sentence for event in (await status_of(second)).events]
            return sum("it was said to another change of edge" in sentence for sentence in told) == len(votes)

        await until(refused)
        assert (await status_of(second)).phase is Phase.HELD
        await say(second, CommandKind.ROLL_BACK)
        assert (await result_of(second)).outcome is Outcome.ROLLED_BACK


@pytest.mark.parametrize(("of", "why"), [("its first run", "another run"), ("its last run", "has ended")])
async def test_the_order_of_a_change_that_ended_begins_nothing_under_any_name(
    server: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of: str, why: str
) -> None:
    """Where the history was cut while gateways went back, its last run began another restore."""
    monkeypatch.setattr(steps, "SHORT_HISTORY", 20)
    world, stranger = await sealed(server, tmp_path)
    async with working(world):
        world.judge.says(UNHEALTHY)
        first = await world.start(("gw-1",), ("gw-2",))
        assert (await result_of(first)).outcome is Outcome.ROLLED_BACK
        run = first.first_execution_run_id if of == "its first run" else None
        events = stranger.get_workflow_handle("change/edge", run_id=run).fetch_history_events()
        order = (await anext(events)).workflow_execution_started_event_attributes.input.payloads[0]
        moved = steered(world)
        await stranger.start_workflow("Change", RawValue(order), id="change/edge", task_queue="control")
        result = await result_of(repeated(world))
        assert result.outcome is Outcome.REFUSED
        assert why in result.reason
        other = "change/edge-2026-01-01T00:00:00Z"
        await stranger.start_workflow(
            "Change", RawValue(order), id=other, task_queue="control", run_timeout=timedelta(seconds=5)
        )

        async def tried() -> bool:
            found = [event async for event in stranger.get_workflow_handle(other).fetch_history_events()]
            return any(
                event.HasField("workflow_task_failed_event_attributes")
                or event.HasField("workflow_task_completed_event_attributes")
                for event in found
            )

        await until(tried)
        assert steered(world) == moved
        assert [row.name for row in world.book.history("edge")] == ["edge-2", "edge-1"]


async def test_a_change_that_the_engine_was_told_to_repeat_goes_no_further(
    server: Engine, tmp_path: Path
) -> None:
    world, stranger = await sealed(server, tmp_path)
    async with working(world):
        world.judge.says(UNHEALTHY)
        first = await world.start(("gw-1",), ("gw-2",))
        ended = await result_of(first)
        assert ended.outcome is Outcome.ROLLED_BACK
        world.judge.script.clear()
        asked = ResetWorkflowExecutionRequest(
            namespace=stranger.namespace,
            workflow_execution=WorkflowExecution(workflow_id="change/edge", run_id=await run_of(first)),
            reason="again",
            workflow_task_finish_event_id=FIRST_TASK_DONE,
            request_id=secrets.token_hex(8),
        )
        again = await stranger.workflow_service.reset_workflow_execution(asked)
        result = await result_of(repeated(world, again.run_id))
        assert result.outcome is Outcome.REFUSED
        assert world.serving() == dict.fromkeys(world.gateways, OLD.version)
        change = world.book.change(ended.rollout)
        assert (change.outcome, change.sentence) == (Outcome.ROLLED_BACK, ended.reason)


async def test_a_schedule_is_sealed_anew_when_the_keys_change(
    server: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else nobody would look for changes that were left alone once the old key is taken away."""
    monkeypatch.setattr("orchestrator.engine.schedules.LOOK", timedelta(milliseconds=100))
    world, _ = await sealed(server, tmp_path)
    keys, schedule = tmp_path / "master.keys", world.client.get_schedule_handle(reconcile_of("edge"))

    async def sealed_for() -> set[str]:
        with suppress(RPCError):
            (order,) = (await schedule.describe()).schedule.action.args  # type: ignore[attr-defined]  # of a workflow
            return {name for name in order.metadata if name != "encoding"}
        return set()

    async def until_sealed_for(*names: str) -> None:
        async def they_are() -> bool:
            return await sealed_for() == {f"penstock-key/{name}" for name in names}

        await until(they_are)

    keeping = asyncio.create_task(keep_reconciling(world.client, lambda: [world.fleet]))
    try:
        await until_sealed_for("one")
        old = keys.read_text()
        new = f"two:{secrets.token_hex(32)}\n"
        write_private(keys, (old + new).encode())
        await until_sealed_for("one", "two")
        write_private(keys, new.encode())
        await until_sealed_for("two")
    finally:
        keeping.cancel()
        await end_reconcile(world.client, "edge")
