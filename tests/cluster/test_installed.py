"""The manifests on a real API server: they are taken, they hold what they promise, and stop nobody else."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from deploy.cluster import programs
from deploy.cluster.api import APPLY, MERGE, Answered, Api, Json, make_nodes
from deploy.cluster.control_plane import Choices, ControlPlane, running
from deploy.cluster.identities import Person
from deploy.kubernetes.chart import EXAMPLE, NAMESPACE, rendered

MISSING = programs.why_not_here(*programs.CONTROL_PLANE, "helm")
pytestmark = pytest.mark.skipif(MISSING is not None, reason=MISSING or "")

ALL_RIGHTS = ("system:masters",)
STRANGER = Person("stranger", "somebody", ALL_RIGHTS)
NAMED = Person("named", "ana", (*ALL_RIGHTS, "penstock:administrators"))
CONTROLLERS = {"users": ["test:controller-manager", "test:scheduler", "test:kwok"]}
"""The control plane's own parts, as they are called here."""
REPOSITORY = "registry.example/vpn/edge"
DIGEST = f"sha256:{'a' * 64}"
NODE, OTHER = "/api/v1/nodes/worker-1", "/api/v1/nodes/worker-2"
SLOTS = f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
INVALID, FORBIDDEN, MADE, TOO_MANY = 422, 403, 201, 429


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    choices = Choices(people=(STRANGER, NAMED))
    with running(tmp_path_factory.mktemp("plane"), choices) as plane:
        make_nodes(plane.admin, ["worker-1", "worker-2"])
        for manifest in installed():
            plane.admin.ask(
                "PATCH", plane.admin.path_of(manifest), manifest, content=APPLY, **strictly("installer")
            )
        plane.admin.until(NODE, lambda node: guarded(plane))
        yield plane


def guarded(plane: ControlPlane) -> bool:
    """Whether policies are in force: the API server begins with them a moment after they are there."""
    try:
        plane.api("stranger").ask(
            "PATCH", NODE, label("penstock.dev/probe", "x"), content=MERGE, dryRun="All"
        )
    except Answered as answer:
        return answer.status == INVALID
    return False


def strictly(manager: str) -> dict[str, str]:
    return {"fieldManager": manager, "force": "true", "fieldValidation": "Strict"}


def installed() -> list[Json]:
    made = {"namespace": {"make": True}, "controllers": CONTROLLERS}
    text = rendered(EXAMPLE, made)
    found = [one for one in yaml.safe_load_all(text) if one]
    return sorted(found, key=lambda one: str(one["kind"]) != "Namespace")


@pytest.fixture
def driver(plane: ControlPlane) -> Iterator[Api]:
    token = plane.admin.token(NAMESPACE, "edge-cluster")
    with_rights = plane.api("driver", token=token)
    yield with_rights
    with_rights.close()


@pytest.fixture
def stranger(plane: ControlPlane) -> Iterator[Api]:
    """Somebody who may do everything that RBAC knows."""
    api = plane.api("stranger")
    yield api
    api.close()


@pytest.fixture
def named(plane: ControlPlane) -> Iterator[Api]:
    """An administrator of penstock."""
    api = plane.api("named")
    yield api
    api.close()


def label(key: str, value: str | None) -> Json:
    return {"metadata": {"labels": {key: value}}}


def refusal(api: Api, method: str, path: str, body: Any = None, *, content: str = MERGE, **query: Any) -> str:
    """What is said to somebody whom a policy refuses."""
    with pytest.raises(Answered) as refused:
        api.ask(method, path, body, content=content, **query)
    assert refused.value.status == INVALID, refused.value
    return str(refused.value)


@pytest.fixture
def served(plane: ControlPlane, driver: Api) -> Iterator[str]:
    """Slot a with a pod on a node, as after an upgrade; the name of the pod."""
    driver.merge(NODE, label("penstock.dev/edge.a", "true"))
    yield pod_of(plane, "a")
    driver.merge(NODE, label("penstock.dev/edge.a", None))
    plane.admin.until(f"{SLOTS}/edge-a", lambda one: one and not one["status"]["currentNumberScheduled"])


