"""What is held, wedged, large or long: nothing grows without bound, and nobody is left without an answer."""

import asyncio
import secrets
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import event, update
from temporalio import workflow
from temporalio.api.enums.v1 import PendingWorkflowTaskState
from temporalio.api.workflow.v1 import PendingWorkflowTaskInfo
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.common import RetryPolicy
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import (
    ExecuteWorkflowInput,
    Interceptor,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
)

from activities.drivers.private_files import write_private
from orchestrator.cli.client import SURVEY_SECONDS
from orchestrator.service.changes import ChangeService
from orchestrator.service.standing import looked_at_within, standing_of
from orchestrator.service.surveys import SURVEY_OF_A_GATEWAY, SURVEYED_WITHIN
from orchestrator.store import tables
from orchestrator.store.ledger import Ledger
from policies.model.change import ChangeKind, ChangeOpening, ChangeOrder, Outcome, Phase
from policies.model.command import Command, CommandKind
from policies.model.errors import Conflict, Unavailable
from policies.model.fleet import Fleet
from policies.model.plan_part import MOST_MEMBERS
from policies.planning.cohorts import KEPT
from policies.status.told import Told
from tests.fakes.control import HEALTHY, UNDECIDED, ObservedLedger
from tests.fakes.gateway import FakeGateway
from tests.patience import PATIENCE, until
from tests.workflows.engine import Engine
from tests.workflows.recorded import SOON, recording
from tests.workflows.world import (
    OLD,
    World,
    agent_worker,
    began_with,
    control_worker,
    fleet_of,
    gateway,
    in_phase,
    result_of,
    say,
    steps_of,
    working,
)
from workflows import steps
from workflows.batch import BatchOrder
from workflows.change import Change, ChangeRun
from workflows.identities import change_of
from workflows.survey import PAGES_A_LOOK, entries_of

AT_ONCE = 50
"""Gateways that one workflow may have to do with at the same time."""


# --- a wedge -------------------------------------------------------------------------------


class DeafEngine:
    """An engine that cannot carry an update to its workflow; `signals` is what it took by the other road."""

    def __init__(self, answer: RPCStatusCode, to_signal: RPCStatusCode | None = None) -> None:
        self._answer, self._to_signal = answer, to_signal
        self.signals: list[Any] = []

    def get_workflow_handle(self, *_: Any, **__: Any) -> "DeafEngine":
        return self

    async def describe(self, **_: Any) -> None:
        raise RPCError("the engine is down", RPCStatusCode.UNAVAILABLE, b"")

    async def execute_update(self, *_: Any, **__: Any) -> None:
        raise RPCError("no workflow task was completed", self._answer, b"")

    async def signal(self, _: Any, command: Command, **__: Any) -> None:
        if self._to_signal is not None:
            raise RPCError("the engine is down", self._to_signal, b"")
        self.signals.append(command)


BACK = Command(id="1", kind=CommandKind.ROLL_BACK, person="ana", reason="users call")
UNANSWERED = [
    RPCStatusCode.UNAVAILABLE,
    RPCStatusCode.RESOURCE_EXHAUSTED,
    RPCStatusCode.FAILED_PRECONDITION,
    RPCStatusCode.INTERNAL,
    RPCStatusCode.UNKNOWN,
]


@pytest.mark.parametrize("answer", UNANSWERED, ids=lambda answer: answer.name)
async def test_an_order_takes_the_durable_road_whenever_the_quick_one_does_not_answer(
    answer: RPCStatusCode,
) -> None:
    """D8."""
    engine = DeafEngine(answer)
    receipt = await ChangeService(cast(Client, engine), ObservedLedger()).command("edge", BACK)
    assert engine.signals == [BACK]
    assert receipt.sentence.startswith("Not in force yet: the order is stored, and no worker has")
    assert receipt.sentence.endswith("order the rollback again by `penstock rollback edge --reason TEXT`.")


