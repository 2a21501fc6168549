"""Agents that answer nonsense: whatever one of them says, the others are upgraded, watched and taken back."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio import activity
from temporalio.api.common.v1 import Payload
from temporalio.client import Client, WorkflowFailureError
from temporalio.common import RawValue
from temporalio.worker import Worker

from activities.drivers.private_files import write_private
from activities.drivers.runtime.host.bounds import HostBounds
from activities.sessions import Drained
from activities.snapshots import Evidence, Piece
from orchestrator.engine.sealing import data_converter
from policies.model.change import Outcome, Phase
from policies.model.command import CommandKind
from policies.model.drain import Look
from policies.model.host_limits import CLOCK_DIFFERENCE
from policies.model.instance import InstanceState
from policies.model.operation import LAST_EPOCH, Operation
from policies.model.value import digest_of
from tests.fakes.control import UNDECIDED
from tests.fakes.gateway import FakeGateway
from tests.patience import until
from tests.workflows.engine import Engine
from tests.workflows.world import (
    NEW,
    OLD,
    World,
    agent_worker,
    fleet_of,
    in_phase,
    reconcile,
    result_of,
    say,
    status_of,
    steps_of,
    steps_on,
    working,
)
from workflows import steps
from workflows.drain import Drain
from workflows.failures import sentence_of
from workflows.reconcile import ReconcileResult
from workflows.snapshot import Snapshot, SnapshotGatewayOrder
from workflows.steps import CONTROL_QUEUE
from workflows.survey import COLLECTING

NONSENSE = {"state": 1}
BYTES, NOTHING = b"x", RawValue(Payload(metadata={"encoding": b"binary/null"}))
"""Answers whose converters ignore the type that is asked for."""

NEARLY_ALL_THAT_THE_ENGINE_TAKES = 2 * 1024 * 1024 - 4096


@asynccontextmanager
async def fleet_with(
    server: Engine, name: str, answers: dict[str, Any], **limits: Any
) -> AsyncIterator[World]:
    """Run a fleet of four, one of which answers some steps as it likes."""
    async with fleet_of_liars(server, {name: answers}, **limits) as world:
        yield world


@asynccontextmanager
async def fleet_of_liars(
    server: Engine, lies: dict[str, dict[str, Any]], **limits: Any
) -> AsyncIterator[World]:
    """Run a fleet of four, some of which answer some steps as they like; None answers nothing at all."""

    def agent(client: Client, fake: FakeGateway) -> Worker:
        answers = lies.get(fake.gateway.name, {})

        @activity.defn(dynamic=True)
        async def lie(_: Sequence[RawValue]) -> Any:
            answer = answers[activity.info().activity_type]
            return answer if answer is not None else await asyncio.Event().wait()

        truth = [step for step in steps_on(fake) if step.__name__ not in answers]
        return agent_worker(client, fake, [lie, *truth] if answers else None)

    world = World.made(await server.client(), fleet_of("edge", lease=timedelta(seconds=15), **limits))
    world.judge.pace = 0.3
    async with working(world, failures=(), agent=agent):
        yield world


def state_of(name: str) -> dict[str, Any]:
    """Return what that gateway says of itself when nothing was done to it."""
    fake = FakeGateway(fleet_of("edge").gateway(name))
    fake.serve(OLD)
    return fake._state(changed=False).model_dump(mode="json")


@pytest.mark.parametrize(
    ("ours", "theirs", "why"),
    [
        (
            "now",
            None,
            "not sealed, and only sealed ones are opened here: name payload_keys in its agent's file",
        ),
        ("now", "before", "a key that is not in the payload key file: name payload_keys in its agent's file"),
        (None, "before", "no payload keys here: set PENSTOCK_PAYLOAD_KEYS, or take payload_keys out of its"),
    ],
)
async def test_an_agent_that_seals_otherwise_than_its_orchestrator_is_silent_with_what_mends_it(
    server: Engine, tmp_path: Path, ours: str | None, theirs: str | None, why: str
) -> None:
    """Sealing is switched on, off or to other keys, and the hosts know nothing of it yet."""
    plain = await server.client()

    async def sealed(name: str | None, queue: str | None = None) -> Client:
        path = tmp_path / f"{name}{queue is None}" if name is not None else None
        if path is not None:
            key = f"{name}:{secrets.token_hex(32)}\n".encode()
            write_private(path, key)
        converter = data_converter(path, queue)
        return await Client.connect(server.address, namespace=plain.namespace, data_converter=converter)

    queue = fleet_of("edge", size=1).gateways[0].task_queue
    agents = await sealed(theirs, queue)
    world = World.made(await sealed(ours), fleet_of("edge", size=1))
    async with working(world, agent=lambda _, fake: agent_worker(agents, fake)):
        await reconcile(world)
        _, silent = world.book.states("edge", timedelta(minutes=1))
    assert why in silent["gw-1"]


@pytest.mark.sweep
@pytest.mark.parametrize("answer", [NONSENSE, BYTES], ids=["no model", "bytes"])
@pytest.mark.parametrize("step", ["stage_release", "start_instance", "probe_instance"])
async def test_a_gateway_whose_answers_cannot_be_read_fails_alone(
    server: Engine, step: str, answer: Any
) -> None:
    async with fleet_with(server, "gw-3", {step: answer}) as world:
        result = await world.upgrade(("gw-1",), ("gw-2", "gw-3", "gw-4"))
        assert result.outcome is Outcome.PROMOTED
        assert result.aside == {"gw-3": f"its agent's answer cannot be read ({step.replace('_', ' ')})"}
        serving = world.serving()
    assert {serving[name] for name in ("gw-1", "gw-2", "gw-4")} == {"1.3.0"}


@pytest.mark.parametrize("answer", [NONSENSE, BYTES], ids=["no model", "bytes"])
async def test_a_gateway_whose_state_cannot_be_read_is_named_before_anything_begins(
    server: Engine, answer: Any
) -> None:
    async with fleet_with(server, "gw-3", {"observe_gateway": answer}) as world:
        result = await world.upgrade(("gw-1",), ("gw-2", "gw-3", "gw-4"))
        assert result.outcome is Outcome.REFUSED
        assert result.reason == "Stopped: gw-3: its agent's answer cannot be read (observe gateway)"
        assert world.effects() == {name: [] for name in world.gateways}


async def test_a_gateway_that_speaks_for_another_is_not_heard(server: Engine) -> None:
    state = state_of("gw-4")
    async with fleet_with(server, "gw-3", {"observe_gateway": state}) as world:
        found = await reconcile(world)
        assert found.strays == {}
        _, silent = world.book.states("edge", timedelta(minutes=1))
    assert silent == {"gw-3": "its agent answers as gw-4"}


async def test_a_gateway_that_answers_bytes_is_silent_and_the_others_are_known(server: Engine) -> None:
    async with fleet_with(server, "gw-3", {"observe_gateway": BYTES}) as world:
        await reconcile(world)
        states, silent = world.book.states("edge", timedelta(minutes=1))
    assert sorted(states) == ["gw-1", "gw-2", "gw-4"]
    assert silent == {"gw-3": "its agent's answer cannot be read (observe gateway)"}


async def looked_at(world: World) -> ReconcileResult:
    """Reconcile while gw-1 runs what it should not, and everybody else what they should."""
    world.gateways["gw-1"].serve(NEW, "b")
    async with asyncio.timeout(45):
        return await reconcile(world)


@pytest.mark.sweep
async def test_what_is_longer_than_any_answer_stops_nobody_elses_look(server: Engine) -> None:
    long = "a" * NEARLY_ALL_THAT_THE_ENGINE_TAKES
    lies = {
        "gw-2": {
            "observe_gateway": state_of("gw-2") | {"recorded": 5},
            "read_host_record": {"public_key": "AA==", "lines": [long]},
        },
        "gw-3": {
            "observe_gateway": state_of("gw-3") | {"recorded": 5},
            "read_host_record": {"public_key": "AA==", "lines": [long]},
        },
        "gw-4": {"observe_gateway": state_of("gw-4") | {"surplus": long}},
    }
    async with fleet_of_liars(server, lies) as world:
        found = await looked_at(world)
        _, silent = world.book.states("edge", timedelta(minutes=1))
    assert found.strays.keys() == {"gw-1"}
    assert silent == {"gw-4": "its agent's answer is longer than any (observe gateway)"}


@pytest.mark.sweep
async def test_a_host_that_never_shows_its_record_keeps_nobodys_look_waiting(server: Engine) -> None:
    lies = {"gw-2": {"observe_gateway": state_of("gw-2") | {"recorded": 5}, "read_host_record": None}}
    async with fleet_of_liars(server, lies) as world:
        started = asyncio.get_running_loop().time()
        found = await looked_at(world)
        took = asyncio.get_running_loop().time() - started
    assert found.strays.keys() == {"gw-1"}
    assert took < 2 * COLLECTING.total_seconds() + 10, "reconcile looks twice at a fleet that has strays"


@pytest.mark.sweep
async def test_no_counts_that_a_host_tells_are_larger_than_others_can_read(server: Engine) -> None:
    state = state_of("gw-3")
    state["instances"][0]["sessions"] = 10**400
    async with fleet_with(server, "gw-3", {"observe_gateway": state}) as world:
        found = await looked_at(world)
        _, silent = world.book.states("edge", timedelta(minutes=1))
    assert found.strays.keys() == {"gw-1"}
    assert silent == {"gw-3": "its agent's answer cannot be read (observe gateway)"}


@pytest.mark.sweep
@pytest.mark.parametrize("answer", [NONSENSE, BYTES, NOTHING], ids=["no model", "bytes", "nothing"])
async def test_the_way_back_reaches_all_but_the_gateway_whose_answers_cannot_be_read(
    server: Engine, answer: Any
) -> None:
    async with fleet_with(server, "gw-3", {"restore_gateway": answer}) as world:
        for fake in world.gateways.values():
            fake.serve(NEW, "b")
        world.look()
        back = await world.go_back()
        await until(lambda: all(world.gateways[name].serving == "a" for name in ("gw-1", "gw-2", "gw-4")))

        async def is_named() -> bool:
            why = "gw-3: its agent's answer cannot be read (restore gateway)"
            return (await status_of(back)).incomplete == (why,)

        await until(is_named)
        await say(back, CommandKind.QUARANTINE, gateways=("gw-3",))
        result = await result_of(back)
    assert result.incomplete.keys() == {"gw-3"}


def epoch_ahead(time: timedelta) -> int:
    """Return the epoch of the moment that is so far ahead."""
    return int((datetime.now(UTC) + time).timestamp() * 1000)


def bound_hosts(world: World, behind: timedelta = timedelta(0)) -> None:
    """Give every host its own limits, and a clock that is so far behind the engine's."""
    for name, fake in world.gateways.items():
        fake.bounds = HostBounds(name, clock=lambda: datetime.now(UTC) - behind)


