"""The manifests on a real API server: they are taken, they hold what they promise, and stop nobody else."""

import json
import os
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.cluster import programs
from deploy.cluster.api import APPLY, JSON_PATCH, MERGE, Answered, Api, Json, make_nodes
from deploy.cluster.control_plane import Choices, ControlPlane, running
from deploy.cluster.identities import Person
from deploy.kubernetes.chart import CHART, EXAMPLE, MANIFESTS, NAMESPACE
from tests.cluster import building

ALL_RIGHTS = ("system:masters",)
STRANGER = Person("stranger", "somebody", ALL_RIGHTS)
NAMED = Person("named", "ana", (*ALL_RIGHTS, "penstock:administrators"))
KUBELET = Person("kubelet", "system:node:worker-8", (*ALL_RIGHTS, "system:nodes"))
CONTROLLERS = {"users": ["test:controller-manager", "test:scheduler", "test:kwok"]}
"""The control plane's own parts, as they are called here."""
REPOSITORY = "registry.example/vpn/edge"
DIGEST = f"sha256:{'a' * 64}"
NODES = "/api/v1/nodes"
NODE, OTHER = f"{NODES}/worker-1", f"{NODES}/worker-2"
SLOTS = f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
BUDGET = f"/apis/policy/v1/namespaces/{NAMESPACE}/poddisruptionbudgets/penstock-gateways"
STRATEGIC = "application/strategic-merge-patch+json"
INVALID, FORBIDDEN, MADE, TOO_MANY = 422, 403, 201, 429


@pytest.fixture(scope="module")
def installed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator["Helm"]:
    """A cluster in which Helm has installed the chart, as docs/kubernetes.md says."""
    building.insist(request)
    folder = tmp_path_factory.mktemp("installed")
    with running(folder / "plane", Choices(people=(STRANGER, NAMED, KUBELET))) as plane:
        make_nodes(plane.admin, ["worker-1", "worker-2"])
        plane.admin.apply_all((MANIFESTS / "namespace.yaml").read_text())
        helm = Helm(plane, folder)
        helm.run("install")
        plane.admin.until(NODE, lambda node: guarded(plane))
        yield helm


class Helm:
    """Helm itself, run by an administrator of penstock, or by another person."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self.plane = plane
        self._folder = folder

    def run(self, verb: str, who: str = "named", **values: Any) -> "subprocess.CompletedProcess[str]":
        """Install or upgrade the chart with the example's values and these."""
        own = self._folder / "values.json"
        own.write_text(json.dumps({"controllers": CONTROLLERS, **values}))
        command: list[str | Path] = [
            programs.program("helm"),
            verb,
            "penstock",
            CHART,
            "--namespace",
            NAMESPACE,
        ]
        return subprocess.run(
            [*command, "--values", EXAMPLE, "--values", own],
            env=os.environ | {"KUBECONFIG": str(self.plane.kubeconfig(who)), "HOME": str(self._folder)},
            capture_output=True,
            text=True,
            timeout=120,
            check=not values,
        )


@pytest.fixture
def plane(installed: Helm) -> ControlPlane:
    return installed.plane


def guarded(plane: ControlPlane) -> bool:
    """Whether policies are in force: the API server begins with them a moment after they are there."""
    try:
        plane.api("stranger").ask(
            "PATCH", NODE, label("penstock.dev/probe", "x"), content=MERGE, dryRun="All"
        )
    except Answered as answer:
        return answer.status == INVALID
    return False


def plain() -> Iterator[Json]:
    """Every plain manifest."""
    for path in sorted(MANIFESTS.glob("*.yaml")):
        yield from filter(None, yaml.safe_load_all(path.read_text()))


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
def served(plane: ControlPlane, driver: Api, named: Api) -> Iterator[str]:
    """Slot a with a pod on a node, as after an upgrade; the name of the pod."""
    named.merge(NODE, label("penstock.dev/edge", "true"))
    driver.merge(NODE, label("penstock.dev/edge.a", "true"))
    yield pod_of(plane, "a")
    driver.merge(NODE, label("penstock.dev/edge.a", None))
    plane.admin.until(f"{SLOTS}/edge-a", lambda one: one and not one["status"]["currentNumberScheduled"])


