"""Small workloads for the tests of a cluster: pods that stand where gateways would."""

from collections.abc import Mapping
from typing import Any

from deploy.cluster.api import Api, Json

REPOSITORY = "registry.test/gateway"
GOOD = f"{REPOSITORY}@sha256:{'0' * 64}"
NEVER_PULLED = f"{REPOSITORY}@sha256:{'bad0' * 16}"
CRASHING = f"{REPOSITORY}@sha256:{'dead' * 16}"


def slow(seconds: int) -> str:
    """Return an image whose pods are Ready after so many seconds, below ten."""
    return f"{REPOSITORY}@sha256:5ec0{seconds}{'0' * 59}"


def daemon_set(
    space: str,
    name: str,
    image: str = GOOD,
    *,
    selector: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    grace: int = 30,
) -> Json:
    """Return a DaemonSet as slots have it: OnDelete, on the host's network, on nodes with these labels."""
    pod: dict[str, Any] = {
        "hostNetwork": True,
        "nodeSelector": dict(selector or {}),
        "terminationGracePeriodSeconds": grace,
        "tolerations": [{"operator": "Exists"}],
        "containers": [{"name": "gateway", "image": image}],
    }
    about = {"labels": {"app": name}, "annotations": dict(annotations or {})}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": name, "namespace": space},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "updateStrategy": {"type": "OnDelete"},
            "template": {"metadata": about, "spec": pod},
        },
    }


def pods(admin: Api, space: str) -> list[Json]:
    """Return the pods of a namespace."""
    return admin.every(f"/api/v1/namespaces/{space}/pods")


def is_ready(pod: Json) -> bool:
    """Say whether a pod calls itself Ready."""
    conditions = pod["status"].get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def settled(many: int) -> Any:
    """Return what holds of a DaemonSet all of whose pods, so many, are Ready."""
    return lambda found: found is not None and found["status"].get("numberReady") == many


def path(space: str, name: str) -> str:
    """Return where a DaemonSet is."""
    return f"/apis/apps/v1/namespaces/{space}/daemonsets/{name}"
