"""One installation with a relay: its engine, its ledger, its authority, and agents with certificates."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.service import TLSConfig
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from deploy.ports import free_port
from orchestrator.enrolment.authority import Authority, key_pem, new_key
from orchestrator.enrolment.names import RELAY_NAME
from orchestrator.processes.relay import relaying
from orchestrator.relay.server import Relay
from orchestrator.settings import Settings
from orchestrator.store.ledger import Ledger
from tests.fakes.ledgers import new_ledger
from tests.patience import PATIENCE

CONTROL = "control"
ENDS_WITHIN = timedelta(seconds=PATIENCE)


def request_for(key: ec.EllipticCurvePrivateKey) -> str:
    asked = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return asked.public_bytes(Encoding.PEM).decode()


@dataclass(frozen=True)
class Shown:
    """A certificate and its key, in PEM."""

    certificate: bytes
    key: bytes

    def tls(self, authority: bytes) -> TLSConfig:
        return TLSConfig(
            server_root_ca_cert=authority,
            domain=RELAY_NAME,
            client_cert=self.certificate,
            client_private_key=self.key,
        )


def issued(
    authority: Authority, gateway: str, lives: timedelta = timedelta(days=1), fleet: str = "edge"
) -> Shown:
    key = new_key()
    made = authority.issue_gateway(request_for(key), fleet, gateway, lives)
    return Shown(made.pem.encode(), key_pem(key))


@activity.defn(name="say")
async def say(what: str) -> str:
    for _ in range(3):
        activity.heartbeat(what)
        await asyncio.sleep(0.05)
    return f"said {what}"


@activity.defn(name="wait")
async def wait() -> str:
    try:
        while True:
            activity.heartbeat()
            await asyncio.sleep(0.05)
    except asyncio.CancelledError:
        return "told to stop"


@activity.defn(name="fail")
async def fail() -> str:
    raise ValueError("as it was meant to")


@workflow.defn(name="Errand", sandboxed=False)
class Errand:
    """Sends a gateway on an errand, and tells it to stop another one."""

    @workflow.run
    async def run(self, queue: str, what: str) -> list[str]:
        told = await workflow.execute_activity(
            "say",
            what,
            task_queue=queue,
            start_to_close_timeout=ENDS_WITHIN,
            heartbeat_timeout=ENDS_WITHIN / 10,
        )
        for seconds in (0.3, 3, 30):
            waiting = workflow.start_activity(
                "wait",
                task_queue=queue,
                start_to_close_timeout=ENDS_WITHIN,
                heartbeat_timeout=ENDS_WITHIN / 10,
                cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            )
            await workflow.sleep(seconds)
            waiting.cancel()
            with suppress(ActivityError):  # the gateway had not begun it yet
                return [told, await waiting]
        raise ApplicationError("the gateway begins nothing")


@dataclass
class Installation:
    settings: Settings
    client: Client
    """Of the orchestrator: it has the engine itself."""
    relay: Relay
    ledger: Ledger
    authority: Authority

    @property
    def address(self) -> str:
        assert self.settings.relay_address is not None
        return self.settings.relay_address

    async def agent(self, gateway: str, shown: Shown | None = None) -> Client:
        shown = shown or issued(self.authority, gateway)
        return await Client.connect(
            self.address,
            namespace=self.client.namespace,
            tls=shown.tls(self.authority.pem),
            data_converter=self.client.data_converter,
        )

    async def errand(self, gateway: str, what: str = "hello") -> list[str]:
        """Send the gateway on an errand, from a worker of the orchestrator."""
        async with Worker(
            self.client,
            task_queue=CONTROL,
            workflows=[Errand],
            workflow_runner=UnsandboxedWorkflowRunner(),
        ):
            return await self.client.execute_workflow(
                Errand.run,
                args=[queue_of(gateway), what],
                id=f"errand-{what}",
                task_queue=CONTROL,
                execution_timeout=ENDS_WITHIN,
            )


def queue_of(gateway: str) -> str:
    return f"gateway/edge/{gateway}"


def working(client: Client, gateway: str) -> Worker:
    return Worker(
        client,
        task_queue=queue_of(gateway),
        activities=[say, wait, fail],
        graceful_shutdown_timeout=timedelta(seconds=1),
    )


def settings_of(folder: Path, namespace: str, engine: str) -> Settings:
    return Settings(
        temporal_address=engine,
        temporal_namespace=namespace,
        relay_address=f"127.0.0.1:{free_port()}",
        enrolment_address=f"127.0.0.1:{free_port()}",
        relay_key=folder / "relay.key",
        authority=folder / "authority",
        ledger_url=f"sqlite:///{folder / 'ledger.db'}",
        audit_key=folder / "audit.key",
    )


@asynccontextmanager
async def installed(folder: Path, client: Client, engine: str) -> AsyncIterator[Installation]:
    settings = settings_of(folder, client.namespace, engine)
    new_ledger(folder / "ledger.db")
    async with relaying(settings) as relay:
        ledger = Ledger.open(settings.ledger_url)
        yield Installation(settings, client, relay, ledger, Authority.open(settings.authority))
        ledger.close()
