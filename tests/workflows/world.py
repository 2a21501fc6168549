"""A fleet of fake gateways with a fake control plane, under the real workflows and the real sandbox."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import pytest
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Interceptor, Worker

from activities.adoption import AdoptionActivities
from activities.drill_turns import DrillTurnActivities
from activities.drivers.signature.host_lines import first_fault
from activities.facts import FactActivities
from activities.files import load
from activities.host_record import CollectingActivities, HostRecordActivities
from activities.instances import InstanceActivities
from activities.ledger import LedgerActivities
from activities.paths import PathActivities
from activities.placement import PlacementActivities
from activities.plans import PlanActivities
from activities.sessions import SessionActivities
from activities.snapshots import ArchiveActivities, SnapshotActivities
from activities.steering import SteeringActivities
from orchestrator.engine.histories import value_given
from orchestrator.processes.agent import gateway_activities
from orchestrator.processes.process import uninterrupted
from orchestrator.processes.worker import WORKFLOWS, control_activities, record_activities
from policies.model.change import ChangeKind, ChangeOpening, ChangeOrder, ChangeResult, Phase
from policies.model.command import Command, CommandKind, CommandReceipt
from policies.model.fleet import Fleet, Gateway, GatewayRef, Limits, Slot
from policies.model.gates import GatePolicy
from policies.model.placement import Placement
from policies.model.plan import Plan, ReleaseRef, Strategy, Wave
from policies.model.plan_part import PartKey
from policies.model.report import WaveReport
from policies.model.status import ChangeStatus
from policies.model.value import digest_of
from policies.model.verdict import Window
from tests.fakes.cluster import FakeCluster
from tests.fakes.control import (
    FakeAdmission,
    FakeArchive,
    FakeFleets,
    FakeJudge,
    FakeOpenWindow,
    FakeWindows,
    ObservedLedger,
)
from tests.fakes.gateway import FakeGateway
from tests.patience import PATIENCE, answered, until
from tests.workflows.ending import ending
from tests.workflows.engine import SUGGEST_SHORT_HISTORY
from tests.workflows.hanging import said_when_it_hangs
from workflows.change import Change, ChangeRun
from workflows.drain import DrainOrder
from workflows.failures import sentence_of
from workflows.reconcile import Reconcile, ReconcileOrder, ReconcileResult
from workflows.restore import Restore, RestoreOrder, RestoreResult
from workflows.sandbox import RUNNER
from workflows.steps import CONTROL_QUEUE

T = TypeVar("T")
Running = WorkflowHandle[Change, ChangeResult]


def release(version: str) -> ReleaseRef:
    return ReleaseRef(
        digest=digest_of(version.encode()),
        product="ocserv",
        version=version,
        executable=digest_of(f"{version} executable".encode()),
    )


OLD, NEW, NEXT = release("1.1.6"), release("1.3.0"), release("1.4.0")
GATES = load(Path("deploy/lab/gates.yaml"), GatePolicy)


def gateway(name: str, number: int) -> Gateway:
    slots = tuple(
        Slot(
            name=slot,
            port=4431 + index,
            device=f"vpn{slot}",
            pool4=IPv4Network(f"10.{number}.{index}.0/24"),
        )
        for index, slot in enumerate("abc")
    )
    return Gateway(name=name, domain=name, addresses=(IPv4Address(f"198.18.1.{number}"),), slots=slots)


def placed(fleet: Fleet, cluster: str = "cluster") -> Fleet:
    """Return the fleet with all of its gateways on the nodes of one cluster."""
    members = tuple(
        member.model_copy(
            update={
                "runtime": "kubernetes",
                "placement": Placement(cluster=cluster, node=f"node-of-{member.name}"),
            }
        )
        for member in fleet.gateways
    )
    return fleet.model_copy(update={"gateways": members})


def fleet_of(name: str, *, size: int = 4, **limits: Any) -> Fleet:
    members = tuple(gateway(f"gw-{number}", number) for number in range(1, size + 1))
    return Fleet(
        name=name,
        product="ocserv",
        gateways=members,
        limits=Limits.model_validate({"lease": timedelta(seconds=30), **limits}),
    )


@dataclass
class World:
    """What a test sees: the engine's client, the gateways, and what the control plane says and hears."""

    client: Client
    fleet: Fleet
    gateways: dict[str, FakeGateway]
    judge: FakeJudge = field(default_factory=FakeJudge)
    admission: FakeAdmission = field(default_factory=FakeAdmission)
    book: ObservedLedger = field(default_factory=ObservedLedger)
    archive: FakeArchive = field(default_factory=FakeArchive)
    windows: FakeWindows = field(default_factory=FakeWindows)
    opening: FakeOpenWindow = field(default_factory=FakeOpenWindow)
    folder: FakeFleets = field(init=False)
    clusters: dict[str, FakeCluster] = field(init=False)

    def __post_init__(self) -> None:
        self.folder = FakeFleets(self.fleet)
        self.clusters = {
            name: FakeCluster(
                name,
                [
                    fake
                    for fake in self.gateways.values()
                    if fake.gateway.placement is not None and fake.gateway.placement.cluster == name
                ],
            )
            for name in self.fleet.clusters
        }

    @classmethod
    def made(cls, client: Client, fleet: Fleet, *, serving: ReleaseRef | None = OLD) -> "World":
        world = cls(client, fleet, {member.name: FakeGateway(member) for member in fleet.gateways})
        if serving is not None:
            for fake in world.gateways.values():
                fake.serve(serving)
            for cluster in world.clusters.values():
                cluster.serve(serving)
            world.book.begin(fleet.name, serving, world.gateways)
            world.look()
        return world

    def look(self) -> None:
        """Write down what every gateway says, as a survey does before a plan and reconcile every minute."""
        states = [fake._state(changed=False) for fake in self.gateways.values()]
        self.book.record_states(self.fleet.name, states, {})

    def plan(self, *waves: tuple[str, ...], release: ReleaseRef = NEW) -> Plan:
        return Plan(
            fleet=self.fleet,
            release=release,
            strategy=Strategy.CANARY,
            waves=tuple(
                Wave(number=n, gateways=names, lease=self.fleet.limits.lease)
                for n, names in enumerate(waves, start=1)
            ),
            known_good=self.book.known_good(self.fleet.name) or dict.fromkeys(self.gateways, OLD),
            sessions=dict.fromkeys(self.gateways, 2),
            window=Window(),
            gates=GATES,
            trust_policy=digest_of(b"trust"),
        )

    def order(self, *waves: tuple[str, ...], release: ReleaseRef = NEW) -> ChangeOrder:
        plan = self.plan(*(waves or (("gw-1",), ("gw-2", "gw-3"))), release=release)
        return ChangeOrder(
            fleet=self.fleet.name,
            kind=ChangeKind.UPGRADE,
            plan=self.book.record_plan(plan),
            source="http://repository",
            requested_by="release engineer",
            reason="new features",
            key=uuid4().hex,
        )

    def left_open(self, *waves: tuple[str, ...]) -> str:
        """Write an upgrade down as one that nobody looks after; return its name."""
        return self.opened(self.order(*waves).model_copy(update={"key": "left open"}))

    def opened(self, order: ChangeOrder) -> str:
        """Write an upgrade down as begun; return its name."""
        assert order.key is not None
        return self.book.open_change(
            ChangeOpening(
                key=order.key,
                fleet=order.fleet,
                kind=order.kind,
                requested_by=order.requested_by,
                reason=order.reason,
                release=NEW.version,
                release_digest=NEW.digest,
                plan=order.plan,
            )
        )

    async def start(self, *waves: tuple[str, ...], release: ReleaseRef = NEW) -> Running:
        return await self.run(self.order(*waves, release=release))

    async def run(self, order: ChangeOrder) -> Running:
        """Start a change of the fleet, under a key of its own as the service does."""
        order = order if order.key else order.model_copy(update={"key": uuid4().hex})
        return await self.client.start_workflow(
            Change.run, ChangeRun(order=order), id=f"change/{self.fleet.name}", task_queue=CONTROL_QUEUE
        )

    async def go_back(self, *names: str, reason: str = "a person said so") -> Running:
        """Start a change that takes these gateways, or all, to the older release."""
        targets = dict.fromkeys(names or self.gateways, OLD)
        order = ChangeOrder(
            fleet=self.fleet.name,
            kind=ChangeKind.GO_BACK,
            plan=self.book.record_return(self.fleet, targets),
            source="http://repository",
            requested_by="on call",
            reason=reason,
        )
        return await self.run(order)

    def drain_order(self, *names: str, release: ReleaseRef = NEW, **more: object) -> DrainOrder:
        """Return an order to empty what these gateways have beside the release that serves."""
        order = DrainOrder(
            change=f"{self.fleet.name}-1",
            fleet=self.fleet.name,
            plan=self.book.record_return(self.fleet, dict.fromkeys(names, release)),
            key=PartKey(wave=0, number=1),
            epoch=1,
            deadline=timedelta(hours=8),
            limits=self.fleet.limits.drain,
        )
        return order.model_copy(update=more)

    async def restore(self, *names: str, **more: object) -> "WorkflowHandle[Restore, RestoreResult]":
        """Start a restore alone of these gateways, or all, to the older release."""
        order = RestoreOrder(
            change=f"{self.fleet.name}-1",
            plan=self.book.record_return(self.fleet, dict.fromkeys(names or self.gateways, OLD)),
            fleet=self.fleet.name,
            reason="a person said so",
            keys=(PartKey(wave=0, number=1),),
            epoch=time.time_ns() // 1_000_000,
            limits=self.fleet.limits,
            lock=True,
        )
        return await self.client.start_workflow(
            Restore.run,
            order.model_copy(update=more),
            id=f"restore/{self.fleet.name}/{uuid4().hex}",
            task_queue=CONTROL_QUEUE,
        )

    async def upgrade(self, *waves: tuple[str, ...], release: ReleaseRef = NEW) -> ChangeResult:
        return await result_of(await self.start(*waves, release=release))

    @property
    def newest(self) -> str:
        """The name of the fleet's newest change."""
        found = self.book.last_change(self.fleet.name)
        assert found is not None
        return found.name

    def serving(self) -> dict[str, str]:
        """What each gateway gives new sessions, by version."""
        return {name: self.version_in(name, fake.target) for name, fake in self.gateways.items()}

    def version_in(self, name: str, slot: str | None) -> str:
        held = self.gateways[name].slots.get(slot or "")
        return held.release.version if held and held.release else "nothing"

    def effects(self) -> dict[str, list[str]]:
        return {name: list(fake.effects) for name, fake in self.gateways.items()}