def pod_of(plane: ControlPlane, slot: str) -> str:
    plane.admin.until(f"{SLOTS}/edge-{slot}", lambda one: one and one["status"].get("numberReady") == 1)
    (pod,) = plane.admin.every(PODS, labelSelector=f"penstock.dev/slot={slot}")
    return str(pod["metadata"]["name"])


def test_every_manifest_is_taken_again_without_a_change_or_a_warning(plane: ControlPlane) -> None:
    for manifest in installed():
        path = plane.admin.path_of(manifest)
        before = plane.admin.get(path)["metadata"]
        plane.admin.ask("PATCH", path, manifest, content=APPLY, dryRun="All", **strictly("installer"))
        after = plane.admin.ask("PATCH", path, manifest, content=APPLY, **strictly("installer"))["metadata"]
        assert (after["uid"], after.get("generation")) == (before["uid"], before.get("generation")), path


def test_the_api_server_finds_no_fault_with_the_expressions_of_any_policy(plane: ControlPlane) -> None:
    for policy in plane.admin.every(f"{ADMISSION}/validatingadmissionpolicies"):
        path = f"{ADMISSION}/validatingadmissionpolicies/{policy['metadata']['name']}"
        checked = plane.admin.until(path, lambda one: one and "typeChecking" in one.get("status", {}))
        assert checked is not None
        assert checked["status"]["typeChecking"] == {}, path


ADMISSION = "/apis/admissionregistration.k8s.io/v1"


def test_the_driver_gives_a_node_a_slot_and_takes_it_away(
    plane: ControlPlane, driver: Api, served: str
) -> None:
    assert served.startswith("edge-a-")
    driver.merge(NODE, label("penstock.dev/edge.epoch", "7"))
    driver.merge(NODE, label("penstock.dev/edge.epoch", None))


NODE_CHANGES: dict[str, tuple[Json, str]] = {
    "another label": (label("team", "vpn"), "only change labels of nodes below penstock.dev/"),
    "the host's name": (label("kubernetes.io/hostname", "x"), "only change labels of nodes below"),
    "a label that looks like ours": (
        label("penstock.dev.evil/edge.a", "true"),
        "only change labels of nodes",
    ),
    "another fleet's label": (label("penstock.dev/core.a", "true"), "those of its own fleet"),
    "the fleet's own mark": (label("penstock.dev/edge", None), "those of its own fleet"),
    "an annotation": ({"metadata": {"annotations": {"penstock.dev/x": "y"}}}, "may not change annotations"),
    "a finalizer": ({"metadata": {"finalizers": ["penstock.dev/x"]}}, "may not change finalizers"),
    "a cordon": ({"spec": {"unschedulable": True}}, "may not change the spec of a node"),
    "a taint": ({"spec": {"taints": [{"key": "x", "effect": "NoExecute"}]}}, "may not change the spec"),
}


@pytest.mark.parametrize("case", NODE_CHANGES)
def test_the_driver_changes_nothing_else_of_a_node(case: str, driver: Api, named: Api) -> None:
    body, sentence = NODE_CHANGES[case]
    named.merge(NODE, label("penstock.dev/edge", "true"))
    assert sentence in refusal(driver, "PATCH", NODE, body)
    named.ask("PATCH", NODE, body, content=MERGE, dryRun="All")


def test_the_driver_makes_no_node_though_applying_an_absent_one_would(driver: Api) -> None:
    body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "worker-9"}}
    with pytest.raises(Answered) as refused:
        driver.ask("PATCH", "/api/v1/nodes/worker-9", body, content=APPLY, fieldManager="penstock")
    assert refused.value.status == FORBIDDEN


