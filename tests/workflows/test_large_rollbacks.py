"""Rollbacks at size: what one change writes does not grow with its fleet, and nothing ends it midway."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from temporalio.client import WorkflowExecutionStatus, WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from orchestrator.service.changes import ChangeService
from policies.model.change import KnownGoodBatch, Outcome, Phase
from policies.model.command import Command, CommandKind
from policies.model.errors import Unavailable
from policies.model.plan_part import MOST_MEMBERS, PartKey
from policies.model.report import RestoreReport
from policies.model.status import ChangeStatus
from policies.status.told import SHOWN, Told
from tests.fakes.control import HEALTHY, UNDECIDED
from tests.patience import until
from tests.workflows.ending import ending
from tests.workflows.engine import Engine
from tests.workflows.recorded import Recorded
from tests.workflows.world import (
    NEW,
    OLD,
    World,
    control_worker,
    fleet_of,
    in_phase,
    is_heard,
    result_of,
    say,
    status_of,
    working,
)
from workflows import steps
from workflows.change import Change, ChangeRun, Continued
from workflows.steps import CONTROL_QUEUE

PARTS = 200
"""Parts of a fleet of ten thousand gateways."""

LARGEST_EVENT = 256 * 1024
"""Bytes of what one event of a change may carry."""


async def begins(handle: WorkflowHandle[Any, Any]) -> bool:
    try:
        await handle.describe()
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
        return False
    return True


@pytest.mark.sweep
async def test_a_promotion_of_ten_thousand_gateways_is_taken_back_although_a_site_was_left_out(
    server: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nobody answers the look before the promotion here, which waits for 20 s for each of 200 parts.
    monkeypatch.setattr(steps, "SURVEY", steps.SURVEY | {"schedule_to_close_timeout": timedelta(seconds=1)})
    fleet = fleet_of("edge", size=PARTS)
    world = World.made(await server.client(), fleet)
    order = world.order(*[(f"gw-{number}",) for number in range(1, PARTS + 1)])
    assert order.plan is not None
    name = world.opened(order)
    record = world.book.record_known_good_batch

    def slowly(batch: KnownGoodBatch) -> int:
        if not batch.back:
            time.sleep(0.3)  # so that the rollback comes amid the promotion
        return record(batch)

    world.book.record_known_good_batch = slowly  # type: ignore[method-assign]
    site = {
        PartKey(wave=part, number=1).path: tuple(f"paris-edge-{part:03}-{one:02}" for one in range(50))
        for part in range(1, 26)
    }
    run = ChangeRun(
        order=order,
        continued=Continued(
            name=name,
            header=world.book.plan_header(order.plan),
            epoch=int(time.time() * 1000),
            passed=PARTS,
            told=Told(name=name, moved=True, begun=PARTS, phase=Phase.PROMOTING),
            receipts={},
            aside_in=site,
        ),
    )

    def good() -> list[str]:
        return [release.version for release in world.book.known_good("edge").values()]

    async with ending(control_worker(world.client, world, failures=())):
        await until(lambda: is_heard(world.client))
        change = await world.client.start_workflow(
            Change.run, run, id="change/edge", task_queue=CONTROL_QUEUE
        )
        await until(lambda: "1.3.0" in good())
        command = Command(id=uuid4().hex, kind=CommandKind.ROLL_BACK, person="ana", reason="users call")
        receipt = await ChangeService(world.client, world.book).command("edge", command)
        assert receipt.accepted
        restore = world.client.get_workflow_handle(f"change/edge/{name}/restore")
        await until(lambda: begins(restore))
        await until(lambda: good() == ["1.1.6"] * PARTS)
        assert (await change.describe()).status is WorkflowExecutionStatus.RUNNING
        sizes = [event.ByteSize() async for event in change.fetch_history_events()]
        assert max(sizes) < LARGEST_EVENT
        assert sum(sizes) < 4 * 1024 * 1024
        await change.terminate("the test is over")


def silent_in(part: int, left: int) -> dict[str, str]:
    """Return so many gateways of a part that are silent, each with a reason of its own."""
    names = [f"paris-edge-rack-{part:03}-host-{one:02}.vpn.example.org" for one in range(MOST_MEMBERS)]
    return {name: f"{name}: no answer in time" for name in names[MOST_MEMBERS - left :]}


def silence(change: str, part: int, number: int, left: int) -> RestoreReport:
    """Return what a part of fifty gateways reports of which that many are silent."""
    return RestoreReport(
        at=datetime.now(UTC),
        number=number,
        part=PartKey(wave=1, number=part),
        change=change,
        reason="ana: users call",
        missing=silent_in(part, left),
    )


@pytest.mark.sweep
async def test_a_rollback_outlives_its_history_while_ten_thousand_silent_gateways_come_back(
    recorded: Recorded,
) -> None:
    world, service = recorded.world, recorded.service
    await recorded.upgrade(("gw-1", "gw-2", "gw-3", "gw-4"))
    world.gateways["gw-1"].fail("restore", Unavailable("no route to host"), times=10_000)
    receipt = await service.roll_back(world.fleet, "ana", "users call")
    assert receipt.accepted
    change = world.client.get_workflow_handle("change/edge")
    await until(lambda: world.serving()["gw-2"] == "1.1.6")
    name, runs = world.newest, set[str]()

    async def look() -> ChangeStatus:
        runs.add((await change.describe()).run_id)
        return await recorded.status()

    for turn, left in enumerate((MOST_MEMBERS, 30, 10)):
        for first in range(2, PARTS + 2, 20):
            some = range(first, first + 20)
            await asyncio.gather(
                *[change.signal("report_restore", silence(name, part, turn + 1, left)) for part in some]
            )
            await look()
        tried = PARTS * left + 1

        async def is_told(tried: int = tried) -> bool:
            return (await look()).not_back == tried

        await until(is_told)
    status = await look()
    assert status.outcome is Outcome.ROLLBACK_INCOMPLETE
    assert len(status.waits_for) == len(status.incomplete) == SHOWN
    assert status.needs_you is not None
    assert status.needs_you.startswith(f"{PARTS * 10 + 1} gateways are not back: gw-1: ")
    assert len(runs) > 1
    events = [
        event
        for run in runs
        async for event in world.client.get_workflow_handle("change/edge", run_id=run).fetch_history_events()
    ]
    entries = [one for one in events if one.HasField("activity_task_scheduled_event_attributes")]
    assert max(one.ByteSize() for one in entries) < LARGEST_EVENT / 4
    assert max(one.ByteSize() for one in events) < LARGEST_EVENT
    for part in range(2, PARTS + 2):
        await change.signal("report_restore", silence(name, part, 9, 0))
    world.gateways["gw-1"].recover("restore")
    await recorded.everybody_on(OLD)
    ended = await recorded.status()
    assert (ended.outcome, ended.not_back) == (Outcome.ROLLED_BACK, 0)


@pytest.mark.sweep
async def test_a_restore_begun_anew_after_its_end_by_hand_leaves_out_ten_thousand_given_up_gateways(
    server: Engine,
) -> None:
    world = World.made(await server.client(), fleet_of("edge", size=4))
    for name in ("gw-1", "gw-3"):
        world.gateways[name].fail("restore", Unavailable(f"{name} does not answer"), times=10_000)
    async with working(world):
        world.judge.says(UNDECIDED)
        rollout = await world.start(("gw-1", "gw-2"), ("gw-3", "gw-4"))
        await in_phase(rollout, Phase.OBSERVING)
        world.judge.says(HEALTHY, UNDECIDED)
        await until(lambda: world.serving()["gw-4"] == "1.3.0")
        await say(rollout, CommandKind.ROLL_BACK, "ana", reason="users call")

        async def waits_for(*names: str) -> None:
            async def is_so() -> bool:
                return {*(await status_of(rollout)).waits_for} == {*names}

            await until(is_so)

        await waits_for("gw-1", "gw-3")
        given_up = [
            silence(world.newest, part, 1, 0).model_copy(
                update={"given_up": dict.fromkeys(silent_in(part, MOST_MEMBERS), "given up by ana: no power")}
            )
            for part in range(2, PARTS + 2)
        ]
        for first in range(0, PARTS, 20):
            some = given_up[first : first + 20]
            await asyncio.gather(*[rollout.signal("report_restore", one) for one in some])
        await say(rollout, CommandKind.QUARANTINE, "ana", reason="it burns", gateways=("gw-1",))
        await waits_for("gw-3")
        root = world.client.get_workflow_handle(f"{rollout.id}/{world.newest}/restore")
        run, asked = (await root.describe()).run_id, len(world.gateways["gw-1"].effects)
        await root.terminate("the engine lost it")

        async def is_begun_anew() -> bool:
            return (await root.describe()).run_id != run

        await until(is_begun_anew)
        world.gateways["gw-3"].recover("restore")
        result = await result_of(rollout)
        sizes = [event.ByteSize() async for event in root.fetch_history_events()]
    assert max(sizes) < LARGEST_EVENT
    assert (result.outcome, result.incomplete) == (
        Outcome.ROLLBACK_INCOMPLETE,
        {"gw-1": "given up by ana: it burns"},
    )
    assert len(world.gateways["gw-1"].effects) == asked


@pytest.mark.sweep
async def test_parts_of_a_large_rollback_report_at_a_pace_and_at_once_what_a_person_orders(
    server: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workflows.change.PARTS_AT_ONCE", 1)
    monkeypatch.setattr("workflows.restore.A_PART", timedelta(minutes=5))
    # A first round that takes longer is shown before its end, and a cut reports all: neither is the pace.
    monkeypatch.setattr("workflows.restore.SHOWN_AFTER", timedelta(hours=1))
    monkeypatch.setattr(steps, "history_is_long", lambda: False)
    world = World.made(await server.client(), fleet_of("edge", size=MOST_MEMBERS + 10))
    for fake in world.gateways.values():
        fake.serve(NEW, "b")
    world.look()
    plan = world.book.record_return(world.fleet, dict.fromkeys(world.gateways, OLD))
    members = world.book.plan_part(plan, PartKey(wave=0, number=1)).members
    silent = [member.gateway.name for member in members][:8]  # of one part, which goes on
    for name in silent:
        world.gateways[name].fail("restore", Unavailable("no route to host"), times=10_000)

    async def named() -> set[str]:
        return {*(await status_of(rollout)).waits_for} & {*silent}

    async def waits_for(names: list[str]) -> None:
        async def is_so() -> bool:
            return await named() == {*names}

        await until(is_so)

    async with working(world):
        rollout = await world.go_back()
        await waits_for(silent)
        for name in silent[:4]:
            world.gateways[name].recover("restore")
        await until(lambda: {world.serving()[name] for name in silent[:4]} == {"1.1.6"})
        assert await named() == {*silent}  # its part reports that later
        await say(rollout, CommandKind.QUARANTINE, gateways=(silent[-1],))
        await waits_for(silent[4:-1])
        for name in silent:
            world.gateways[name].recover("restore")
        result = await result_of(rollout)
    assert (result.outcome, list(result.incomplete)) == (Outcome.ROLLBACK_INCOMPLETE, [silent[-1]])
    assert (result.touched, result.more_incomplete) == (MOST_MEMBERS + 9, 0)
