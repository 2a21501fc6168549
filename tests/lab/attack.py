"""What strangers and thieves try on a lab that is in the middle of an upgrade, and how each of it ended."""

import asyncio
import json
import socket
from collections.abc import Awaitable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.client import Client, WorkflowFailureError
from temporalio.common import RawValue, RetryPolicy
from temporalio.service import RPCError, TLSConfig
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from activities.instances import LoadOrder, MirrorOrder, SlotOrder, StartOrder
from activities.sessions import EndOrder
from activities.steering import TrialOrder
from deploy.lab import namespaces
from deploy.lab.lab import ENROLMENT_PORT, RELAY_PORT, Lab
from deploy.lab.services import EXPORTER_PORT
from orchestrator.engine.sealing import data_converter
from orchestrator.enrolment.names import RELAY_NAME
from policies.model.mirror import MOST_A_MINUTE, Mirror
from policies.model.operation import LAST_EPOCH, Operation
from policies.model.release_tests import Load
from policies.model.value import digest_of

CROWD = 300
"""Connections of strangers at each port."""

ONCE = RetryPolicy(maximum_attempts=1)
PATIENCE = timedelta(seconds=20)
POLLING = timedelta(seconds=3)
STOLEN = "gw-1"


@workflow.defn(sandboxed=False)
class Forgery:
    """Hands a gateway an order, as whoever reaches the engine can."""

    @workflow.run
    async def run(self, queue: str, step: str, order: RawValue) -> None:
        await workflow.execute_activity(
            step, order, task_queue=queue, start_to_close_timeout=PATIENCE, retry_policy=ONCE
        )


@activity.defn(name="start_instance")
async def obey(order: RawValue) -> None:
    """What a false agent would do."""
    del order