@pytest.mark.sweep
@pytest.mark.parametrize("ahead", [CLOCK_DIFFERENCE, None], ids=["some minutes", "for ever"])
async def test_a_gateway_that_has_seen_an_epoch_which_others_would_refuse_is_named(
    server: Engine, ahead: timedelta | None
) -> None:
    epoch = LAST_EPOCH - 1 if ahead is None else epoch_ahead(ahead)
    lie = {"observe_gateway": state_of("gw-3") | {"epoch": epoch}}
    async with fleet_with(server, "gw-3", lie) as world:
        result = await world.upgrade(("gw-1",), ("gw-2", "gw-3", "gw-4"))
        assert result.outcome is Outcome.REFUSED
        assert result.reason.startswith("Stopped: gw-3: its host has seen an epoch that is ")


@pytest.mark.sweep
async def test_an_epoch_that_others_would_refuse_never_becomes_theirs(server: Engine) -> None:
    lie = {"observe_gateway": state_of("gw-3") | {"epoch": epoch_ahead(timedelta(hours=1))}}
    async with fleet_with(server, "gw-3", lie, failures="50%") as world:
        bound_hosts(world)
        result = await world.upgrade(("gw-1",), ("gw-2", "gw-3", "gw-4"))
        assert result.outcome is Outcome.PROMOTED
        assert set(result.aside) == {"gw-3"}
        assert result.aside["gw-3"].startswith("its host has seen an epoch that is ")
        assert max(fake.owner[0] for fake in world.gateways.values()) <= epoch_ahead(timedelta(0))