def pod_of(plane: ControlPlane, slot: str) -> str:
    plane.admin.until(f"{SLOTS}/edge-{slot}", lambda one: one and one["status"].get("numberReady") == 1)
    (pod,) = plane.admin.every(PODS, labelSelector=f"penstock.dev/slot={slot}")
    return str(pod["metadata"]["name"])


def test_every_plain_manifest_is_what_was_installed_without_an_unknown_field(plane: ControlPlane) -> None:
    asked = {"fieldManager": "test", "force": "true", "fieldValidation": "Strict", "dryRun": "All"}
    for manifest in plain():
        path = plane.admin.path_of(manifest)
        before = plane.admin.get(path)["metadata"]
        after = plane.admin.ask("PATCH", path, manifest, content=APPLY, **asked)["metadata"]
        changed = manifest["kind"] == "ValidatingAdmissionPolicy"  # controllers have other names here
        assert after["uid"] == before["uid"]
        assert changed or after.get("generation") == before.get("generation"), path


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


OWNER = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "name": "gone",
    "uid": "8f0b6f0e-0000-4000-8000-000000000000",
}
"""Nothing that there is: the garbage collector deletes what it owns."""
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
    "an owner": ({"metadata": {"ownerReferences": [OWNER]}}, "may not change owners of nodes"),
    "a taint": ({"spec": {"taints": [{"key": "x", "effect": "NoExecute"}]}}, "may not change the spec"),
}


@pytest.mark.parametrize("case", NODE_CHANGES)
def test_the_driver_changes_nothing_else_of_a_node(case: str, driver: Api, named: Api) -> None:
    body, sentence = NODE_CHANGES[case]
    named.merge(NODE, label("penstock.dev/edge", "true"))
    assert sentence in refusal(driver, "PATCH", NODE, body)
    named.ask("PATCH", NODE, body, content=MERGE, dryRun="All")


def test_the_driver_gives_a_slot_to_no_node_that_is_not_its_fleets_and_takes_it_from_any(
    driver: Api, named: Api, served: str
) -> None:
    del served
    named.merge(NODE, label("penstock.dev/edge", None))
    try:
        for key, value in (("penstock.dev/edge.b", "true"), ("penstock.dev/edge.a", "x")):
            assert "does not bear the fleet's label" in refusal(driver, "PATCH", NODE, label(key, value))
        driver.ask("PATCH", NODE, label("penstock.dev/edge.a", None), content=MERGE, dryRun="All")
    finally:
        named.merge(NODE, label("penstock.dev/edge", "true"))


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


