"""What the tests of the driver share: the chart's slots on a control plane, drivers, and orders."""

import asyncio
import base64
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import yaml

from activities.drivers.runtime.kubernetes.access import Access
from activities.drivers.runtime.kubernetes.api import Answer, Call
from activities.drivers.runtime.kubernetes.api import Api as DriverApi
from activities.drivers.runtime.kubernetes.cluster import KubernetesCluster
from activities.drivers.runtime.kubernetes.events import Events
from activities.drivers.runtime.kubernetes.lease import DriverLease
from activities.drivers.runtime.kubernetes.pace import Pace
from activities.drivers.runtime.kubernetes.rights import (
    GET_DAEMONSET,
    GET_LEASE,
    PATCH_DAEMONSET,
    UPDATE_LEASE,
)
from activities.drivers.runtime.kubernetes.words import Share
from deploy.cluster.api import Api, Json
from deploy.cluster.control_plane import ControlPlane
from deploy.kubernetes.chart import EXAMPLE, NAMESPACE, rendered
from policies.model.errors import PenstockError
from policies.model.operation import Operation
from policies.model.plan import ReleaseRef
from policies.model.refusals import SignerNotAllowed
from policies.model.value import Digest
from tests.patience import PATIENCE

T = TypeVar("T")

FLEET, CLUSTER, REPOSITORY = "edge", "west", "registry.example/vpn/edge"
ACCOUNT = f"{FLEET}-cluster"
AGENT = "penstock/test"
SETS = f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/penstock-{FLEET}"
BORNE = f"penstock.dev/{FLEET}"
CONTROLLERS = {"users": ["test:controller-manager", "test:scheduler", "test:kwok"]}
"""The control plane's own parts, as they are called here."""
KINDS = {"Namespace", "ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}
KINDS |= {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
SHARE = Share(
    fleet=FLEET,
    cluster=CLUSTER,
    namespace=NAMESPACE,
    slots={slot: f"{FLEET}-{slot}" for slot in "abc"},
    container="gateway",
    repository=REPOSITORY,
    bears={BORNE: "true"},
)


def release(number: int) -> ReleaseRef:
    """Return a release as a plan names it."""
    digest = f"sha256:{number:064x}"
    return ReleaseRef(digest=digest, product="ocserv", version=f"1.{number}", executable=digest)


def image(number: int) -> Digest:
    """Return the digest of that release's image; its pods are Ready at once."""
    return f"sha256:{'1' * 60}{number:04x}"


@dataclass
class Vouched:
    """Says of some releases which image they are, as the driver's own verification would."""

    images: dict[Digest, Digest] = field(default_factory=dict)
    kept: list[Digest] = field(default_factory=list)

    async def image_of(self, asked: ReleaseRef, source: str) -> Digest:
        if asked.digest not in self.images:
            raise SignerNotAllowed(f"nobody who may has signed {asked.version}")
        return self.images[asked.digest]

    async def no_way_back(self, asked: ReleaseRef, source: str) -> str:
        return "" if asked.digest in self.images else f"nobody who may has signed {asked.version}"

    def keep(self, known: Digest) -> None:
        self.kept.append(known)


class KilledError(BaseException):
    """The driver's process is gone: nothing of it goes on."""


class DyingApi(DriverApi):
    """Ends its process at one of its calls: before the server hears of it, or before the answer is read."""

    calls, dies_at, after = 0, 0, False
    dead = False

    def _send(self, call: Call) -> Answer:
        self.calls += 1
        if self.dead or (self.calls == self.dies_at and not self.after):
            self.dead = True
            raise KilledError
        answer = super()._send(call)
        if self.calls == self.dies_at:
            self.dead = True
            raise KilledError
        return answer


@dataclass(frozen=True)
class Driven:
    """A driver and what it is made of."""

    cluster: KubernetesCluster
    api: DriverApi
    lease: DriverLease
    vouched: Vouched

    async def prepare(self, number: int, *, epoch: int = 1, rollout: str = "first") -> str:
        """Return the slot that holds that release."""
        self.vouched.images.setdefault(release(number).digest, image(number))
        return (await self.cluster.prepare(order(CLUSTER, epoch, rollout), release(number), "")).slot


def driver(
    plane: ControlPlane,
    *,
    server: str | None = None,
    kubeconfig: Path | None = None,
    holder: str = "driver-1",
    patience: float = 20.0,
    up: float = 30.0,
    gone: float = 30.0,
    kind: type[DriverApi] = DriverApi,
    pace: Pace | None = None,
) -> Driven:
    """Return a driver with the rights of the chart's account, behind a proxy where `server` names one."""
    known = kubeconfig or account_file(plane, server)
    sets, leases = tuple(SHARE.slots.values()), (SHARE.lease,)
    names = {GET_DAEMONSET: sets, PATCH_DAEMONSET: sets, GET_LEASE: leases, UPDATE_LEASE: leases}
    api = kind(Access(known, AGENT), NAMESPACE, names, pace=pace, patience=patience)
    lease, vouched = DriverLease(api, SHARE, holder), Vouched()
    events = Events(api, SHARE, "here")
    cluster = KubernetesCluster(
        SHARE,
        api,
        vouched,
        lease,
        events,
        up_within=timedelta(seconds=up),
        gone_within=timedelta(seconds=gone),
    )
    return Driven(cluster, api, lease, vouched)


def account_file(plane: ControlPlane, server: str | None = None) -> Path:
    """Return a kubeconfig of the chart's account."""
    return plane.kubeconfig("driver", server=server, token=plane.admin.token(NAMESPACE, ACCOUNT))


def order(gateway: str, epoch: int = 1, rollout: str = "first", step: str = "step") -> Operation:
    """Return one step of a change; epochs are small, so that none is ahead of any clock."""
    return Operation(rollout=rollout, epoch=epoch, gateway=gateway, step=step, digest=image(0))


async def until_done(step: Callable[[], Awaitable[T]]) -> T:
    """Repeat a step as the engine does: after errors that a repeat may mend."""
    ends = time.monotonic() + PATIENCE
    while True:
        try:
            return await step()
        except PenstockError as error:
            if not error.retryable or time.monotonic() > ends:
                raise
            await asyncio.sleep(0.2)


def installed() -> list[Json]:
    """Return the chart's namespace, rights, policies and slots; without agents and orchestrator."""
    text = rendered(EXAMPLE, {"namespace": {"make": True}, "controllers": CONTROLLERS})
    every = [one for one in yaml.safe_load_all(text) if one]
    wanted = [one for one in every if one["kind"] in KINDS or one["metadata"]["name"] in SHARE.slots.values()]
    return sorted(wanted, key=lambda one: str(one["kind"]) != "Namespace")


def reset(admin: Api) -> None:
    """Have no node, no instance and no lease, and the slots as the chart makes them."""
    for node in admin.every("/api/v1/nodes"):
        admin.delete(f"/api/v1/nodes/{node['metadata']['name']}")
    for pod in admin.every(PODS):
        admin.delete(f"{PODS}/{pod['metadata']['name']}", gracePeriodSeconds=0)
    for name in SHARE.slots.values():
        admin.until(f"{SETS}/{name}", _is_unused)
        admin.delete(f"{SETS}/{name}")
        admin.until(f"{SETS}/{name}", lambda found: found is None)
    for manifest in installed():
        if manifest["kind"] == "DaemonSet":
            admin.apply(manifest, manager="installer")
    admin.delete(LEASE)


def _is_unused(found: Json | None) -> bool:
    counted = ("desiredNumberScheduled", "currentNumberScheduled")
    return found is None or not any(found["status"].get(count) for count in counted)


def pods(admin: Api, node: str | None = None) -> list[Json]:
    """Return the instances of the fleet, on one node or on all."""
    found = admin.every(PODS, labelSelector=f"penstock.dev/fleet={FLEET}")
    return [one for one in found if node in (None, one["spec"].get("nodeName"))]


def labels(admin: Api, node: str) -> dict[str, str]:
    """Return our labels of a node, without what is in front of all of them."""
    found: dict[str, str] = admin.get(f"/api/v1/nodes/{node}")["metadata"]["labels"]
    prefix = f"penstock.dev/{FLEET}."
    return {key.removeprefix(prefix): value for key, value in found.items() if key.startswith(prefix)}


def label(node: str, admin: Api, **changed: str | None) -> None:
    """Change labels of ours as somebody else."""
    said = {f"penstock.dev/{FLEET}.{key}": value for key, value in changed.items()}
    admin.merge(f"/api/v1/nodes/{node}", {"metadata": {"labels": said}})


def inline(kubeconfig: Path, into: Path) -> Path:
    """Return a kubeconfig that holds what the other one names files of."""
    content: Any = yaml.safe_load(kubeconfig.read_text())
    for cluster in content["clusters"]:
        authority = Path(cluster["cluster"].pop("certificate-authority")).read_bytes()
        cluster["cluster"]["certificate-authority-data"] = base64.b64encode(authority).decode()
    into.touch(mode=0o600)
    into.write_text(yaml.safe_dump(content))
    return into