@pytest.mark.sweep
async def test_an_epoch_that_becomes_that_of_all_is_taken_by_hosts_whose_clock_is_behind(
    server: Engine,
) -> None:
    lie = {"observe_gateway": state_of("gw-3") | {"epoch": epoch_ahead(CLOCK_DIFFERENCE * 0.48)}}
    async with fleet_with(server, "gw-3", lie) as world:
        bound_hosts(world, CLOCK_DIFFERENCE * 0.48)
        result = await world.upgrade(("gw-1",), ("gw-2", "gw-3", "gw-4"))
        assert (result.outcome, result.aside) == (Outcome.PROMOTED, {})


@pytest.mark.sweep
@pytest.mark.parametrize("lock", [True, False], ids=["of a change", "of one gateway"])
async def test_a_way_back_whose_epoch_is_beyond_the_hosts_limits_reaches_them_in_its_first_round(
    server: Engine, lock: bool
) -> None:
    async with fleet_with(server, "gw-3", {}) as world:
        for fake in world.gateways.values():
            fake.serve(NEW, "b")
        bound_hosts(world)
        going_back = await world.restore(epoch=epoch_ahead(timedelta(hours=1)), lock=lock)
        result = await result_of(going_back)
        assert (result.back, result.given_up) == (4, {})
        assert set(world.serving().values()) == {"1.1.6"}
        assert len(await steps_of(world.client, going_back.id, "restore_gateway")) == 2 * 4