def of_template(**metadata: Json) -> Json:
    """The same with more in the template's metadata."""
    body = image(f"{REPOSITORY}@{DIGEST}")
    body["spec"]["template"]["metadata"] |= metadata
    return body


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
    "an owner": (
        image(f"{REPOSITORY}@{DIGEST}") | {"metadata": {"name": "edge-b", "ownerReferences": [OWNER]}},
        "owners",
    ),
    "another scheduler": (image(f"{REPOSITORY}@{DIGEST}", pod={"schedulerName": "other"}), "only its image"),
    "one node": (image(f"{REPOSITORY}@{DIGEST}", pod={"nodeName": "worker-1"}), "only its image"),
    "a pull secret": (
        image(f"{REPOSITORY}@{DIGEST}", pod={"imagePullSecrets": [{"name": "theirs"}]}),
        "only its image",
    ),
    "names of hosts": (
        image(f"{REPOSITORY}@{DIGEST}", pod={"hostAliases": [{"ip": "192.0.2.9", "hostnames": ["x"]}]}),
        "only its image",
    ),
    "a name server": (
        image(f"{REPOSITORY}@{DIGEST}", pod={"dnsConfig": {"nameservers": ["192.0.2.9"]}}),
        "only its image",
    ),
    "a limit of memory": (
        image(f"{REPOSITORY}@{DIGEST}", container={"resources": {"limits": {"memory": "1Gi"}}}),
        "only its image",
    ),
    "pulls at every start": (
        image(f"{REPOSITORY}@{DIGEST}", container={"imagePullPolicy": "Always"}),
        "only its image",
    ),
    "what runs first": (
        image(f"{REPOSITORY}@{DIGEST}", pod={"initContainers": [{**GATEWAY, "name": "first"}]}),
        "only its image",
    ),
    "a readiness that takes long": (
        image(f"{REPOSITORY}@{DIGEST}", minReadySeconds=9),
        "beside its template",
    ),
    "another label of its pods": (of_template(labels={"team": "vpn"}), "nor what its pods are labelled"),
    "another annotation of its pods": (
        of_template(annotations={"team": "vpn"}),
        "only change annotations of a slot's pods below penstock.dev/",
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


def test_nobody_but_the_cluster_says_how_many_nodes_have_a_slot(
    plane: ControlPlane, stranger: Api, named: Api, served: str
) -> None:
    del served
    nobody = {"status": {"desiredNumberScheduled": 0, "currentNumberScheduled": 0}}
    path = f"{SLOTS}/edge-a/status"
    assert "counted by the cluster itself" in refusal(stranger, "PATCH", path, nobody)
    for api in (plane.api("controller-manager"), named):
        api.ask("PATCH", path, nobody, content=MERGE, dryRun="All")


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


def test_no_stranger_gives_a_gateways_node_a_slot_or_its_pod_or_its_budget_an_owner(
    stranger: Api, named: Api, served: str
) -> None:
    body = {"metadata": {"ownerReferences": [OWNER]}}
    for path, sentence in (
        (NODE, "this node is a VPN gateway, and would be deleted with an owner"),
        (f"{SLOTS}/edge-a", "a slot has the owners that it was made with"),
        (f"{SLOTS}/edge-b", "a slot has the owners that it was made with"),
        (f"{PODS}/{served}", "it would be deleted with another owner"),
        (BUDGET, "this budget would be deleted with an owner"),
    ):
        assert sentence in refusal(stranger, "PATCH", path, body)
        named.ask("PATCH", path, body, content=MERGE, dryRun="All")
    stranger.ask("PATCH", OTHER, body, content=MERGE, dryRun="All")


def test_nobody_registers_a_node_as_one_of_ours_but_administrators(
    plane: ControlPlane, driver: Api, stranger: Api, named: Api
) -> None:
    kubelet = plane.api("kubelet")
    node: Json = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "worker-8"}}
    node["metadata"]["labels"] = {"kubernetes.io/hostname": "worker-8", "team": "vpn"}
    for api in (stranger, kubelet, named):
        api.ask("POST", NODES, node, dryRun="All")
    for ours in ("penstock.dev/edge", "penstock.dev/edge.a", "penstock.dev/x"):
        labelled = {**node, "metadata": {"name": "worker-8", "labels": {ours: "true"}}}
        for api in (stranger, kubelet):
            assert "only penstock's driver changes them" in refusal(
                api, "POST", NODES, labelled, content="application/json", dryRun="All"
            )
        named.ask("POST", NODES, labelled, dryRun="All")


def test_no_stranger_deletes_a_gateways_pod_by_force_or_without(
    stranger: Api, named: Api, served: str
) -> None:
    by_force: dict[str, Any] = {"gracePeriodSeconds": 0}
    for more in ({}, by_force):
        assert "this pod is a VPN gateway" in refusal(
            stranger, "DELETE", f"{PODS}/{served}", dryRun="All", **more
        )
    named.ask("DELETE", f"{PODS}/{served}", dryRun="All")