def image(reference: str, **more: Any) -> Json:
    """What the driver applies, and a few things more."""
    container = {"name": "gateway", "image": reference, **more.pop("container", {})}
    pod = {"containers": [container], **more.pop("pod", {})}
    template = {"metadata": {"annotations": {"penstock.dev/release": DIGEST}}, "spec": pod}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "edge-b", "namespace": NAMESPACE},
        "spec": {"updateStrategy": {"type": "OnDelete"}, "template": template, **more},
    }


def test_a_free_slot_holds_the_image_that_the_driver_gives_it(plane: ControlPlane, driver: Api) -> None:
    wanted = f"{REPOSITORY}@{DIGEST}"
    driver.ask(
        "PATCH", f"{SLOTS}/edge-b", image(wanted), content=APPLY, fieldManager="penstock", force="true"
    )
    held = plane.admin.get(f"{SLOTS}/edge-b")
    assert held["spec"]["template"]["spec"]["containers"][0]["image"] == wanted
    assert held["spec"]["template"]["metadata"]["annotations"]["penstock.dev/release"] == DIGEST


GATEWAY = {"name": "gateway", "image": f"{REPOSITORY}@{DIGEST}"}
ROOT_OF_THE_NODE = {"name": "root", "hostPath": {"path": "/"}}
SLOT_CHANGES: dict[str, tuple[Json, str]] = {
    "a tag": (image(f"{REPOSITORY}:1.4.1"), f"only taken by digest from {REPOSITORY}"),
    "a tag with a digest": (image(f"{REPOSITORY}:1.4.1@{DIGEST}"), "only taken by digest from"),
    "another repository": (image(f"registry.example/evil@{DIGEST}"), "only taken by digest from"),
    "a longer repository": (image(f"{REPOSITORY}-evil@{DIGEST}"), "only taken by digest from"),
    "a short digest": (image(f"{REPOSITORY}@sha256:abc"), "only taken by digest from"),
    "a rolling update": (
        image(f"{REPOSITORY}@{DIGEST}", updateStrategy={"type": "RollingUpdate"}),
        "a slot's DaemonSet stays OnDelete",
    ),
    "a command": (image(f"{REPOSITORY}@{DIGEST}", container={"args": ["-x"]}), "only its image"),
    "privileges": (
        image(
            f"{REPOSITORY}@{DIGEST}",
            container={"securityContext": {"privileged": True, "allowPrivilegeEscalation": True}},
        ),
        "only its image",
    ),
    "the node's disk": (
        image(f"{REPOSITORY}@{DIGEST}", pod={"volumes": [ROOT_OF_THE_NODE]}),
        "only its image",
    ),
    "a second container": (
        image(f"{REPOSITORY}@{DIGEST}", pod={"containers": [GATEWAY, {**GATEWAY, "name": "other"}]}),
        "only its image",
    ),
    "the node's processes": (image(f"{REPOSITORY}@{DIGEST}", pod={"hostPID": True}), "only its image"),
    "a short grace": (
        image(f"{REPOSITORY}@{DIGEST}", pod={"terminationGracePeriodSeconds": 1}),
        "only its image",
    ),
    "an account": (
        image(f"{REPOSITORY}@{DIGEST}", pod={"serviceAccountName": "edge-cluster"}),
        "only its image",
    ),
    "other nodes": (
        image(f"{REPOSITORY}@{DIGEST}", pod={"nodeSelector": {"x": "y"}}),
        "where a slot's pods run",
    ),
}


@pytest.mark.parametrize("case", SLOT_CHANGES)
def test_the_driver_changes_nothing_else_of_a_slot(case: str, driver: Api, named: Api) -> None:
    body, sentence = SLOT_CHANGES[case]
    asked = {"content": APPLY, "fieldManager": "penstock", "force": "true", "dryRun": "All"}
    assert sentence in refusal(driver, "PATCH", f"{SLOTS}/edge-b", body, **asked)
    if "OnDelete" not in sentence:
        named.ask("PATCH", f"{SLOTS}/edge-b", body, **asked)


