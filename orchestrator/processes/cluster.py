"""A cluster's driver: the worker that has its nodes run, and end, the instances of one fleet's gateways."""

import asyncio
import fcntl
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

from temporalio.client import Client
from temporalio.worker import Worker

from activities.drivers.disk import write_whole
from activities.drivers.runtime.kubernetes.access import AT_ONCE, Access
from activities.drivers.runtime.kubernetes.api import Api
from activities.drivers.runtime.kubernetes.cluster import KubernetesCluster
from activities.drivers.runtime.kubernetes.events import Events
from activities.drivers.runtime.kubernetes.lease import DriverLease
from activities.drivers.runtime.kubernetes.rights import (
    GET_DAEMONSET,
    GET_LEASE,
    PATCH_DAEMONSET,
    UPDATE_LEASE,
)
from activities.drivers.runtime.kubernetes.vouching import VouchedImages
from activities.drivers.runtime.kubernetes.words import Share
from activities.drivers.trust_files import compose_releases
from activities.files import load_own
from activities.placement import PlacementActivities
from activities.refusals import only_logged
from orchestrator.enrolment.host import HostFiles
from orchestrator.enrolment.renewal import Renewal, ask_for_the_next
from orchestrator.processes.agent_file import tell_of_unread_variables
from orchestrator.processes.beside import begun_again
from orchestrator.processes.cluster_file import ClusterSettings
from orchestrator.processes.enrolled import connected_for, files_for
from orchestrator.processes.leaving import leave
from orchestrator.processes.memory import keep_heaps_small
from orchestrator.processes.process import make_worker, run_until_told
from orchestrator.processes.steady_worker import SteadyWorker
from orchestrator.umask import keep_to_itself
from policies.model.errors import Conflict, PenstockError

_log = logging.getLogger(__name__)

PLACEMENTS_AT_ONCE = 2_000
"""Most of them only wait for a pod, and their calls are bounded by themselves.

With a hundred of those a look at nodes came too late, and a healthy cluster was taken for a silent one.
"""


@dataclass(frozen=True)
class Driver:
    """The parts that act on the cluster; whoever composed them needs no engine to use them."""

    cluster: KubernetesCluster
    lease: DriverLease
    share: Share


def share_of(settings: ClusterSettings) -> Share:
    """Return the fleet's part of the cluster, as the file describes it.

    Raises:
        BadInput: Names that no label of the cluster takes.
    """
    return Share(
        fleet=settings.fleet,
        cluster=settings.name,
        namespace=settings.namespace,
        slots=settings.slots,
        container=settings.container,
        repository=settings.repository,
        bears=settings.bears,
    )


def api_of(settings: ClusterSettings) -> Api:
    """Return how the cluster is asked; nothing is asked yet."""
    share = share_of(settings)
    access = Access(settings.kubeconfig, f"penstock/{version('penstock')}")
    sets, leases = tuple(share.slots.values()), (share.lease,)
    named = {GET_DAEMONSET: sets, PATCH_DAEMONSET: sets, GET_LEASE: leases, UPDATE_LEASE: leases}
    return Api(access, settings.namespace, named)


def compose_driver(settings: ClusterSettings) -> Driver:
    """Return the parts that act on the cluster; nothing is asked or changed yet.

    Raises:
        BadInput: The file does not fit a cluster.
    """
    share, api = share_of(settings), api_of(settings)
    releases = compose_releases(
        settings.root / "store", settings.trust, product=settings.product, channel=settings.channel
    )
    lease = DriverLease(api, share, holder_of(settings.root))
    cluster = KubernetesCluster(
        share,
        api,
        VouchedImages(releases),
        lease,
        Events(api, share, socket.gethostname()),
        up_within=settings.up_within,
        gone_within=settings.gone_within,
    )
    return Driver(cluster, lease, share)


def holder_of(root: Path) -> str:
    """Return by which name the lease knows the driver of this folder, also when it is started anew."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    kept = root / "holder"
    if not kept.exists():
        write_whole(kept, f"{socket.gethostname()}_{uuid4()}")
    return kept.read_text().strip()


@contextmanager
def alone_in(root: Path) -> Iterator[None]:
    """Have no other driver of this folder while the block lasts.

    Raises:
        Conflict: There is one.
    """
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict(
                f"a driver runs in {root} already: end it, or give this one another root"
            ) from error
        yield
    finally:
        os.close(descriptor)


def cluster_activities(placement: PlacementActivities) -> list[Callable[..., Any]]:
    """Return the steps that workflows ask a cluster for."""
    return [
        placement.prepare_slot,
        placement.place_instance,
        placement.remove_instance,
        placement.look_at_nodes,
    ]


def files_of(settings: ClusterSettings) -> HostFiles:
    """Return where the driver keeps its certificate; BadInput where its file does not say."""
    return files_for(settings, settings.fleet, settings.name, "cluster")


async def connected(settings: ClusterSettings) -> Client:
    """Return a client of the relay, or of the engine; raises as `connected_for` does."""
    if settings.certificate is not None:
        files_of(settings).settle()
    return await connected_for(settings, settings.task_queue, only_logged, whose="cluster")


async def connected_worker(settings: ClusterSettings, activities: Sequence[Callable[..., Any]]) -> Worker:
    """Return a worker for the cluster's queue, with what lies in the files now.

    Raises:
        BadInput: Certificate, key and name do not belong together, or a file is not as it must be.
        NotAllowed: The relay refuses this certificate.
        Unavailable: The relay does not answer.
    """
    if settings.certificate is not None:
        files_of(settings).require_pair()
    return make_worker(
        await connected(settings),
        settings.task_queue,
        activities=activities,
        steps_at_once=PLACEMENTS_AT_ONCE,
    )


async def main(config: Path) -> None:
    """Run until told to stop; instances and their users need no driver."""
    keep_heaps_small()
    tell_of_unread_variables()
    settings = load_own(config, ClusterSettings)
    # As many calls wait for the API server as it keeps connections; the usual six would wait for each other.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(AT_ONCE))
    with alone_in(settings.root):
        driver = compose_driver(settings)
        make = partial(connected_worker, settings, cluster_activities(PlacementActivities(driver.cluster)))
        worker = SteadyWorker(await make(), make)
        beside = [asyncio.create_task(one) for one in _beside(settings, config, worker)]
        try:
            await run_until_told(worker)
        finally:
            for task in beside:
                task.cancel()
            await _let_go(driver)


def _beside(settings: ClusterSettings, config: Path, worker: SteadyWorker) -> Iterator[Any]:
    """Yield what goes on while the worker works."""
    if settings.certificate is not None:
        renewal = Renewal(files_of(settings), partial(ask_for_the_next, config, "cluster"))
        keep = partial(renewal.keep, partial(connected, settings), worker.exchange)
        yield begun_again("keeping the certificate good", keep)


async def _let_go(driver: Driver) -> None:
    """Have the next driver act at once; it waits some seconds where this fails."""
    try:
        async with asyncio.timeout(2):
            await driver.lease.let_go()
    except (PenstockError, TimeoutError) as error:
        _log.info("the lease %s is left to end by itself: %s", driver.share.lease, error)


if __name__ == "__main__":
    keep_to_itself()
    asyncio.run(main(Path(sys.argv[1])))
    leave(0)