EVIL = f"{REPOSITORY}@sha256:{'e' * 64}"
POD_CHANGES: dict[str, tuple[str, str, Any, str]] = {
    "another image": (
        "",
        JSON_PATCH,
        [{"op": "replace", "path": "/spec/containers/0/image", "value": EVIL}],
        "no pod is changed in its place",
    ),
    "a deadline": ("", MERGE, {"spec": {"activeDeadlineSeconds": 1}}, "no pod is changed in its place"),
    "a container that looks on": (
        "/ephemeralcontainers",
        STRATEGIC,
        {
            "spec": {
                "ephemeralContainers": [{"name": "debug", "image": EVIL, "targetContainerName": "gateway"}]
            }
        },
        "no pod is changed in its place",
    ),
    "less of a processor": (
        "/resize",
        STRATEGIC,
        {"spec": {"containers": [{"name": "gateway", "resources": {"requests": {"cpu": "1m"}}}]}},
        "no pod is changed in its place",
    ),
    "no slot": ("", MERGE, label("penstock.dev/slot", None), "they stay as its slot made them"),
    "another slot": ("", MERGE, label("penstock.dev/slot", "b"), "they stay as its slot made them"),
    "no fleet": ("", MERGE, label("penstock.dev/fleet", None), "they stay as its slot made them"),
    "no slot, as its status": (
        "/status",
        MERGE,
        label("penstock.dev/slot", None),
        "they stay as its slot made",
    ),
    "another release": (
        "",
        MERGE,
        {"metadata": {"annotations": {"penstock.dev/image": EVIL}}},
        "they stay as its slot made them",
    ),
    "no owner": ("", MERGE, {"metadata": {"ownerReferences": None}}, "deleted with another owner"),
    "that it has failed": ("/status", MERGE, {"status": {"phase": "Failed"}}, "is said by its node"),
}


@pytest.mark.parametrize("case", POD_CHANGES)
def test_no_stranger_changes_a_gateways_pod_in_its_place(
    case: str, plane: ControlPlane, stranger: Api, named: Api, served: str
) -> None:
    under, kind, body, sentence = POD_CHANGES[case]
    path = f"{PODS}/{served}{under}"
    if under == "/resize":
        has_resources(plane, served)
    assert sentence in refusal(stranger, "PATCH", path, body, content=kind, dryRun="All")
    named.ask("PATCH", path, body, content=kind, dryRun="All")


def has_resources(plane: ControlPlane, name: str) -> None:
    """Have the pod's state say what it has, as a kubelet that can change it does; kwok's says nothing."""
    pod = plane.admin.get(f"{PODS}/{name}")
    (state,) = pod["status"]["containerStatuses"]
    state["resources"] = pod["spec"]["containers"][0]["resources"]
    plane.api("kubelet").merge(f"{PODS}/{name}/status", {"status": {"containerStatuses": [state]}})


def test_what_else_is_noted_at_a_gateways_pod_is_anybodys_and_its_state_the_kubelets(
    plane: ControlPlane, stranger: Api, served: str
) -> None:
    kubelet = plane.api("kubelet")
    path = f"{PODS}/{served}"
    stranger.merge(path, {"metadata": {"labels": {"team": "vpn"}, "annotations": {"note": "of somebody"}}})
    said = {"status": {"message": "as the node has it"}}
    assert kubelet.merge(f"{path}/status", said)["status"]["message"] == "as the node has it"
    evil = [{"op": "replace", "path": "/spec/containers/0/image", "value": EVIL}]
    assert "no pod is changed in its place" in refusal(kubelet, "PATCH", path, evil, content=JSON_PATCH)