def test_the_driver_touches_no_workload_that_is_not_a_slot_of_its_fleet(driver: Api) -> None:
    for path in (f"{SLOTS}/edge-agent", f"{SLOTS}/core-a", SLOTS):
        with pytest.raises(Answered) as refused:
            driver.get(path)
        assert refused.value.status == FORBIDDEN


def test_nobody_changes_a_slot_that_a_node_has_but_named_administrators(
    driver: Api, stranger: Api, named: Api, served: str
) -> None:
    body = image(f"{REPOSITORY}@{DIGEST}")
    body["metadata"]["name"] = "edge-a"
    asked = {"content": APPLY, "fieldManager": "penstock", "force": "true", "dryRun": "All"}
    for api in (driver, stranger):
        assert "nodes have this slot" in refusal(api, "PATCH", f"{SLOTS}/edge-a", body, **asked)
    assert "nodes have this slot" in refusal(stranger, "DELETE", f"{SLOTS}/edge-a", dryRun="All")
    named.ask("PATCH", f"{SLOTS}/edge-a", body, **asked)
    named.ask("DELETE", f"{SLOTS}/edge-a", dryRun="All")
    stranger.merge(f"{SLOTS}/edge-a", {"metadata": {"annotations": {"note": "of somebody"}}})


def test_no_stranger_takes_a_slot_off_a_node_or_gives_it_one(stranger: Api, named: Api, served: str) -> None:
    for body in (
        label("penstock.dev/edge.a", None),
        label("penstock.dev/edge.a", "x"),
        label("penstock.dev/b", "x"),
    ):
        for path in (NODE, f"{NODE}/status"):
            assert "only penstock's driver changes them" in refusal(stranger, "PATCH", path, body)
    stranger.merge(NODE, label("team", "vpn"))
    stranger.merge(NODE, {"spec": {"unschedulable": True}})
    stranger.merge(NODE, {"spec": {"unschedulable": None}})
    named.ask("PATCH", NODE, label("penstock.dev/edge.a", None), content=MERGE, dryRun="All")


def test_no_stranger_deletes_the_node_of_a_gateway(stranger: Api, named: Api, served: str) -> None:
    assert "this node is a VPN gateway" in refusal(stranger, "DELETE", NODE, dryRun="All")
    stranger.ask("DELETE", OTHER, dryRun="All")
    named.ask("DELETE", NODE, dryRun="All")


def test_no_stranger_deletes_a_gateways_pod_by_force_or_without(
    stranger: Api, named: Api, served: str
) -> None:
    for more in ({}, {"gracePeriodSeconds": 0}):
        assert "this pod is a VPN gateway" in refusal(
            stranger, "DELETE", f"{PODS}/{served}", dryRun="All", **more
        )
    named.ask("DELETE", f"{PODS}/{served}", dryRun="All")


def test_an_eviction_of_a_gateway_is_answered_that_there_are_too_many(
    plane: ControlPlane, stranger: Api, served: str
) -> None:
    budget = f"/apis/policy/v1/namespaces/{NAMESPACE}/poddisruptionbudgets/penstock-gateways"
    plane.admin.until(budget, lambda one: one and one.get("status", {}).get("currentHealthy") == 1)
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": served, "namespace": NAMESPACE},
    }
    with pytest.raises(Answered) as refused:
        stranger.post(f"{PODS}/{served}/eviction", eviction)
    assert refused.value.status == TOO_MANY
    assert re.search(r"needs 100000 healthy pods", str(refused.value))


def test_a_node_that_is_drained_keeps_its_gateway(plane: ControlPlane, served: str) -> None:
    plane.admin.merge(NODE, {"spec": {"unschedulable": True}})
    try:
        assert pod_of(plane, "a") == served
    finally:
        plane.admin.merge(NODE, {"spec": {"unschedulable": None}})
