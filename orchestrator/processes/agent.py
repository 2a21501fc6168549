"""A gateway's agent: the worker on its host that carries out its steps and reaches the engine outbound."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from temporalio.client import Client
from temporalio.worker import Worker

from activities.adoption import AdoptionActivities
from activities.drivers.credentials import Credentials
from activities.drivers.daemon.login import ProbeLogin
from activities.drivers.daemon.products import daemon_of
from activities.drivers.runtime.host.adoption import HostAdoption
from activities.drivers.runtime.host.audit import HostAudit
from activities.drivers.runtime.host.bounds import HostBounds
from activities.drivers.runtime.host.journal import Journal
from activities.drivers.runtime.host.path import GatewayPath
from activities.drivers.runtime.host.sessions import SlotSessions
from activities.drivers.runtime.host.slot_folders import SlotFolders
from activities.drivers.runtime.host.slots import HostSlots
from activities.drivers.runtime.host.snapshots import HostSnapshots, read_fleet_key
from activities.drivers.runtime.pods.adoption import NoAdoption
from activities.drivers.steering.orders import SteeringOrders
from activities.drivers.steering.port import Means, SteeringDriver
from activities.drivers.steering.products import STEERINGS, retire_others
from activities.drivers.trust_files import compose_releases
from activities.files import load_own
from activities.host_record import HostRecordActivities
from activities.instances import InstanceActivities
from activities.paths import PathActivities
from activities.refusals import Hears
from activities.sessions import SessionActivities
from activities.snapshots import SnapshotActivities
from activities.steering import SteeringActivities
from orchestrator.enrolment.host import HostFiles
from orchestrator.enrolment.renewal import Renewal, ask_for_the_next
from orchestrator.processes.agent_file import AgentSettings, tell_of_unread_variables
from orchestrator.processes.beside import begun_again
from orchestrator.processes.certificate import ask_when_due, certificate_renewal, keep_renewed
from orchestrator.processes.enrolled import connected_for, files_for
from orchestrator.processes.gateway_folders import folders_of
from orchestrator.processes.gateway_runtime import slots_of
from orchestrator.processes.leaving import leave
from orchestrator.processes.memory import keep_heaps_small
from orchestrator.processes.process import make_worker, run_until_told
from orchestrator.processes.steady_worker import SteadyWorker
from orchestrator.umask import keep_to_itself
from policies.model.adoption import ADOPTED
from policies.model.value import Digest

ONE_POLL = 1
"""Polls at once of an agent: its steps come one by one, and relays keep the polls of thousands of agents."""


def files_of(settings: AgentSettings) -> HostFiles:
    """Return where the host keeps its certificate.

    Raises:
        BadInput: The agent's file does not say.
    """
    return files_for(settings, settings.gateway.fleet or "", settings.gateway.name, "agent")


async def connected(settings: AgentSettings, refused: Hears) -> Client:
    """Return a client of the relay, or of the engine, with what lies in the files now.

    `refused` hears of every payload that is not opened.

    Raises:
        Unavailable: It does not answer.
        NotAllowed: It refuses this host's certificate.
        BadInput: A file is missing or wrong.
    """
    if settings.certificate is not None:
        files_of(settings).settle()
    queue = settings.gateway.task_queue
    return await connected_for(settings, queue, refused, whose="agent")


@dataclass(frozen=True)
class Host:
    """The parts that act on this host; whoever composed them needs no engine to use them."""

    audit: HostAudit
    journal: Journal
    folders: SlotFolders
    table: SteeringDriver
    runtime: HostSlots
    snapshots: HostSnapshots
    adoption: HostAdoption | NoAdoption
    path: GatewayPath
    known_good: Callable[[], tuple[Digest, ...]]
    """What was promoted on this host, the latest last."""


def compose_host(settings: AgentSettings) -> Host:
    """Return the parts of this host; nothing is changed yet."""
    gateway, root = settings.gateway, settings.root
    audit = HostAudit(root / "audit.jsonl", root / "audit.key")
    journal = Journal(root / "journal.jsonl", HostBounds(gateway.name, settings.limits, audit.record_refusal))
    login = ProbeLogin(
        user=settings.probe.user,
        password=settings.probe.password,
        authority=settings.probe.authority,
        name=settings.probe.name,
        target=settings.probe.target,
        certificate=settings.probe.certificate,
        key=settings.probe.key,
        camouflage=settings.probe.camouflage,
        options=settings.probe.options,
        files=settings.probe.files,
    )
    folders = folders_of(gateway, root, daemon_of(gateway.daemon, login, settings.exempt))
    admission = compose_releases(
        root / "store",
        settings.trust,
        product=settings.product,
        channel=settings.channel,
        fetched=audit.record_fetch,
    )

    def kept(slot: str) -> None:
        """Ensure that this host itself refuses whatever is older than what it was trusted with for good."""
        release = folders.of(slot).release
        if release is not None and slot != ADOPTED:  # nobody vouches for what was adopted
            admission.promote(release.digest)

    before = folders.adopted
    adopted = before.slot if before else None
    secrets = Credentials(os.environ)
    given = {name: secrets.secret(reference) for name, reference in settings.credentials.items()}
    orders = SteeringOrders(
        gateway,
        journal,
        folders.live,
        root / "steering.json",
        kept=kept,
        adopted=adopted,
        proven=folders.is_proven,
    )
    orders.require_successor()
    table = STEERINGS[gateway.steering](
        orders,
        Means(
            root,
            dialled=folders.daemon.dialled(gateway),
            wandering=folders.daemon.wandering,
            mid_session=folders.daemon.mid_session,
            users=folders.users,
            credentials=given,
            proxies=settings.front.proxies,
            hook=settings.front.hook,
            certificate=settings.front.certificate,
            key=settings.front.key,
        ),
    )
    renewed = certificate_renewal(settings) if settings.server_certificate is not None else None
    runtime, adoption = slots_of(
        folders,
        journal,
        table,
        admission,
        given,
        audit,
        lambda: renewed.failing if renewed is not None else "",
    )
    snapshots = HostSnapshots(
        folders,
        runtime.observe,
        table.words,
        settings.pseudonyms,
        settings.snapshots_kept,
        settings.front.logs,
    )
    path = GatewayPath(folders, table)
    return Host(audit, journal, folders, table, runtime, snapshots, adoption, path, admission.known_good)


async def compose(settings: AgentSettings) -> tuple[SteadyWorker, Host]:
    """Return the agent's worker and its host, primed; what a reboot ended is started again.

    The host comes first: users need its tunnels, whatever is wrong with the agent's certificate.

    Raises:
        BadInput: A file is not as it must be.
        NotAllowed: The relay refuses this host's certificate.
        Unavailable: The relay does not answer.
    """
    if settings.pseudonyms is not None:
        read_fleet_key(settings.pseudonyms)
    host = compose_host(settings)
    if (await host.table.prime()).primed:
        await retire_others(settings.gateway, settings.root)
    await host.runtime.resume()
    activities = gateway_activities(
        InstanceActivities(host.runtime),
        SnapshotActivities(host.snapshots),
        SteeringActivities(host.table),
        SessionActivities(SlotSessions(host.folders, host.journal, host.table)),
        HostRecordActivities(host.audit),
        AdoptionActivities(host.adoption),
        PathActivities(host.path),
    )
    make = partial(connected_worker, settings, host.audit.record_refusal, activities)
    return SteadyWorker(await make(), make), host


async def connected_worker(
    settings: AgentSettings, refused: Hears, activities: Sequence[Callable[..., Any]]
) -> Worker:
    """Return a worker for the gateway's queue, with what lies in the files now.

    Raises:
        BadInput: Certificate, key and name do not belong together, or a file is not as it must be.
        NotAllowed: The relay refuses this host's certificate.
        Unavailable: The relay does not answer.
    """
    if settings.certificate is not None:
        files_of(settings).require_pair()
    client = await connected(settings, refused)
    return make_worker(client, settings.gateway.task_queue, activities=activities, polls=ONE_POLL)


def gateway_activities(
    instances: InstanceActivities,
    snapshots: SnapshotActivities,
    steering: SteeringActivities,
    sessions: SessionActivities,
    record: HostRecordActivities,
    adoption: AdoptionActivities,
    path: PathActivities,
) -> list[Callable[..., Any]]:
    """Return the steps that workflows ask a gateway for."""
    return [
        instances.observe_gateway,
        instances.preflight_gateway,
        instances.stage_release,
        instances.start_instance,
        instances.probe_instance,
        instances.inspect_instance,
        instances.mirror_instance,
        instances.load_instance,
        instances.stop_instance,
        instances.fence_gateway,
        instances.restore_gateway,
        instances.reload_credentials,
        instances.configure_gateway,
        instances.take_back_reload,
        snapshots.snapshot_gateway,
        snapshots.read_snapshot,
        steering.start_trial,
        steering.make_permanent,
        steering.end_trial,
        sessions.drain_instance,
        sessions.end_sessions,
        record.read_host_record,
        adoption.examine_gateway,
        adoption.adopt_gateway,
        path.walk_path,
    ]


async def main(config: Path) -> None:
    """Run until told to stop; the instances outlive this process."""
    keep_heaps_small()
    tell_of_unread_variables()
    settings = load_own(config, AgentSettings)
    worker, host = await compose(settings)
    works: dict[str, Callable[[], Awaitable[None]]] = {
        "keeping the steering table": host.table.keep,
        "removing old snapshots": host.snapshots.keep_forgetting,
        "following what was adopted": host.adoption.keep,
        "starting again what a reboot ended": host.runtime.keep,
    }
    if settings.server_certificate is not None:
        ask = partial(ask_when_due, config)
        renewed = partial(keep_renewed, certificate_renewal(settings), ask)
        works["renewing the gateway's certificate"] = renewed
    if settings.certificate is not None:
        again = partial(connected, settings, host.audit.record_refusal)
        renewal = Renewal(files_of(settings), partial(ask_for_the_next, config))
        works["keeping the certificate good"] = partial(renewal.keep, again, worker.exchange)
    beside = [asyncio.create_task(begun_again(what, work)) for what, work in works.items()]
    try:
        await run_until_told(worker)
    finally:
        for task in beside:
            task.cancel()


if __name__ == "__main__":
    keep_to_itself()
    asyncio.run(main(Path(sys.argv[1])))
    leave(0)
