"""Simulated agents: one process that answers for thousands of gateways, each on a queue of its own.

`python -m tests.bench.simulated_agents ADDRESS COUNT COUNTS FAULTS`, the faults as JSON. Every gateway is the
in-memory one of the tests (it passes the drivers' contract), and takes its steps from the real
engine by raw long polls, because ten thousand SDK workers do not fit into one process. Sessions
are not simulated: every instance is empty.
"""

import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_json
from temporalio.api.common.v1 import Payload, Payloads
from temporalio.api.failure.v1 import ApplicationFailureInfo, Failure
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import (
    PollActivityTaskQueueRequest,
    PollActivityTaskQueueResponse,
    RespondActivityTaskCompletedRequest,
    RespondActivityTaskFailedRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError

from activities.instances import RestoreOrder, SlotOrder, StageOrder, StartOrder
from activities.sessions import Drained, DrainOrder
from activities.snapshots import Piece
from activities.steering import TrialOrder
from policies.model.errors import PenstockError, Refused
from policies.model.fleet import Fleet, Gateway, Limits, Slot
from policies.model.operation import Operation
from policies.model.plan import ReleaseRef
from policies.model.value import digest_of
from tests.fakes.gateway import FakeGateway

NAMESPACE = "default"
CHANNELS = 20
"""Connections to the engine; one takes some hundreds of long polls."""

POLL = timedelta(seconds=75)
"""A little longer than the engine keeps a long poll."""

COUNTS: Counter[str] = Counter()
"""Steps taken by this process, by kind."""

FLEET = "simulated"
STEPS = ("1", "20%", "60%", "100%")
OLD_VERSION, NEW_VERSION = "1.1.6", "1.3.0"


def release(version: str) -> ReleaseRef:
    """Return a release that only the simulation knows."""
    return ReleaseRef(
        digest=digest_of(version.encode()),
        product="ocserv",
        version=version,
        executable=digest_of(f"{version} executable".encode()),
    )


def fleet(count: int, **limits: Any) -> Fleet:
    """Return a fleet of so many gateways in groups of five hundred, each in a domain of its own."""
    return Fleet(
        name=FLEET,
        product="ocserv",
        nat=True,
        gateways=tuple(_gateway(number) for number in range(count)),
        limits=Limits.model_validate(limits),
    )


def _gateway(number: int) -> Gateway:
    slots = tuple(
        Slot(
            name=name,
            port=4431 + index,
            device=f"vpn{name}",
            pool4=IPv4Network((int(IPv4Address("10.0.0.0")) + 256 * index, 24)),
        )
        for index, name in enumerate("abc")
    )
    return Gateway(
        name=f"gw-{number:05}",
        group=f"group-{number // 500:02}",
        domain=f"gw-{number:05}",
        addresses=(IPv4Address(int(IPv4Address("198.18.0.0")) + number),),
        slots=slots,
    )


class Faults(BaseModel):
    """Numbers of gateways that misbehave once the change has begun."""

    dead: frozenset[int] = frozenset()
    """Take no step any more after the preflight."""
    silent: frozenset[int] = frozenset()
    """Take the step that starts an instance and never answer it."""
    rebooting: frozenset[int] = frozenset()
    """Reboot once, right after their trial began."""
    refusing: frozenset[int] = frozenset()
    """Refuse to start anything: their disk is full."""
    lost: frozenset[int] = frozenset()
    """Are lost with the order to go back, which they take and never answer."""


@dataclass
class Agent:
    """One gateway's steps."""

    gateway: FakeGateway
    number: int
    faults: Faults
    able: bool = False
    asked: bool = False
    """Whether the preflight is over."""
    rebooted: bool = False
    lost: bool = False
    steps: dict[str, Callable[[Any], Awaitable[object]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        fake = self.gateway
        self.steps = {
            "observe_gateway": lambda _: fake.observe(),
            "preflight_gateway": lambda order: fake.preflight(ReleaseRef.model_validate(order["release"])),
            "stage_release": self._stage,
            "start_instance": self._start,
            "probe_instance": lambda order: fake.probe(SlotOrder.model_validate(order).slot),
            "stop_instance": self._stop,
            "fence_gateway": lambda order: fake.fence(Operation.model_validate(order)),
            "restore_gateway": self._restore,
            "start_trial": self._try_out,
            "make_permanent": self._keep,
            "end_trial": lambda order: fake.end_trial(Operation.model_validate(order)),
            "drain_instance": self._drain,
            "snapshot_gateway": self._snapshot,
            "read_snapshot": self._piece,
        }

    async def answer(self, step: str, order: Any) -> object | None:
        """Do one step; None is no answer at all."""
        if self.number in self.faults.silent and step in {"start_instance", "observe_gateway"} and self.asked:
            return None
        found = await self.steps[step](order)
        self.asked = self.asked or (step == "observe_gateway" and self.able)
        self.able = self.able or step == "preflight_gateway"
        return found

    @property
    def is_dead(self) -> bool:
        """Whether this gateway takes no step any more."""
        return self.lost or (self.asked and self.number in self.faults.dead)

    async def _stage(self, order: Any) -> object:
        read = StageOrder.model_validate(order)
        return await self.gateway.stage(read.operation, read.release, read.source)

    async def _start(self, order: Any) -> object:
        if self.number in self.faults.refusing:
            raise Refused(f"{self.gateway.gateway.name}: the disk is full")
        read = StartOrder.model_validate(order)
        return await self.gateway.start(read.operation, read.release)

    async def _stop(self, order: Any) -> object:
        read = SlotOrder.model_validate(order)
        return await self.gateway.stop(read.operation, read.slot)

    async def _restore(self, order: Any) -> object:
        read = RestoreOrder.model_validate(order)
        return await self.gateway.restore(read.operation, read.release, overrules=read.overrules)

    async def _try_out(self, order: Any) -> object:
        read = TrialOrder.model_validate(order)
        steered = await self.gateway.start_trial(
            read.operation, read.slot, read.lease, renew=read.renew, share=read.share
        )
        if self.number in self.faults.rebooting and not self.rebooted:
            self.rebooted = True
            self.gateway.reboot()
        return steered

    async def _keep(self, order: Any) -> object:
        read = SlotOrder.model_validate(order)
        return await self.gateway.make_permanent(read.operation, read.slot)

    async def _drain(self, order: Any) -> object:
        read = DrainOrder.model_validate(order)
        await self.gateway.check(read.operation)
        return Drained(empty=True, look=await self.gateway.look(read.slot))

    async def _snapshot(self, order: Any) -> object:
        del order
        return digest_of(self.gateway.gateway.name.encode())

    async def _piece(self, order: Any) -> object:
        return Piece(digest=order["digest"], offset=0, size=0, content="eJwDAAAAAAE=")


async def _serve(agent: Agent, client: Client) -> None:
    """Take this gateway's steps until the process ends."""
    queue = TaskQueue(name=agent.gateway.gateway.task_queue)
    asked = PollActivityTaskQueueRequest(namespace=NAMESPACE, task_queue=queue, identity=queue.name)
    service, rng = client.workflow_service, random.Random(agent.number)
    await asyncio.sleep(rng.random() * CHANNELS)
    while not agent.is_dead:
        try:
            task = await service.poll_activity_task_queue(asked, timeout=POLL)
        except RPCError:
            await asyncio.sleep(1 + rng.random() * 4)  # refused while others connect, or the engine is away
            continue
        if task.task_token:
            await _do(agent, client, task)


async def _do(agent: Agent, client: Client, task: PollActivityTaskQueueResponse) -> None:
    if task.activity_type.name == "restore_gateway" and agent.number in agent.faults.lost:
        agent.lost = True
        return
    COUNTS[task.activity_type.name] += 1
    order = json.loads(task.input.payloads[0].data) if task.input.payloads else None
    try:
        found = await agent.answer(task.activity_type.name, order)
    except PenstockError as error:
        info = ApplicationFailureInfo(type=error.code, non_retryable=not error.retryable)
        failed = RespondActivityTaskFailedRequest(
            namespace=NAMESPACE,
            task_token=task.task_token,
            failure=Failure(message=str(error), application_failure_info=info),
        )
        await _until_heard(lambda: client.workflow_service.respond_activity_task_failed(failed))
        return
    if found is None:
        return
    payload = Payload(metadata={"encoding": b"json/plain"}, data=to_json(found))
    done = RespondActivityTaskCompletedRequest(
        namespace=NAMESPACE, task_token=task.task_token, result=Payloads(payloads=[payload])
    )
    await _until_heard(lambda: client.workflow_service.respond_activity_task_completed(done))


async def _until_heard(respond: Callable[[], Awaitable[object]]) -> None:
    """Give an answer; one for a task that is over is not wanted any more."""
    for _ in range(5):
        try:
            await respond()
        except RPCError as error:
            if error.status.name in {"NOT_FOUND", "INVALID_ARGUMENT"}:
                return
            await asyncio.sleep(0.2)
        else:
            return


async def _tell_counts(path: Path) -> None:
    """Write every second how many steps of each kind were taken so far."""
    with path.open("w") as file:
        while True:
            file.write(json.dumps({"at": time.time(), "steps": dict(COUNTS)}) + "\n")
            file.flush()
            await asyncio.sleep(1)


async def main(address: str, count: int, counts: Path, faults: Faults) -> None:
    """Answer for so many gateways until the process is ended."""
    clients = [await Client.connect(address) for _ in range(CHANNELS)]
    agents = []
    for number, gateway in enumerate(fleet(count).gateways):
        fake = FakeGateway(gateway)
        fake.serve(release(OLD_VERSION))
        agents.append(Agent(fake, number, faults))
    print(f"ready: {count} simulated gateways", flush=True)
    counting = asyncio.create_task(_tell_counts(counts))
    await asyncio.gather(counting, *[_serve(agent, clients[agent.number % CHANNELS]) for agent in agents])


if __name__ == "__main__":
    asyncio.run(
        main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), Faults.model_validate_json(sys.argv[4]))
    )