@pytest.mark.parametrize("is_sealed", [False, True], ids=["plain", "sealed"])
async def test_an_order_that_is_stored_is_named_until_a_worker_takes_it(
    server: Engine, tmp_path: Path, is_sealed: bool
) -> None:
    """A fresh reader's H5: status offered hold again, and mentioned the stored one nowhere."""
    keys = tmp_path / "payload.keys" if is_sealed else None
    if keys is not None:
        write_private(keys, f"one:{secrets.token_hex(32)}\n".encode())
    client = await server.client(keys=keys)
    changes = ChangeService(client, ObservedLedger())
    assert await changes.stored("edge") == ()
    order = ChangeOrder(fleet="edge", kind=ChangeKind.UPGRADE, requested_by="ana", reason="CVE")
    change = await client.start_workflow(
        Change.run, ChangeRun(order=order), id=change_of("edge"), task_queue="without a worker"
    )
    assert await changes.stored("edge") == ()
    hold = BACK.model_copy(update={"kind": CommandKind.HOLD})
    await change.signal(Change.command_fallback, hold)
    await change.signal("harm", args=["another signal", "edge-1"])
    (stored,) = await changes.stored("edge")
    assert (stored.kind, stored.person, stored.reason) == (CommandKind.HOLD, "ana", "users call")
    assert abs(datetime.now(UTC) - stored.at) < timedelta(minutes=1)


@pytest.mark.sweep
async def test_an_order_that_was_carried_out_is_not_stored_any_more(world: World) -> None:
    world.judge.says(UNDECIDED)
    rollout = await world.start(("gw-1",))
    await in_phase(rollout, Phase.OBSERVING)
    await rollout.signal(Change.command_fallback, BACK.model_copy(update={"kind": CommandKind.HOLD}))
    await in_phase(rollout, Phase.HELD)
    assert await ChangeService(world.client, ObservedLedger()).stored("edge") == ()


class UnheardEngine(DeafEngine):
    """An engine whose change has waited for a worker for long."""

    async def describe(self, **_: Any) -> Any:
        pending = PendingWorkflowTaskInfo(
            state=PendingWorkflowTaskState.PENDING_WORKFLOW_TASK_STATE_SCHEDULED, attempt=1
        )
        pending.original_scheduled_time.FromDatetime(datetime(2026, 11, 22, 3, tzinfo=UTC))

        async def memo() -> dict[str, Any]:
            return {}

        return SimpleNamespace(
            status=WorkflowExecutionStatus.RUNNING,
            memo=memo,
            raw_description=SimpleNamespace(pending_workflow_task=pending),
        )


@pytest.mark.sweep
async def test_an_order_that_no_worker_takes_is_answered_in_whole_sentences() -> None:
    """M5: one ended without a full stop, and began small."""
    engine = UnheardEngine(RPCStatusCode.UNAVAILABLE)
    receipt = await ChangeService(cast(Client, engine), ObservedLedger()).command("edge", BACK)
    assert receipt.sentence == (
        "Not in force yet: the order is stored. No worker has taken the next step of edge's change since "
        "03:00:00 UTC, so what is shown is of before: start one; trials end by their lease, and orders are "
        "stored until then. If the change has moved no session by then, it only ends and nothing is taken "
        "back: once `penstock status edge` shows its end, order the rollback again by `penstock rollback "
        "edge --reason TEXT`."
    )


@pytest.mark.sweep
async def test_a_stored_rollback_of_what_has_moved_sessions_is_not_answered_with_what_it_does_otherwise() -> (
    None
):
    """M5: the operator was told to order it again, for a change that would take its sessions back."""
    engine, ledger = DeafEngine(RPCStatusCode.UNAVAILABLE), ObservedLedger()
    opening = ChangeOpening(
        key="run", fleet="edge", kind=ChangeKind.UPGRADE, requested_by="ana", reason="CVE", release="1.3.0"
    )
    name = ledger.open_change(opening)
    order = ChangeOrder(fleet="edge", kind=ChangeKind.UPGRADE, requested_by="ana", reason="CVE")
    ledger.record_story(order, Told(name=name, moved=True), 0, [])
    receipt = await ChangeService(cast(Client, engine), ledger).command("edge", BACK)
    assert receipt.sentence == (
        "Not in force yet: the order is stored, and no worker has answered. It is carried out with the "
        "change's next step."
    )