async def say(
    rollout: Running,
    kind: CommandKind,
    person: str = "on call",
    command_id: str = "",
    reason: str = "because",
    patience: timedelta = timedelta(seconds=20),
    **more: str | tuple[str, ...] | None,
) -> CommandReceipt:
    """Give an order as the service does."""
    command = Command(id=command_id or uuid4().hex, kind=kind, person=person, reason=reason).model_copy(
        update=more
    )
    if not command.is_safe:
        command = command.model_copy(update={"run": await run_of(rollout)})
    receipt: CommandReceipt = await rollout.execute_update(
        "command", command, id=command.id, result_type=CommandReceipt, rpc_timeout=patience
    )
    return receipt


async def run_of(rollout: Running) -> str:
    """Return how the engine names the change, however often it continued as new."""
    found = await rollout.describe()
    return found.raw_description.workflow_execution_info.first_run_id


async def refusal_of(order: Awaitable[CommandReceipt]) -> str:
    """Return the sentence with which an order was refused."""
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await order
    cause = refused.value.cause
    assert isinstance(cause, ApplicationError)
    assert cause.type == "Conflict"
    return cause.message


async def status_of(rollout: Running) -> ChangeStatus:
    return await answered(lambda: rollout.query(Change.status))


async def in_phase(rollout: Running, phase: Phase, wave: int = 1) -> None:
    """Wait until the rollout says it is there; where it never is, the failure says where it is."""
    status: ChangeStatus | None = None

    async def is_there() -> bool:
        nonlocal status
        status = await status_of(rollout)
        assert status.phase is not Phase.ENDED, f"ended before {phase}: {status.why}"
        return status.phase is phase and status.wave >= wave

    try:
        await until(is_there)
    except TimeoutError as error:
        raise AssertionError(f"never {phase} in wave {wave}; the last status is {status!r}") from error