def uncountable_state_of(name: str) -> dict[str, Any]:
    """Return what that gateway says of itself when it claims more sessions than a number can mean."""
    state = state_of(name)
    for instance in state["instances"]:
        instance["sessions"] = 10**400
    return state


@pytest.mark.sweep
async def test_a_gateway_that_counts_more_sessions_than_there_can_be_keeps_no_other_from_starting(
    server: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "SILENT_FOR", timedelta(seconds=1))
    monkeypatch.setattr(steps, "NEXT_CAPACITY", timedelta(seconds=0.5))
    answers = {"observe_gateway": state_of("gw-3")}
    async with fleet_with(server, "gw-3", answers) as world:
        world.judge.says(UNDECIDED)
        running = await world.start(("gw-1",), ("gw-2", "gw-3", "gw-4"))
        await in_phase(running, Phase.OBSERVING)
        answers["observe_gateway"] = uncountable_state_of("gw-3")
        world.judge.script.clear()
        result = await result_of(running)
        assert result.outcome is Outcome.PROMOTED
        assert result.aside == {"gw-3": "its agent's answer cannot be read (observe gateway)"}
        assert {world.serving()[name] for name in ("gw-1", "gw-2", "gw-4")} == {"1.3.0"}


@pytest.mark.sweep
async def test_a_gateway_that_counts_more_sessions_than_there_can_be_keeps_no_other_from_emptying(
    server: Engine,
) -> None:
    look = {"sessions": 10**400, "exempt": 0, "boot": "b", "process": "1.1"}
    async with fleet_with(server, "gw-3", {"drain_instance": {"empty": False, "look": look}}) as world:
        for name in ("gw-1", "gw-2", "gw-3"):
            world.gateways[name].login("192.0.2.1")
            world.gateways[name].serve(NEW, "b")
        order = world.drain_order("gw-1", "gw-2", "gw-3", deadline=timedelta(seconds=2))
        running = await world.client.start_workflow(
            Drain.run, order, id="drain/edge/edge-1/1", task_queue=CONTROL_QUEUE
        )
        for name in ("gw-1", "gw-2"):
            world.gateways[name].logout("192.0.2.1")
        others = [world.gateways[name].slots["a"] for name in ("gw-1", "gw-2")]
        await until(lambda: all(slot.state is InstanceState.STOPPED for slot in others))
        assert world.gateways["gw-3"].slots["a"].state is InstanceState.RUNNING
        await running.terminate()


@pytest.mark.sweep
async def test_a_gateway_with_more_obstacles_than_there_can_be_is_named(server: Engine) -> None:
    async with fleet_with(server, "gw-3", {"preflight_gateway": ["full"] * 10_000}) as world:
        result = await world.upgrade(("gw-1",), ("gw-2", "gw-3", "gw-4"))
        assert result.reason == "Stopped: gw-3: its agent's answer cannot be read (preflight gateway)"