@pytest.mark.sweep
async def test_an_abort_that_is_only_stored_is_answered_with_what_it_does_once_sessions_have_moved() -> None:
    engine = DeafEngine(RPCStatusCode.UNAVAILABLE)
    abort = BACK.model_copy(update={"kind": CommandKind.ABORT})
    receipt = await ChangeService(cast(Client, engine), cast(Ledger, None)).command("edge", abort)
    assert receipt.sentence.startswith("Not in force yet: the order is stored, and no worker has")
    assert receipt.sentence.endswith("new ones go back to known-good.")


@pytest.mark.sweep
async def test_an_order_that_no_road_takes_is_an_error_in_words() -> None:
    """D8."""
    engine = DeafEngine(RPCStatusCode.UNAVAILABLE, RPCStatusCode.UNAVAILABLE)
    with pytest.raises(Unavailable, match="nothing was ordered"):
        await ChangeService(cast(Client, engine), cast(Ledger, None)).command("edge", BACK)
    over = DeafEngine(RPCStatusCode.UNAVAILABLE, RPCStatusCode.NOT_FOUND)
    with pytest.raises(Conflict, match="no change of edge is under way"):
        await ChangeService(cast(Client, over), cast(Ledger, None)).command("edge", BACK)


class Changed(Interceptor):
    """A version of penstock under which a change that was begun before cannot be replayed."""

    def workflow_interceptor_class(self, input: WorkflowInterceptorClassInput) -> "type[_Later]":  # noqa: A002
        return _Later


class _Later(WorkflowInboundInterceptor):
    async def execute_workflow(self, input: ExecuteWorkflowInput) -> Any:  # noqa: A002
        if workflow.info().workflow_id == "change/edge":
            await workflow.sleep(1)
        return await super().execute_workflow(input)


@pytest.mark.sweep
async def test_a_forced_rollback_brings_back_what_a_wedged_change_has_touched(
    server: Engine,
) -> None:
    """D8."""
    world = World.made(await server.client(), fleet_of("edge", lease=timedelta(seconds=60)))
    world.judge.pace = 0.3
    world.judge.says(UNDECIDED)
    service = ChangeService(world.client, world.book)
    async with AsyncExitStack() as stack:
        for fake in world.gateways.values():
            await stack.enter_async_context(agent_worker(world.client, fake))
        async with control_worker(world.client, world):
            await in_phase(await world.start(("gw-1",)), Phase.OBSERVING)
        wedged = control_worker(world.client, world, interceptors=[Changed()], failures=())
        await stack.enter_async_context(wedged)
        receipt = await service.roll_back(world.fleet, "ana", "users call", force=True)
        assert receipt.accepted
        await until(lambda: set(world.serving().values()) == {"1.1.6"}, SOON)


# --- size ----------------------------------------------------------------------------------


def large(count: int) -> dict[str, Any]:
    """A fleet file of so many gateways, as it was read and not yet checked."""
    first = IPv4Address("172.16.0.0")
    members = [
        gateway(f"gw-{number}", 1).model_dump(mode="json") | {"addresses": [str(first + number)]}
        for number in range(1, count + 1)
    ]
    return {"name": "edge", "product": "ocserv", "nat": True, "gateways": members}


@pytest.mark.sweep
def test_a_fleet_file_is_checked_in_a_time_that_grows_like_the_fleet() -> None:
    """D11; the SDK takes a workflow that thinks for two seconds for dead."""

    def seconds(count: int) -> float:
        content, best = large(count), float("inf")
        for _ in range(3):
            began = time.process_time()
            fleet = Fleet.model_validate(content)
            best = min(best, time.process_time() - began)
        assert len(fleet.gateways) == count
        return best

    small = seconds(1000)
    assert seconds(8000) < 32 * small  # 64 times as long where every pair is looked at