class Thief:
    """Somebody with the identity of one gateway, then with the keys of the orchestrator."""

    def __init__(self, lab: Lab, attacked: str) -> None:
        """Attack this gateway, which nobody changes meanwhile."""
        self._lab = lab
        self._gateway = lab.fleet.gateway(attacked)
        self._settings = lab.installation.settings
        self._number = 0
        self._owner = ("", 0)

    async def tries(self) -> dict[str, str]:
        """Try everything; return what came of each."""
        ended = {"the engine from a gateway's network": self._reach_the_engine()}
        stolen = await self._by_a_stolen_certificate()
        for name, attempt in {
            "another gateway's queue": self._poll(stolen),
            "a change by a gateway's certificate": self._start(stolen),
            "a list by a gateway's certificate": self._list(stolen),
        }.items():
            ended[name] = await _refusal(attempt)
        return ended | await self._orders()

    def _reach_the_engine(self) -> str:
        with namespaces.inside(self._lab.topology.gateways[0].namespace), socket.socket() as caller:
            caller.settimeout(2)
            code = caller.connect_ex((self._lab.topology.hub.address4, 7233))
        return "reached" if code == 0 else "nobody answers"

    async def _by_a_stolen_certificate(self) -> Client:
        own = self._lab.folder / "gateways" / STOLEN / "identity"
        tls = TLSConfig(
            server_root_ca_cert=(own / "authority.pem").read_bytes(),
            domain=RELAY_NAME,
            client_cert=(own / "agent.pem").read_bytes(),
            client_private_key=(own / "agent.key").read_bytes(),
        )
        return await Client.connect(str(self._settings.relay_address), tls=tls)

    async def _poll(self, stolen: Client) -> None:
        worker = Worker(stolen, task_queue=self._gateway.task_queue, activities=[obey])
        async with asyncio.timeout(POLLING.total_seconds()):  # the client goes on asking; see the record
            await worker.run()

    @staticmethod
    async def _start(stolen: Client) -> None:
        await stolen.start_workflow("Change", id="change/evil", task_queue="orchestrator")

    @staticmethod
    async def _list(stolen: Client) -> None:
        async for _ in stolen.list_workflows():
            return

    async def _orders(self) -> dict[str, str]:
        """Give orders at the engine itself, plain and then sealed with the orchestrator's own keys."""
        address, namespace = self._settings.temporal_address, self._settings.temporal_namespace
        plain = await Client.connect(address, namespace=namespace, data_converter=data_converter(None))
        keys = data_converter(self._settings.payload_keys)
        insider = await Client.connect(address, namespace=namespace, data_converter=keys)
        serving = (await self._lab.states())[self._gateway.name].steering.serving or "a"
        free = next(slot.name for slot in self._gateway.slots if slot.name != serving)
        self._owner = self._owner_of_the_gateway()
        far = self._operation(epoch=LAST_EPOCH)
        known = self._lab.older
        orders: dict[str, tuple[Client, str, object]] = {
            "a plain order": (plain, "fence_gateway", far),
            "an epoch of 2^53": (insider, "fence_gateway", far),
            "an order for another gateway": (insider, "fence_gateway", self._operation(gateway="gw-9")),
            "the sessions of the slot that serves": (
                insider,
                "end_sessions",
                EndOrder(operation=self._operation(), slot=serving, leave=0, exempt_too=True, reason="evil"),
            ),
            "a load of the slot that serves": (
                insider,
                "load_instance",
                LoadOrder(operation=self._operation(), slot=serving, load=Load(sessions=50, seconds=10)),
            ),
            "logins mirrored to the slot that serves": (
                insider,
                "mirror_instance",
                MirrorOrder(
                    operation=self._operation(),
                    slot=serving,
                    mirror=Mirror(seconds=600, at_least=MOST_A_MINUTE, at_most=MOST_A_MINUTE),
                ),
            ),
            "a trial of a day": (
                insider,
                "start_trial",
                TrialOrder(operation=self._operation(), slot=serving, lease=timedelta(days=1)),
            ),
            "an empty slot for good": (
                insider,
                "make_permanent",
                SlotOrder(operation=self._operation(), slot=free),
            ),
            "a release that nobody signed": (
                insider,
                "start_instance",
                StartOrder(
                    operation=self._operation(),
                    release=known.model_copy(update={"digest": digest_of(b"unsigned")}),
                ),
            ),
        }
        return {name: await self._give(*order) for name, order in orders.items()}

    async def _give(self, client: Client, step: str, order: object) -> str:
        self._number += 1
        name = f"forgery-{self._number}"
        runner = UnsandboxedWorkflowRunner()
        async with Worker(client, task_queue="strangers", workflows=[Forgery], workflow_runner=runner):
            try:
                await client.execute_workflow(
                    Forgery.run,
                    args=[self._gateway.task_queue, step, order],
                    id=name,
                    task_queue="strangers",
                )
            except WorkflowFailureError as error:
                return _root(error)
        return "obeyed"

    def _owner_of_the_gateway(self) -> tuple[str, int]:
        """Return whom it obeys now: the orchestrator's own orders could not look more alike."""
        journal = self._lab.folder / "gateways" / self._gateway.name / "journal.jsonl"
        last = json.loads(journal.read_text().splitlines()[-1])
        return last["rollout"], last["epoch"]

    def _operation(self, *, gateway: str | None = None, epoch: int | None = None) -> Operation:
        rollout, owned = self._owner
        return Operation(
            rollout=rollout,
            epoch=epoch or owned,
            gateway=gateway or self._gateway.name,
            step=f"evil {self._number}",
            digest=digest_of(b"evil"),
        )


@contextmanager
def crowds(lab: Lab) -> Iterator[int]:
    """Have strangers who say nothing at every port that is open; give how many there are."""
    hub, gateway = lab.topology.hub, lab.topology.gateways[0]
    doors = [(hub.address4, RELAY_PORT), (hub.address4, ENROLMENT_PORT), (gateway.management4, EXPORTER_PORT)]
    with ExitStack() as held, namespaces.inside(hub.namespace):
        for door in doors:
            for _ in range(CROWD):
                caller = held.enter_context(socket.socket())
                caller.setblocking(False)
                caller.connect_ex(door)
        yield len(doors) * CROWD


async def _refusal(attempt: Awaitable[None]) -> str:
    try:
        await attempt
    except (RPCError, RuntimeError) as error:
        return str(error)
    except TimeoutError:
        return "nothing came"
    return "done"


def _root(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error)
