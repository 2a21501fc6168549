import asyncio
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from uuid import uuid4

import pytest
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from activities.instances import InstanceActivities
from activities.ledger import LedgerActivities
from activities.sessions import SessionActivities
from activities.steering import SteeringActivities
from orchestrator.files import load
from orchestrator.worker import WORKFLOWS
from policies.gates import GatePolicy
from policies.words.fleet import Fleet, Gateway, Limits, Slot
from policies.words.plan import Plan, ReleaseRef, Strategy, Wave
from policies.words.rollout import Command, CommandKind, CommandReceipt, RolloutOrder, RolloutResult
from policies.words.verdict import Window
from policies.words.word import digest_of
from tests.fakes.control import FakeAdmission, FakeBook, FakeJudge
from tests.fakes.gateway import FakeGateway
from workflows.failures import sentence_of
from workflows.rollout import Rollout
from workflows.sandbox import RUNNER
from workflows.steps import CONTROL_QUEUE

OLD = ReleaseRef(
    digest=digest_of(b"old"), product="ocserv", version="1.1.6", executable=digest_of(b"old executable")
)
NEW = ReleaseRef(
    digest=digest_of(b"new"), product="ocserv", version="1.3.0", executable=digest_of(b"new executable")
)

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


@dataclass
class World:
    """A fleet of fake gateways with a fake control plane, under real workflows."""

    client: Client
    fleet: Fleet
    gateways: dict[str, FakeGateway]
    judge: FakeJudge
    admission: FakeAdmission
    book: FakeBook

    def plan(self, *waves: tuple[str, ...]) -> Plan:
        return Plan(
            fleet=self.fleet,
            release=NEW,
            strategy=Strategy.CANARY,
            waves=tuple(Wave(number=n, gateways=names) for n, names in enumerate(waves, start=1)),
            known_good=dict.fromkeys(self.gateways, OLD),
            sessions=dict.fromkeys(self.gateways, 2),
            window=Window(),
            gates=GATES,
            trust_policy=digest_of(b"trust"),
        )

    async def start(self, *waves: tuple[str, ...]) -> WorkflowHandle[Rollout, RolloutResult]:
        order = RolloutOrder(
            rollout="edge-1",
            plan=self.plan(*(waves or (("gw-1",), ("gw-2", "gw-3")))),
            source="http://repository",
            requested_by="release engineer",
            reason="new features",
        )
        return await self.client.start_workflow(
            Rollout.run,
            order,
            id=f"change/{self.fleet.name}",
            task_queue=CONTROL_QUEUE,
            execution_timeout=timedelta(days=3),
        )

    async def upgrade(self, *waves: tuple[str, ...]) -> RolloutResult:
        return await result_of(await self.start(*waves))

    @staticmethod
    async def say(
        rollout: WorkflowHandle[Rollout, RolloutResult],
        kind: CommandKind,
        person: str = "on call",
        command_id: str = "",
        reason: str = "because",
    ) -> CommandReceipt:
        command = Command(id=command_id or uuid4().hex, kind=kind, person=person, reason=reason)
        return await rollout.execute_update(Rollout.command, command, id=command.id)

    def serving(self) -> dict[str, str]:
        """What each gateway gives new sessions, by version."""
        served = {}
        for name, fake in self.gateways.items():
            berth = fake.berths[fake.target or ""]
            served[name] = berth.release.version if berth.release else "nothing"
        return served


@pytest.fixture(scope="session")
async def environment() -> AsyncIterator[WorkflowEnvironment]:
    server = shutil.which("temporal-test-server", path=str(Path(sys.executable).parent))
    async with await WorkflowEnvironment.start_time_skipping(
        test_server_existing_path=server, data_converter=pydantic_data_converter
    ) as started:
        yield started


@pytest.fixture
async def world(environment: WorkflowEnvironment) -> AsyncIterator[World]:
    name = f"edge-{uuid4().hex[:6]}"
    members = tuple(gateway(f"gw-{number}", number) for number in (1, 2, 3, 4))
    # Queues are of this fleet alone, so that tests do not share workers.
    fleet = Fleet(
        name=name, product="ocserv", gateways=members, limits=Limits(lease=timedelta(seconds=30))
    )
    fakes = {member.name: FakeGateway(member) for member in members}
    for fake in fakes.values():
        fake.serve(OLD)
    made = World(environment.client, fleet, fakes, FakeJudge(), FakeAdmission(), FakeBook())
    made.book.good[name] = dict.fromkeys(fakes, OLD)
    async with AsyncExitStack() as stack:
        for worker in workers(environment.client, made):
            await stack.enter_async_context(worker)
        yield made


def workers(client: Client, world: World) -> list[Worker]:
    ledger = LedgerActivities(world.book)
    control = Worker(
        client,
        task_queue=CONTROL_QUEUE,
        workflows=WORKFLOWS,
        activities=[
            world.judge.observe_slice,
            world.admission.admit_release,
            ledger.open_rollout,
            ledger.close_rollout,
            ledger.record_verdict,
            ledger.record_known_good,
            ledger.read_known_good,
        ],
        workflow_runner=RUNNER,
        workflow_failure_exception_types=[Exception],
    )
    return [control, *(_agent(client, fake) for fake in world.gateways.values())]


def _agent(client: Client, fake: FakeGateway) -> Worker:
    instances, steering = InstanceActivities(fake), SteeringActivities(fake)
    sessions = SessionActivities(fake)
    return Worker(
        client,
        task_queue=fake.gateway.task_queue,
        activities=[
            instances.observe_gateway,
            instances.preflight_gateway,
            instances.stage_release,
            instances.start_instance,
            instances.probe_instance,
            instances.stop_instance,
            instances.fence_gateway,
            instances.snapshot_gateway,
            steering.start_trial,
            steering.make_permanent,
            steering.end_trial,
            sessions.drain_instance,
            sessions.end_sessions,
        ],
    )


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    """Wait for something the workflow does without anybody waiting for its result."""
    async with asyncio.timeout(20):
        while not await is_so():
            await asyncio.sleep(0.02)


async def result_of(rollout: WorkflowHandle[Rollout, RolloutResult]) -> RolloutResult:
    """Return the rollout's result; a failed workflow fails the test with its own cause."""
    try:
        return await rollout.result()
    except WorkflowFailureError as error:
        raise AssertionError(sentence_of(error.cause)) from error.cause