@pytest.mark.sweep
def test_a_fleet_that_reconcile_looks_at_in_turns_counts_as_seen() -> None:
    """A thousand gateways more than five looks have, each looked at when its turn came last."""
    fleet, book = Fleet.model_validate(large(4000)), ObservedLedger()
    names, state = [member.name for member in fleet.gateways], FakeGateway(fleet.gateways[0])
    state.serve(OLD)
    seen, a_look = state._state(changed=False), PAGES_A_LOOK * MOST_MEMBERS
    for turn, first in enumerate(range(0, len(names), a_look)):
        said = [seen.model_copy(update={"gateway": name}) for name in names[first : first + a_look]]
        book.record_states(fleet.name, said, {})
        when = datetime.now(UTC) - timedelta(minutes=turn, seconds=30)
        with book.engine.begin() as connection:
            table, these = tables.gateway_states, names[first : first + a_look]
            connection.execute(update(table).where(table.c.gateway.in_(these)).values(at=when))
    assert standing_of(fleet, book).taking == len(names)
    [seen_of_it] = book.gateways_looked_at({fleet.name: looked_at_within(len(names))}).values()
    assert seen_of_it.all == {*names}
    assert looked_at_within(50) == timedelta(minutes=5)


@pytest.mark.sweep
@pytest.mark.parametrize(("lines", "entries"), [(0, 1), (200, 4), (600, 10)])
def test_no_entry_of_states_is_larger_than_the_engine_takes_well(lines: int, entries: int) -> None:
    """D11; fifty gateways with 600 routes each were 1.2 MB; the engine takes no more than 2."""
    fake = FakeGateway(gateway("gw-1", 1))
    said = tuple(f"route = 10.{number % 256}.0.0/255.255.0.0" for number in range(lines))
    state = fake._state(changed=False).model_copy(update={"settings": said})
    states = tuple(state.model_copy(update={"gateway": f"gw-{number}"}) for number in range(AT_ONCE))
    asked = {name: datetime.now(UTC) for name in (*(one.gateway for one in states), "gw-99")}
    found = entries_of("edge", states, {"gw-99": "it does not answer"}, asked)
    assert {name: at for rows in found for name, at in rows.asked.items()} == asked
    assert len(found) == entries
    assert [one for rows in found for one in rows.states] == list(states)
    assert [rows.silent for rows in found if rows.silent] == [{"gw-99": "it does not answer"}]
    assert max(len(rows.model_dump_json()) for rows in found) < 256 * 1024
    assert entries_of("edge", (), {"gw-99": "silent"}, asked)[0].silent == {"gw-99": "silent"}


@pytest.mark.sweep
def test_nobody_stops_waiting_for_a_look_at_10000_gateways_before_it_is_over() -> None:
    """Silent gateways in every part of such a fleet take 20 s in each of 17 rounds."""
    assert timedelta(seconds=SURVEY_SECONDS) > SURVEYED_WITHIN + 10_000 * SURVEY_OF_A_GATEWAY


async def under_way(client: Client) -> tuple[int, int]:
    """Return the most that any workflow waits for, and how many steps are waited for by all of them."""
    most, steps_asked = 0, 0
    async for found in client.list_workflows("ExecutionStatus = 'Running'"):
        handle = client.get_workflow_handle(found.id, run_id=found.run_id)
        described = (await handle.describe()).raw_description
        most = max(most, len(described.pending_activities), len(described.pending_children))
        steps_asked += len(described.pending_activities)
    return most, steps_asked


@pytest.mark.sweep
async def test_no_workflow_waits_for_more_than_fifty_gateways_at_once(server: Engine) -> None:
    """D11; the engine ends what has 2,000 steps or children under way at once."""
    fleet = fleet_of("edge", size=80, switching=80)
    world = World.made(await server.client(), fleet)
    names = tuple(world.gateways)
    async with control_worker(world.client, world):  # and not one agent, so that everything asked waits
        await world.start(names[:1], names[1:])
        looking = asyncio.create_task(ChangeService(world.client, world.book).surveys.of(fleet))
        most = 0

        async def fifty_are_asked() -> bool:
            nonlocal most
            now, asked = await under_way(world.client)
            most = max(most, now)
            return asked >= AT_ONCE

        await until(fifty_are_asked, 18)  # a survey's question is over after 20
        looking.cancel()
    assert most <= AT_ONCE


