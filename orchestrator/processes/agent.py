"""A gateway's agent: the worker on its host that carries out its steps and reaches the engine outbound."""

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator
from temporalio.worker import Worker

from activities.drivers.credentials import Credentials
from activities.drivers.daemon.exempt import Exempt
from activities.drivers.daemon.ocserv.daemon import Ocserv
from activities.drivers.daemon.ocserv.probe import ProbeLogin
from activities.drivers.runtime.host.journal import Journal
from activities.drivers.runtime.host.sessions import SlotSessions
from activities.drivers.runtime.host.slot_folders import SlotFolders
from activities.drivers.runtime.host.slots import HostSlots
from activities.drivers.runtime.host.snapshots import HostSnapshots
from activities.drivers.steering.nftables import NftablesTable
from activities.drivers.trust_files import compose_releases
from activities.files import load
from activities.instances import InstanceActivities
from activities.sessions import SessionActivities
from activities.snapshots import SnapshotActivities
from activities.steering import SteeringActivities
from orchestrator.engine.client import connect
from orchestrator.processes.process import leave, make_worker, run_until_told
from policies.model.fleet import Gateway
from policies.model.value import Name, Value


class ProbeSettings(Value):
    """Who the agent logs in as when it probes an instance; secrets by file only."""

    user: str
    password: Path
    authority: Path
    name: str | None = None
    target: str | None = None


class AgentSettings(Value):
    """The agent's own file: its gateway, its folder, whom it trusts, which files templates may ask for."""

    gateway: Gateway
    root: Path = Field(description="folder of versions, slots and the journal")
    product: Name
    channel: Name
    trust: Path = Field(description="trust.yaml of this host; the orchestrator's word is not enough")
    temporal_address: str
    temporal_namespace: str = "default"
    payload_keys: Path | None = Field(None, description="keys that seal what travels through the engine")
    credentials: dict[str, str] = Field(
        default={}, description="what templates refer to by name: file:PATH, env:NAME or vault:PATH#FIELD"
    )
    probe: ProbeSettings
    exempt: Exempt = Field(default=Exempt(), description="whose sessions no drain deadline ends")

    @field_validator("gateway")
    @classmethod
    def _gateway_knows_whose_it_is(cls, gateway: Gateway) -> Gateway:
        if gateway.fleet is None:
            raise ValueError("say which fleet it is of: `fleet: NAME`, as fleet.yaml is called")
        return gateway


async def compose(settings: AgentSettings) -> tuple[Worker, NftablesTable]:
    """Return the agent's worker and its steering table, primed; what a reboot ended is started again."""
    gateway, root = settings.gateway, settings.root
    journal = Journal(root / "journal.jsonl")
    login = ProbeLogin(
        user=settings.probe.user,
        password=settings.probe.password,
        authority=settings.probe.authority,
        name=settings.probe.name,
        target=settings.probe.target,
    )
    folders = SlotFolders(gateway, root, Ocserv(login, settings.exempt))
    admission = compose_releases(
        root / "store", settings.trust, product=settings.product, channel=settings.channel
    )

    def kept(slot: str) -> None:
        """Ensure that this host itself refuses whatever is older than what it was trusted with for good."""
        if (release := folders.of(slot).release) is not None:
            admission.promote(release.digest)

    table = NftablesTable(gateway, journal, folders.live, root / "steering.json", kept=kept)
    secrets = Credentials(os.environ)
    given = {name: secrets.secret(reference) for name, reference in settings.credentials.items()}
    runtime = HostSlots(folders, journal, table, admission, given)
    await table.prime()
    await runtime.resume()
    client = await connect(
        settings.temporal_address, settings.temporal_namespace, payload_keys=settings.payload_keys
    )
    instances = InstanceActivities(runtime)
    snapshots = SnapshotActivities(HostSnapshots(folders, runtime.observe))
    steering = SteeringActivities(table)
    sessions = SessionActivities(SlotSessions(folders, journal, table))
    activities = gateway_activities(instances, snapshots, steering, sessions)
    return make_worker(client, gateway.task_queue, activities=activities), table


def gateway_activities(
    instances: InstanceActivities,
    snapshots: SnapshotActivities,
    steering: SteeringActivities,
    sessions: SessionActivities,
) -> list[Callable[..., Any]]:
    """Return the steps that workflows ask a gateway for."""
    return [
        instances.observe_gateway,
        instances.preflight_gateway,
        instances.stage_release,
        instances.start_instance,
        instances.probe_instance,
        instances.stop_instance,
        instances.fence_gateway,
        instances.restore_gateway,
        snapshots.snapshot_gateway,
        snapshots.read_snapshot,
        steering.start_trial,
        steering.make_permanent,
        steering.end_trial,
        sessions.drain_instance,
        sessions.end_sessions,
    ]


async def main(config: Path) -> None:
    """Run until told to stop; the instances outlive this process."""
    worker, table = await compose(load(config, AgentSettings))
    keeping = asyncio.create_task(table.keep())
    try:
        await run_until_told(worker)
    finally:
        keeping.cancel()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
    leave(0)
