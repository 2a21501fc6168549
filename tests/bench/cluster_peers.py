"""What others take for the same upgrade on the same API server: `kubectl rollout`, and Argo Rollouts."""

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.cluster import programs
from deploy.cluster.api import Api, Json
from deploy.cluster.control_plane import ControlPlane
from deploy.cluster.identities import Person
from deploy.lab.processes import Process
from deploy.ports import free_port
from tests.cluster.gateways import GOOD, daemon_set, path, slow

ARGO, KUBECTL = (
    Person("argo", "argo", ("system:masters",)),
    Person("kubectl", "kubectl", ("system:masters",)),
)
"""Known by their user, so that the audit log counts what each of them asks."""
READY_AFTER = 2
"""Seconds that a new pod takes to be Ready, whoever upgrades it."""
SETS = (*programs.CONTROL_PLANE, "argo-rollouts")
_NEW = slow(READY_AFTER)
_ROLLOUTS = "/apis/argoproj.io/v1alpha1/namespaces/{space}/rollouts"
_WITHIN = 1800.0
_POLL = 0.05
_KEY = "argoproj.io/v1alpha1"


@dataclass(frozen=True)
class Taken:
    """What one upgrade took."""

    seconds: float
    calls: int
    """Of whoever upgrades; not of Kubernetes' own controllers."""


def kubectl_rollout(plane: ControlPlane, space: str, many: int, window: int) -> tuple[Taken, float]:
    """Upgrade a DaemonSet on so many nodes, so many at once; also return how long an undo takes to serve."""
    admin, where = plane.admin, path(space, "peer")
    manifest = daemon_set(space, "peer", GOOD)
    manifest["spec"]["updateStrategy"] = {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": window, "maxSurge": 0},
    }
    admin.apply(manifest)
    admin.until(where, lambda found: found and found["status"].get("numberReady") == many, within=_WITHIN)
    place, begun = plane.audit.position(), time.monotonic()
    _kubectl(plane, space, "set", "image", "daemonset/peer", f"gateway={_NEW}")
    _kubectl(plane, space, "rollout", "status", "daemonset/peer", f"--timeout={_WITHIN:g}s")
    took = Taken(time.monotonic() - begun, _calls(plane, place, KUBECTL.user))
    undone = time.monotonic()
    _kubectl(plane, space, "rollout", "undo", "daemonset/peer")
    _kubectl(plane, space, "rollout", "status", "daemonset/peer", f"--timeout={_WITHIN:g}s")
    back = time.monotonic() - undone
    admin.delete(where)
    _until_empty(admin, space)
    return took, back


@contextmanager
def argo_controller(plane: ControlPlane) -> Iterator[None]:
    """Have Argo's controller work for the length of the block."""
    folder = programs.SETS["argo-rollouts"].folder
    for file in sorted(folder.glob("*-crd.yaml")):
        plane.admin.apply_all(file.read_text())
    plane.admin.until(
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/rollouts.argoproj.io", _is_established
    )
    plane.admin.until(f"/apis/{_KEY}", _lists_rollouts)
    command: list[str | Path] = [
        programs.program("rollouts-controller"),
        f"--kubeconfig={plane.kubeconfig(ARGO.name)}",
        "--leader-elect=false",
        "--loglevel=warn",
        "--qps=500",
        "--burst=1000",
        f"--metricsPort={free_port()}",
        f"--healthzPort={free_port()}",
    ]
    controller = Process("rollouts-controller", command, log=plane.folder / "rollouts-controller.log")
    controller.start()
    try:
        yield
    finally:
        controller.stop()


def argo_rollout(plane: ControlPlane, space: str, many: int, weights: Sequence[int]) -> tuple[Taken, float]:
    """Upgrade so many pods by these weights; also return how long an abort at a quarter takes to serve.

    The pods stay: nothing is measured after this.
    """
    admin = plane.admin
    where = f"{_ROLLOUTS.format(space=space)}/peer"
    admin.apply(_rollout(space, many, [{"setWeight": weight} for weight in weights]))
    admin.until(where, lambda found: _is_done(found, many), within=_WITHIN)
    place, begun = plane.audit.position(), time.monotonic()
    admin.merge(where, {"spec": {"template": {"spec": {"containers": [_container(_NEW)]}}}})
    admin.until(where, lambda found: _is_done(found, many), within=_WITHIN)
    took = Taken(time.monotonic() - begun, _calls(plane, place, ARGO.user))
    return took, _aborted(admin, where, many)


def _aborted(admin: Api, where: str, many: int) -> float:
    steps = [{"setWeight": 25}, {"pause": {}}]
    changed = {
        "strategy": {"canary": {"steps": steps}},
        "template": {"spec": {"containers": [_container(GOOD)]}},
    }
    admin.merge(where, {"spec": changed})
    admin.until(where, lambda found: found and found["status"].get("pauseConditions"), within=_WITHIN)
    begun = time.monotonic()
    admin.merge(f"{where}/status", {"status": {"abort": True}})
    admin.until(where, lambda found: _is_back(found, many), within=_WITHIN, poll=_POLL)
    return time.monotonic() - begun


def _rollout(space: str, many: int, steps: list[Json]) -> Json:
    return {
        "apiVersion": _KEY,
        "kind": "Rollout",
        "metadata": {"name": "peer", "namespace": space},
        "spec": {
            "replicas": many,
            "selector": {"matchLabels": {"app": "peer"}},
            "strategy": {"canary": {"maxSurge": "100%", "maxUnavailable": 0, "steps": steps}},
            "template": {
                "metadata": {"labels": {"app": "peer"}},
                "spec": {"containers": [_container(GOOD)]},
            },
        },
    }


def _container(image: str) -> Json:
    return {"name": "gateway", "image": image}


def _is_done(found: Json | None, many: int) -> bool:
    if found is None or "status" not in found:
        return False
    said = found["status"]
    seen = said.get("observedGeneration") == str(found["metadata"]["generation"])
    counts = {said.get(name) for name in ("replicas", "updatedReplicas", "availableReplicas")}
    return seen and said.get("phase") == "Healthy" and counts == {many}


def _is_back(found: Json | None, many: int) -> bool:
    said = (found or {}).get("status", {})
    return (
        bool(said.get("abort"))
        and not said.get("updatedReplicas")
        and said.get("readyReplicas") == said.get("replicas") == many
    )


def _lists_rollouts(found: Json | None) -> bool:
    """Whether the server names the resource where clients look for it, a moment after it is established."""
    return found is not None and any(one["name"] == "rollouts" for one in found.get("resources") or ())


def _is_established(found: Json | None) -> bool:
    conditions = (found or {}).get("status", {}).get("conditions") or []
    return any(one["type"] == "Established" and one["status"] == "True" for one in conditions)


def _until_empty(admin: Api, space: str) -> None:
    """Wait until the pods are gone: the next measurement has the same server."""
    end = time.monotonic() + _WITHIN
    while admin.get(f"/api/v1/namespaces/{space}/pods", limit=1)["items"] and time.monotonic() < end:
        time.sleep(_POLL)


def _calls(plane: ControlPlane, place: int, user: str) -> int:
    return sum(request.user == user for request in plane.audit.since(place))


def _kubectl(plane: ControlPlane, space: str, *arguments: str) -> None:
    known = f"--kubeconfig={plane.kubeconfig(KUBECTL.name)}"
    command: list[str | Path] = [programs.program("kubectl"), known, f"--namespace={space}", *arguments]
    subprocess.run(command, check=True, capture_output=True, timeout=_WITHIN)