@pytest.mark.sweep
@pytest.mark.parametrize(
    ("piece", "why"),
    [
        ({"digest": digest_of(b"another"), "size": 9, "content": ""}, "piece by piece"),
        ({"digest": digest_of(b"frozen"), "size": 1, "content": "eJwDAAAAAAE="}, "piece by piece"),
        ({"digest": digest_of(b"frozen"), "size": 9, "content": "?"}, "cannot be opened"),
    ],
    ids=["of another snapshot", "empty for ever", "no piece"],
)
async def test_a_snapshot_that_comes_in_senseless_pieces_is_given_up(
    server: Engine, piece: dict[str, Any], why: str
) -> None:
    piece = Piece(**piece, offset=0).model_dump(mode="json")
    answers = {"snapshot_gateway": digest_of(b"frozen"), "read_snapshot": piece}
    operation = Operation(rollout="edge-1", epoch=1, gateway="gw-3", step="freeze", digest=digest_of(b""))
    async with fleet_with(server, "gw-3", answers) as world:
        order = SnapshotGatewayOrder(
            fleet="edge",
            gateway=world.gateways["gw-3"].gateway,
            operation=operation,
            evidence=Evidence(reason="it failed"),
        )
        with pytest.raises(WorkflowFailureError) as given_up:
            await world.client.execute_workflow(
                Snapshot.run, order, id="snapshot/edge", task_queue=CONTROL_QUEUE
            )
    assert given_up.value.cause is not None
    assert why in sentence_of(given_up.value.cause)


@pytest.mark.sweep
async def test_a_snapshot_that_is_called_by_no_digest_is_given_up(server: Engine) -> None:
    operation = Operation(rollout="edge-1", epoch=1, gateway="gw-3", step="freeze", digest=digest_of(b""))
    async with fleet_with(server, "gw-3", {"snapshot_gateway": "the one of yesterday"}) as world:
        order = SnapshotGatewayOrder(
            fleet="edge",
            gateway=world.gateways["gw-3"].gateway,
            operation=operation,
            evidence=Evidence(reason="it failed"),
        )
        with pytest.raises(WorkflowFailureError) as given_up:
            async with asyncio.timeout(30):
                await world.client.execute_workflow(
                    Snapshot.run, order, id="snapshot/edge", task_queue=CONTROL_QUEUE
                )
    assert given_up.value.cause is not None
    assert sentence_of(given_up.value.cause) == "its agent's answer cannot be read (snapshot gateway)"


@pytest.mark.sweep
async def test_an_agent_that_does_not_wait_for_sessions_is_asked_no_oftener_than_one_that_does(
    server: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "NEXT_LOOK", timedelta(seconds=1))
    at_once = Drained(empty=False, look=Look(sessions=3, boot="b", process="1.1"))
    async with fleet_with(server, "gw-3", {"drain_instance": at_once}) as world:
        world.gateways["gw-3"].login("192.0.2.1")
        world.gateways["gw-3"].serve(NEW, "b")
        running = await world.client.start_workflow(
            Drain.run, world.drain_order("gw-3"), id="drain/gw-3/edge-1/1", task_queue=CONTROL_QUEUE
        )

        async def asked() -> list[float]:
            return await steps_of(world.client, running.id, "drain_instance")

        async def several_times() -> bool:
            return len(await asked()) >= 5

        await until(several_times)
        times = (await asked())[1:]  # the first wait is only a look
        assert times[-1] - times[0] >= 0.9 * (len(times) - 1)
        await running.terminate()


@pytest.mark.sweep
async def test_a_slot_that_nobody_knows_keeps_no_other_gateway_from_being_found(server: Engine) -> None:
    state = state_of("gw-3")
    state["steering"]["serving"] = "zz"
    async with fleet_with(server, "gw-3", {"observe_gateway": state}) as world:
        world.gateways["gw-1"].serve(NEW, "b")
        found = await reconcile(world)
        assert found.strays["gw-3"] == "sends new sessions to slot zz, where nothing runs"
        await until(lambda: world.gateways["gw-1"].serving == "a")
    assert world.book.known_good("edge")["gw-1"] == OLD
