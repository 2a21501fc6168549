"""Record the histories that tests/replay holds the workflows to: `python -m tests.replay.record`.

Runs every main case on a real server with fake gateways and rewrites histories/ and commands.json.
"""

import asyncio
import json
import shutil
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio.client import Client

from orchestrator.processes.leaving import leave
from policies.model.change import ChangeKind, ChangeOrder, Phase
from policies.model.command import CommandKind, CommandReceipt
from policies.model.drain import DrainEnding, DrainLimits, Step
from policies.model.errors import Refused
from policies.model.fleet import GatewayRef
from policies.model.spare import SpareDrills
from policies.model.way_back import Confirmation
from policies.rollback import confirmation_of
from tests.fakes.control import AT_CAP, BLIND, CLOSED, FROZEN, HEALTHY, OPEN, UNDECIDED, UNHEALTHY
from tests.fakes.gateway import FakeSlot
from tests.patience import until
from tests.replay.commands import commands_now
from tests.workflows.engine import engine
from tests.workflows.world import NEW, OLD, World, fleet_of, in_phase, reconcile, result_of, say, working
from workflows.adopt import Examine, ExamineOrder
from workflows.drain import Drain
from workflows.path import PathOrder, WalkPath
from workflows.spare_drill import SpareDrill, SpareDrillOrder
from workflows.steps import CONTROL_QUEUE

HISTORIES = Path(__file__).parent / "histories"
BASELINE = Path(__file__).parent / "commands.json"

Case = Callable[[World], Awaitable[None]]


async def promoted(world: World) -> None:
    """Two waves pass, one after metrics were gone for a while."""
    world.judge.says(BLIND, UNDECIDED, HEALTHY)
    await world.upgrade(("gw-1",), ("gw-2", "gw-3"))


async def rolled_back(world: World) -> None:
    """The second wave is unhealthy, and one gateway takes a second round to come back."""
    world.judge.says(UNHEALTHY, wave=2)
    world.gateways["gw-2"].fail("restore", Refused("gw-2: nft says no"))
    await world.upgrade(("gw-1",), ("gw-2",))


async def refused(world: World) -> None:
    """The release is not admitted."""
    world.admission.refused[NEW.digest] = "only one of two people signed it"
    await world.upgrade()


async def commanded(world: World) -> None:
    """People hold, resume, and go back."""
    world.judge.says(UNDECIDED)
    rollout = await world.start(("gw-1",), ("gw-2",))
    await in_phase(rollout, Phase.OBSERVING)
    for kind in (CommandKind.HOLD, CommandKind.RESUME, CommandKind.ROLL_BACK):
        await say(rollout, kind)
    await result_of(rollout)


async def by_people(world: World) -> None:
    """Two people pass a wave at its cap."""
    world.judge.says(AT_CAP)
    rollout = await world.start(("gw-1",))
    await in_phase(rollout, Phase.HELD)
    await say(rollout, CommandKind.PROMOTE, "ana")
    await say(rollout, CommandKind.PROMOTE, "ben")
    await result_of(rollout)


async def wave_lost(world: World) -> None:
    """The wave is terminated; the change goes back."""
    world.judge.says(UNDECIDED)
    rollout = await world.start(("gw-1",))
    await in_phase(rollout, Phase.OBSERVING)
    await world.client.get_workflow_handle(f"{rollout.id}/{world.newest}/wave/001").terminate()
    await result_of(rollout)


async def one_aside(world: World) -> None:
    """One gateway of the second wave fails by itself and goes back alone."""
    world.gateways["gw-3"].fail("start", Refused("gw-3: the disk is full"))
    await world.upgrade(("gw-1",), ("gw-2", "gw-3", "gw-4"))


async def left_alone(world: World) -> None:
    """Reconcile finds a stray and a change without an end."""
    world.gateways["gw-1"].serve(NEW, "b")
    world.left_open()
    await reconcile(world)
    await until(lambda: not world.book.open_changes("edge"))


async def installed(world: World) -> None:
    """An empty fleet gets its first release."""
    for fake in world.gateways.values():
        fake.crash("a")
        fake.serving = None
    order = ChangeOrder(
        fleet="edge",
        kind=ChangeKind.INSTALL,
        plan=world.book.record_first(world.fleet, OLD),
        source="http://repository",
        reason="first installation",
    )
    await result_of(await world.run(order))


async def adopted(world: World) -> None:
    """Gateways that serve by themselves are examined, and become part of the fleet as they run."""
    for fake in world.gateways.values():
        fake.unprepared, fake.serving = fake.slots["a"], None
        fake.slots["a"] = FakeSlot()
    asked = tuple(GatewayRef.model_validate(_reference(one)) for one in world.fleet.gateways)
    await world.client.execute_workflow(
        Examine.run, ExamineOrder(gateways=asked), id="examine/edge", task_queue=CONTROL_QUEUE
    )
    order = ChangeOrder(
        fleet="edge",
        kind=ChangeKind.ADOPT,
        plan=world.book.record_adoption(world.fleet, tuple(world.gateways)),
        reason="adoption",
    )
    await result_of(await world.run(order))


async def walked(world: World) -> None:
    """The way through one gateway is walked; nothing is changed."""
    reference = GatewayRef.model_validate(_reference(world.fleet.gateways[0]))
    order = PathOrder(gateway=reference)
    await world.client.execute_workflow(WalkPath.run, order, id="path/edge/gw-1", task_queue=CONTROL_QUEUE)