async def waiting_for(rollout: Running, *names: str, seconds: float = PATIENCE) -> None:
    """Wait until its way back waits for these gateways, in this order, and for no others."""

    async def is_so() -> bool:
        return (await status_of(rollout)).waits_for == names

    await until(is_so, seconds)


async def lengthen(running: WorkflowHandle[Any, Any], signal: str, argument: object) -> None:
    """Send a signal that changes nothing until the server suggests that the workflow continues as new.

    A bound that a test lowers amid a run is another one where a busy worker replays the run from its start.
    """
    await asyncio.gather(*[running.signal(signal, argument) for _ in range(SUGGEST_SHORT_HISTORY)])


async def lengthen_change(rollout: Running) -> None:
    """Let a change hear reports of an earlier one, which say nothing, until it has to continue as new."""
    of_another = WaveReport(
        at=datetime.now(UTC), number=1, change="edge-0", wave=1, phase=Phase.OBSERVING, share=100
    )
    await lengthen(rollout, "report", of_another)


async def result_of(running: WorkflowHandle[Any, T]) -> T:
    """Return the workflow's result; a failed one fails the test with its own cause."""
    try:
        return await running.result()
    except WorkflowFailureError as error:
        raise AssertionError(sentence_of(error.cause)) from error.cause


async def began_with(client: Client, name: str, kind: type[T], run: str | None = None) -> tuple[T, str]:
    """Return the order of a run, the newest unless given, and which run it continues, empty for none."""
    workflow = client.get_workflow_handle(name, run_id=run)
    begun = await anext(workflow.fetch_history_events())
    told = begun.workflow_execution_started_event_attributes
    order = await value_given(await workflow.describe(), told.input, kind)
    return order, told.continued_execution_run_id