async def _orders_of(client: Client, batch: str) -> list[BatchOrder]:
    """Return what each run of a batch began with, the first one first."""
    orders: list[BatchOrder] = []
    run: str | None = None
    while run != "":
        order, run = await began_with(client, batch, BatchOrder, run)
        orders.insert(0, order)
    return orders


@pytest.mark.sweep
async def test_a_history_is_cut_while_one_gateway_after_the_other_switches_and_nobody_starts_twice(
    server: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "SHORT_HISTORY", 40)
    monkeypatch.setattr(steps, "LONG_HISTORY", 40)
    fleet = fleet_of("edge", size=3, switching=1, lease=timedelta(seconds=6))
    world = World.made(await server.client(), fleet)
    async with working(world):
        rollout = await world.start(tuple(world.gateways))
        assert (await result_of(rollout)).outcome is Outcome.PROMOTED
        orders = await _orders_of(world.client, f"{rollout.id}/{world.newest}/wave/001/0001")
    assert [order.switched for order in orders[:2]] == [False, False]
    assert [fake.effects.count("start b") for fake in world.gateways.values()] == [1] * 3


@contextmanager
def ledger_away(ledger: Ledger) -> Iterator[None]:
    """Have the database refuse everything for the length of the block."""

    def refuse(*_: object) -> None:
        raise ConnectionError("the ledger is away")

    event.listen(ledger._engine, "before_cursor_execute", refuse)
    try:
        yield
    finally:
        event.remove(ledger._engine, "before_cursor_execute", refuse)