def test_a_pod_that_is_no_gateway_is_changed_and_does_not_become_one(
    stranger: Api, named: Api, served: str
) -> None:
    pod: Json = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "another", "namespace": NAMESPACE},
        "spec": {"containers": [{"name": "one", "image": EVIL}], "automountServiceAccountToken": False},
    }
    as_one = {**pod, "metadata": {**pod["metadata"], "labels": {"penstock.dev/slot": "a"}}}
    assert "penstock has their DaemonSet make them" in refusal(
        stranger, "POST", PODS, as_one, content="application/json", dryRun="All"
    )
    named.ask("POST", PODS, as_one, dryRun="All")
    stranger.post(PODS, pod)
    path = f"{PODS}/another"
    try:
        assert "they stay as its slot made" in refusal(
            stranger, "PATCH", path, label("penstock.dev/slot", "a")
        )
        other = [{"op": "replace", "path": "/spec/containers/0/image", "value": f"{REPOSITORY}@{DIGEST}"}]
        stranger.ask("PATCH", path, other, content=JSON_PATCH)
        stranger.post(f"{path}/eviction", eviction("another", dryRun=["All"], gracePeriodSeconds=0))
    finally:
        stranger.delete(path, gracePeriodSeconds=0)


def test_no_controller_makes_or_takes_a_pod_for_a_gateways_that_its_slot_did_not_make(
    plane: ControlPlane, named: Api
) -> None:
    """Whoever may make a ReplicaSet has pods made by it, and a DaemonSet takes what has lost its owner."""
    owner = {"apiVersion": "apps/v1", "name": "planted", "uid": OWNER["uid"], "controller": True}
    pod: Json = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "planted-1",
            "namespace": NAMESPACE,
            "labels": {"penstock.dev/fleet": "edge", "penstock.dev/slot": "c"},
            "ownerReferences": [{**owner, "kind": "ReplicaSet"}],
        },
        "spec": {"containers": [{"name": "gateway", "image": EVIL}], "automountServiceAccountToken": False},
    }
    controllers = plane.api("controller-manager")
    json_body = {"content": "application/json", "dryRun": "All"}
    assert "penstock has their DaemonSet make them" in refusal(controllers, "POST", PODS, pod, **json_body)
    slots = {**owner, "kind": "DaemonSet", "name": "edge-c"}
    controllers.ask(
        "POST", PODS, {**pod, "metadata": {**pod["metadata"], "ownerReferences": [slots]}}, **json_body
    )
    bare = {key: value for key, value in pod["metadata"].items() if key != "ownerReferences"}
    named.post(PODS, {**pod, "metadata": bare})
    try:
        taken = {"metadata": {"ownerReferences": [slots]}}
        assert "its slot made it, or it is none" in refusal(controllers, "PATCH", f"{PODS}/planted-1", taken)
    finally:
        named.delete(f"{PODS}/planted-1", gracePeriodSeconds=0)


def eviction(name: str, **options: Any) -> Json:
    """What `kubectl drain` and others post for a pod."""
    return {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "deleteOptions": options,
    }


def test_an_eviction_of_a_pod_that_waits_for_its_users_names_no_grace(
    plane: ControlPlane, stranger: Api, named: Api, served: str
) -> None:
    finalizer = {"metadata": {"finalizers": ["penstock.dev/held"]}}
    plane.admin.merge(f"{PODS}/{served}", finalizer)
    try:
        named.ask("DELETE", f"{PODS}/{served}")
        asked = f"{PODS}/{served}/eviction"
        for seconds in (0, 1):
            body = eviction(served, gracePeriodSeconds=seconds, dryRun=["All"])
            assert "an eviction may not name another one" in refusal(
                stranger, "POST", asked, body, content="application/json"
            )
            named.post(asked, body)
        stranger.post(asked, eviction(served, dryRun=["All"]))
        grace = plane.admin.get(f"{PODS}/{served}")["metadata"]["deletionGracePeriodSeconds"]
        assert grace >= timedelta(hours=1).total_seconds()
    finally:
        plane.admin.merge(f"{PODS}/{served}", {"metadata": {"finalizers": None}})
        named.delete(f"{PODS}/{served}", gracePeriodSeconds=0)