def steps_on(fake: FakeGateway) -> list[Callable[..., Any]]:
    """Return the steps that the gateway's agent takes."""
    return gateway_activities(
        InstanceActivities(fake),
        SnapshotActivities(fake),
        SteeringActivities(fake),
        SessionActivities(fake),
        HostRecordActivities(fake),
        AdoptionActivities(fake),
        PathActivities(fake),
    )


def agent_worker(
    client: Client, fake: FakeGateway, taken: Sequence[Callable[..., Any]] | None = None
) -> Worker:
    return Worker(
        client,
        task_queue=fake.gateway.task_queue,
        activities=steps_on(fake) if taken is None else taken,
        max_concurrent_activity_task_polls=1,
        max_heartbeat_throttle_interval=timedelta(milliseconds=200),
        default_heartbeat_throttle_interval=timedelta(milliseconds=200),
    )


def cluster_steps(cluster: FakeCluster) -> list[Callable[..., Any]]:
    """Return the steps that the cluster takes."""
    placing = PlacementActivities(cluster)
    return [placing.prepare_slot, placing.place_instance, placing.remove_instance, placing.look_at_nodes]


def cluster_worker(client: Client, fleet: str, cluster: FakeCluster) -> Worker:
    return Worker(
        client,
        task_queue=GatewayRef(name=cluster.name, fleet=fleet).task_queue,
        activities=cluster_steps(cluster),
        max_heartbeat_throttle_interval=timedelta(milliseconds=200),
        default_heartbeat_throttle_interval=timedelta(milliseconds=200),
    )


@asynccontextmanager
async def working(
    world: World,
    interceptors: Sequence[Interceptor] = (),
    failures: Sequence[type[BaseException]] = (Exception,),
    agent: Callable[[Client, FakeGateway], Worker] = agent_worker,
) -> AsyncIterator[World]:
    """Run the orchestrator's worker and every gateway's agent."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(ending(control_worker(world.client, world, interceptors, failures)))
        for fake in world.gateways.values():
            await stack.enter_async_context(ending(agent(world.client, fake)))
        for cluster in world.clusters.values():
            await stack.enter_async_context(ending(cluster_worker(world.client, world.fleet.name, cluster)))
        await until(lambda: is_heard(world.client))
        await stack.enter_async_context(said_when_it_hangs(world.client))
        yield world


async def is_heard(client: Client) -> bool:
    """Whether the server knows that somebody takes tasks: until then it answers no question to a workflow."""
    asked = DescribeTaskQueueRequest(
        namespace=client.namespace,
        task_queue=TaskQueue(name=CONTROL_QUEUE),
        task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
    )
    try:
        return bool((await client.workflow_service.describe_task_queue(asked)).pollers)
    except RPCError as error:
        if error.status is RPCStatusCode.UNIMPLEMENTED:  # by the server that skips time
            return True
        raise


async def reconcile(world: World) -> ReconcileResult:
    """Reconcile the fleet once, and return what was found."""
    return await world.client.execute_workflow(
        Reconcile.run,
        ReconcileOrder(fleet=world.fleet.name),
        id=f"reconcile/{world.fleet.name}",
        task_queue=CONTROL_QUEUE,
    )


def control_worker(
    client: Client,
    world: World,
    interceptors: Sequence[Interceptor] = (),
    failures: Sequence[type[BaseException]] = (Exception,),
) -> Worker:
    world.judge.book = world.book
    worker = Worker(
        client,
        task_queue=CONTROL_QUEUE,
        workflows=WORKFLOWS,
        activities=control_activities(
            world.admission.admit_release,
            world.judge.watch_wave,
            world.judge.ask_whether_normal,
            world.windows.ask_window,
            record_activities(
                LedgerActivities(world.book),
                PlanActivities(world.book),
                FactActivities(world.book, world.folder),
                CollectingActivities(world.book, first_fault),
                ArchiveActivities(world.archive, world.book),
                DrillTurnActivities(world.book, world.folder, world.opening),
            ),
        ),
        workflow_runner=RUNNER,
        interceptors=interceptors,
        workflow_failure_exception_types=failures,
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=1),
        max_heartbeat_throttle_interval=timedelta(milliseconds=200),
        default_heartbeat_throttle_interval=timedelta(milliseconds=200),
    )
    return uninterrupted(worker)


async def steps_of(client: Client, workflow_id: str, step: str) -> list[float]:
    """Return when a workflow asked for a step, in seconds of the engine's clock."""
    return [
        event.event_time.ToMicroseconds() / 1e6
        async for event in client.get_workflow_handle(workflow_id).fetch_history_events()
        if event.activity_task_scheduled_event_attributes.activity_type.name == step
    ]