async def reloaded(world: World) -> None:
    """Every gateway but one, which is silent, gives what runs its host's present credentials."""
    world.gateways["gw-4"].fail("observe", Refused("gw-4 does not say"))
    order = ChangeOrder(
        fleet="edge",
        kind=ChangeKind.RELOAD,
        plan=world.book.record_reload(world.fleet, tuple(world.gateways)),
        reason="a user has left",
    )
    await result_of(await world.run(order))


def _reference(gateway: GatewayRef) -> dict[str, object]:
    return {field: getattr(gateway, field) for field in GatewayRef.model_fields}


async def drained(world: World) -> None:
    """A deadline is announced, held for a person, and what is left is ended in batches."""
    fake = world.gateways["gw-1"]
    for person in range(3):
        fake.login(f"192.0.2.{person}")
    fake.serve(NEW, "b")
    limits = DrainLimits(batch=2, pause=timedelta(milliseconds=100), forced=10)
    order = world.drain_order("gw-1", deadline=timedelta(seconds=1), limits=limits, went_back=True)
    drain = await world.client.start_workflow(
        Drain.run, order, id="drain/edge/edge-1/back", task_queue=CONTROL_QUEUE
    )

    async def is_held() -> bool:
        return any(slot.step is Step.HOLD for slot in (await drain.query(Drain.status)).slots)

    await until(is_held)
    ending = DrainEnding(id="1", person="ana", reason="a hole")
    await drain.execute_update("end", ending, result_type=CommandReceipt)
    await drain.result()


async def confirmed(world: World) -> None:
    """A rollback to another release waits for a second person, who approves it."""
    for fake in world.gateways.values():
        fake.serve(NEW, "b")
    targets, known_good = dict.fromkeys(world.gateways, NEW), dict.fromkeys(world.gateways, OLD)
    reason = confirmation_of(world.fleet, targets, known_good, {})
    assert reason is not None
    plan = world.book.record_return(world.fleet, targets, named=NEW)
    back = world.book.record_return(world.fleet, known_good)
    order = ChangeOrder(
        fleet="edge",
        kind=ChangeKind.GO_BACK,
        plan=plan,
        reason="ana: users call",
        requested_by="ana",
        confirm=Confirmation(
            reason=reason,
            within=timedelta(minutes=15),
            change=plan,
            known_good=back,
            by_itself=back,
        ),
    )
    waiting = await world.run(order)
    await in_phase(waiting, Phase.HELD, wave=0)
    await say(waiting, CommandKind.APPROVE, "bo", approves=plan)
    await result_of(waiting)


async def rehearsed(world: World) -> None:
    """A drill on a spare gateway, which is logged in to and read back."""
    world.fleet = world.folder.known["edge"] = world.fleet.model_copy(
        update={"drills": SpareDrills(spare=("gw-2",))}
    )
    world.opening.is_open = True
    await world.client.execute_workflow(
        SpareDrill.run,
        SpareDrillOrder(fleet=world.fleet.name),
        id=f"drill/{world.fleet.name}",
        task_queue=CONTROL_QUEUE,
    )


async def windowed(world: World) -> None:
    """Waves wait for their window, are held by a freeze, and go on."""
    world.windows.answer = CLOSED
    world.judge.says(UNDECIDED)
    order = world.order(("gw-1",), ("gw-2",))
    rollout = await world.run(order.model_copy(update={"asks_window": True}))
    await until(lambda: len(world.windows.asked) > 1)
    world.windows.answer = OPEN
    await in_phase(rollout, Phase.OBSERVING)
    world.windows.answer = FROZEN
    await in_phase(rollout, Phase.HELD)
    world.windows.answer = OPEN
    world.judge.says(HEALTHY)
    await result_of(rollout)


CASES: tuple[Case, ...] = (
    promoted,
    rolled_back,
    refused,
    commanded,
    by_people,
    wave_lost,
    one_aside,
    left_alone,
    installed,
    adopted,
    walked,
    reloaded,
    drained,
    confirmed,
    rehearsed,
    windowed,
)


async def record() -> None:
    """Run every case in a namespace of its own and write down all its closed workflows."""
    shutil.rmtree(HISTORIES, ignore_errors=True)
    HISTORIES.mkdir()
    BASELINE.write_text(json.dumps(commands_now(), indent=1) + "\n")
    with engine() as server:
        for case in CASES:
            world = World.made(
                await server.client(), fleet_of("edge", lease=timedelta(seconds=6), kept=timedelta(seconds=5))
            )
            world.judge.pace = 0.2
            async with working(world):
                await case(world)
                await until(lambda client=world.client: _all_closed(client), 30)  # type: ignore[misc]
                await _write(world.client, getattr(case, "__name__", "case"))


async def _all_closed(client: Client) -> bool:
    return (await client.count_workflows("ExecutionStatus = 'Running'")).count == 0


async def _write(client: Client, case: str) -> None:
    seen: dict[str, int] = {}
    async for found in client.list_workflows():
        history = await client.get_workflow_handle(found.id, run_id=found.run_id).fetch_history()
        number = seen[found.workflow_type] = seen.get(found.workflow_type, 0) + 1
        if number > 1:
            continue
        said = {"workflow": found.workflow_type, "id": found.id, "history": _scrubbed(history.to_json_dict())}
        path = HISTORIES / f"{case}.{found.workflow_type}.json"
        path.write_text(json.dumps(said, indent=None, sort_keys=True) + "\n")
        print(f"{path.name}: {len(history.events)} events")


def _scrubbed(part: Any) -> Any:
    """Leave out where the code lay that raised an error."""
    if isinstance(part, dict):
        return {key: _scrubbed(value) for key, value in part.items() if key != "stackTrace"}
    return [_scrubbed(value) for value in part] if isinstance(part, list) else part


if __name__ == "__main__":
    asyncio.run(record())
    leave(0)