def test_the_budget_of_gateways_is_changed_by_administrators_and_counted_by_the_cluster(
    plane: ControlPlane, stranger: Api, named: Api, served: str
) -> None:
    fewer = {"spec": {"minAvailable": 0}}
    assert "only administrators of penstock change it" in refusal(stranger, "PATCH", BUDGET, fewer)
    assert "only administrators of penstock delete it" in refusal(stranger, "DELETE", BUDGET)
    open_to_all = {"status": {"disruptionsAllowed": 5}}
    assert "counted by the cluster itself" in refusal(stranger, "PATCH", f"{BUDGET}/status", open_to_all)
    stranger.merge(BUDGET, label("team", "vpn"))
    named.ask("PATCH", BUDGET, fewer, content=MERGE, dryRun="All")
    named.ask("DELETE", BUDGET, dryRun="All")
    plane.admin.until(BUDGET, lambda one: one and one.get("status", {}).get("currentHealthy") == 1)


def test_an_eviction_of_a_gateway_is_answered_that_there_are_too_many(
    plane: ControlPlane, stranger: Api, served: str
) -> None:
    plane.admin.until(BUDGET, lambda one: one and one.get("status", {}).get("currentHealthy") == 1)
    with pytest.raises(Answered) as refused:
        stranger.post(f"{PODS}/{served}/eviction", eviction(served))
    assert refused.value.status == TOO_MANY
    (cause,) = refused.value.said["details"]["causes"]
    assert "needs 100000 healthy pods and has 1 currently" in cause["message"]


def test_a_node_that_is_cordoned_keeps_its_gateway(plane: ControlPlane, served: str) -> None:
    plane.admin.merge(NODE, {"spec": {"unschedulable": True}})
    try:
        assert pod_of(plane, "a") == served
    finally:
        plane.admin.merge(NODE, {"spec": {"unschedulable": None}})


def held(plane: ControlPlane, slot: str) -> tuple[str, set[str]]:
    """The image of a slot, and who says so."""
    found = plane.admin.get(f"{SLOTS}/edge-{slot}")
    key = 'k:{"name":"gateway"}'
    owners = set()
    for one in found["metadata"]["managedFields"]:
        spec = one["fieldsV1"].get("f:spec", {}).get("f:template", {}).get("f:spec", {})
        if "f:image" in spec.get("f:containers", {}).get(key, {}):
            owners.add(one["manager"])
    return found["spec"]["template"]["spec"]["containers"][0]["image"], owners


def prepare(driver: Api, slot: str) -> str:
    wanted = f"{REPOSITORY}@{DIGEST}"
    body = image(wanted)
    body["metadata"]["name"] = f"edge-{slot}"
    driver.ask("PATCH", f"{SLOTS}/edge-{slot}", body, content=APPLY, fieldManager="penstock", force="true")
    return wanted


def test_an_upgrade_of_the_chart_leaves_a_slots_image_to_the_driver(installed: Helm, driver: Api) -> None:
    wanted = prepare(driver, "c")
    assert held(installed.plane, "c") == (wanted, {"penstock"})
    for grace in ("25h", "24h"):
        done = installed.run("upgrade", gateway={"grace": grace})
        assert done.returncode == 0, done.stderr
        assert held(installed.plane, "c") == (wanted, {"penstock"})


def test_an_upgrade_of_the_chart_changes_no_slot_that_a_node_has(installed: Helm, served: str) -> None:
    done = installed.run("upgrade", who="stranger", gateway={"grace": "26h"})
    assert done.returncode != 0
    assert "nodes have this slot" in done.stderr
    assert pod_of(installed.plane, "a") == served
    pod = installed.plane.admin.get(f"{SLOTS}/edge-a")["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] == timedelta(hours=24).total_seconds()