@pytest.mark.sweep
@pytest.mark.parametrize("when", ["all have switched", "some wait for capacity"])
async def test_a_batch_is_cut_while_the_ledger_is_away_and_writes_all_that_it_missed(
    server: Engine, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Its history grew to the engine's limit within hours, and a good release went back."""
    monkeypatch.setattr(steps, "SHORT_HISTORY", 40)
    monkeypatch.setattr(steps, "LONG_HISTORY", 60)
    fleet = fleet_of("edge", size=6, switching=1, lease=timedelta(seconds=6))
    world = World.made(await server.client(), fleet)
    world.judge.says(UNDECIDED)
    waits = when == "some wait for capacity"
    async with working(world):
        rollout = await world.start(tuple(world.gateways))
        some = ["gw-1"] if waits else [*world.gateways]
        await until(lambda: all(world.serving()[name] == "1.3.0" for name in some))
        batch = f"{rollout.id}/{world.newest}/wave/001/0001"
        if waits:
            await say(rollout, CommandKind.HOLD)
            await asyncio.sleep(3)  # whoever was being started is on trial
            assert world.serving()["gw-6"] == "1.1.6"
        with ledger_away(world.book):
            if waits:
                await say(rollout, CommandKind.RESUME)
            orders = await _orders_of(world.client, batch)
            begun = len(orders)

            async def is_cut_often() -> bool:
                return len(await _orders_of(world.client, batch)) > begun + 2

            await until(is_cut_often, 150)
            assert all(world.serving()[name] == "1.3.0" for name in some)
        world.judge.says(HEALTHY)
        assert (await result_of(rollout)).outcome is Outcome.PROMOTED
        orders = await _orders_of(world.client, batch)
    assert not any(order.lapsed for order in orders)
    rows = world.book.gateways_of(world.newest)
    assert {row.gateway: row.state for row in rows} == dict.fromkeys(world.gateways, KEPT)


@pytest.mark.sweep
async def test_a_change_asks_a_ledger_that_is_away_less_and_less_often_and_tells_it_all_at_last(
    server: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(steps.NOTE, "retry_policy", RetryPolicy(maximum_attempts=1))
    world = World.made(await server.client(), fleet_of("edge"))
    world.judge.says(UNDECIDED)
    async with working(world):
        rollout = await world.start(("gw-1",), ("gw-2",))
        await in_phase(rollout, Phase.OBSERVING)
        with ledger_away(world.book):
            await say(rollout, CommandKind.HOLD, reason="users call")
            await asyncio.sleep(15)
            tried = len(await steps_of(world.client, rollout.id, "record_story"))
            await asyncio.sleep(15)
            assert len(await steps_of(world.client, rollout.id, "record_story")) - tried <= 1
        await say(rollout, CommandKind.RESUME)
        world.judge.says(HEALTHY)
        assert (await result_of(rollout)).outcome is Outcome.PROMOTED
    told = [one.sentence for one in world.book.events_of_change(world.newest)]
    assert any("users call" in sentence for sentence in told)


@pytest.mark.sweep
async def test_a_way_back_whose_history_is_cut_goes_on_while_the_ledger_is_away(
    server: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "SHORT_HISTORY", 1)
    monkeypatch.setitem(steps.GO_BACK, "schedule_to_close_timeout", timedelta(seconds=2))
    world = World.made(await server.client(), fleet_of("edge", size=2))
    async with working(world):
        await world.upgrade(tuple(world.gateways))
        world.gateways["gw-1"].fail("restore", Unavailable("no route to host"), times=10_000)
        restore = await world.restore("gw-1")
        newest = world.client.get_workflow_handle(restore.id)

        async def is_cut() -> None:
            run = (await newest.describe()).run_id

            async def is_another() -> bool:
                return (await newest.describe()).run_id != run

            await until(is_another, 120)

        await is_cut()  # it has read its part of the plan
        with ledger_away(world.book):
            for _ in range(2):  # the second run begins without the ledger for certain
                await is_cut()
            world.gateways["gw-1"].recover("restore")
            await until(lambda: world.serving()["gw-1"] == "1.1.6", 90)
        assert (await result_of(restore)).back == 1


@pytest.mark.sweep
async def test_what_a_batch_did_until_all_had_switched_is_cut_off_before_its_first_renewal(
    server: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "SWITCHED_HISTORY", 20)
    world = World.made(await server.client(), fleet_of("edge", size=3, lease=timedelta(minutes=10)))
    async with working(world):
        result = await result_of(await world.start(tuple(world.gateways)))
        assert result.outcome is Outcome.PROMOTED
        orders = await _orders_of(world.client, f"change/edge/{world.newest}/wave/001/0001")
    assert [(order.switched, len(order.on_trial)) for order in orders] == [(False, 0), (True, 3)]
    assert [fake.effects.count("start b") for fake in world.gateways.values()] == [1] * 3


@pytest.mark.sweep
async def test_no_workflow_waits_for_more_than_fifty_gateways_that_drain(server: Engine) -> None:
    """D11; all users stay after the promotion, and every gateway's old instance is waited for."""
    fleet = fleet_of("edge", size=81, lease=timedelta(minutes=2), switching=150)
    world = World.made(await server.client(), fleet)
    names = tuple(world.gateways)
    for fake in world.gateways.values():
        fake.login("192.0.2.1")
    async with working(world):
        result = await result_of(await world.start(names[:1], names[1:]))
        assert result.outcome is Outcome.PROMOTED
        most = 0

        async def a_whole_part_is_waited_for() -> bool:
            nonlocal most
            now, _ = await under_way(world.client)
            most = max(most, now)
            return most >= len(names) // 3

        await until(a_whole_part_is_waited_for, PATIENCE)
    assert most <= AT_ONCE


@pytest.mark.sweep
async def test_the_drains_of_a_promotion_do_not_end_their_last_sessions_at_the_same_time(
    server: Engine,
) -> None:
    """D15; everybody who is ended logs in again, so deadlines that coincide are a storm of logins."""
    async with recording(server, drain={"logins_per_minute": 30}) as recorded:
        world = recorded.world
        for fake in world.gateways.values():
            fake.login("192.0.2.1")
        await recorded.upgrade()

        async def deadlines() -> list[datetime]:
            drains = await recorded.drains.drains(world.fleet)
            return sorted(slot.deadline for drain in drains for slot in drain.slots)

        async def all_drain() -> bool:
            return len(await deadlines()) == len(world.gateways)

        await until(all_drain, SOON)
        apart = [later - earlier for earlier, later in pairwise(await deadlines())]
        assert min(apart) >= world.fleet.limits.drain.pause
