"""The chart as Helm renders it: the same as the plain manifests, and a sentence for senseless values."""

import copy
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from activities.drivers.runtime.kubernetes.rights import NINE
from activities.files import load
from deploy.kubernetes.chart import CHART, EXAMPLE, MANIFESTS, NAMESPACE, manifests, rendered
from orchestrator.processes.agent_file import AgentSettings
from orchestrator.processes.cluster_file import ClusterSettings
from policies.model.errors import BadInput
from policies.model.fleet import Fleet
from tests.cluster import building

Values = dict[str, Any]
CHECKS = CHART / "templates/_checks.tpl"
Change = Callable[[Values], object]


@pytest.fixture(autouse=True, scope="module")
def chart(request: pytest.FixtureRequest) -> None:
    """Have Helm here."""
    building.insist(request)


@pytest.fixture
def values() -> Values:
    read: Values = yaml.safe_load(EXAMPLE.read_text())
    return read


def objects(values: Values | Path = EXAMPLE) -> Iterator[dict[str, Any]]:
    yield from filter(None, yaml.safe_load_all(rendered(values)))


def of_kind(kind: str, values: Values | Path = EXAMPLE) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in objects(values) if one["kind"] == kind}


def fleet(values: Values) -> Values:
    found: Values = values["fleets"][0]
    return found


def test_the_plain_manifests_are_those_of_the_chart_with_the_examples_values() -> None:
    there = {path.name: path.read_text() for path in MANIFESTS.iterdir()}
    assert there == manifests(), "write them again: .venv/bin/python -m deploy.kubernetes"


def test_the_drivers_rights_are_the_nine_that_it_uses_and_no_other() -> None:
    rules = of_kind("Role")["edge-cluster"]["rules"] + of_kind("ClusterRole")["penstock-cluster"]["rules"]
    given = {
        (verb, kind, group)
        for rule in rules
        for verb in rule["verbs"]
        for kind in rule["resources"]
        for group in rule["apiGroups"]
    }
    assert given == {tuple(right) for right in NINE}
    assert len(given) == 9, "docs/kubernetes.md says how many there are"
    named = [rule["resourceNames"] for rule in rules if rule["resources"] == ["daemonsets"]]
    assert named == [["edge-a", "edge-b", "edge-c"]]


def test_every_gateways_agent_gets_a_file_that_its_agent_takes(tmp_path: Path, values: Values) -> None:
    maps = of_kind("ConfigMap")
    (name,) = [name for name in maps if name.startswith("edge-agents-")]
    assert maps[name]["immutable"] is True
    assert set(maps[name]["data"]) == {"worker-1.yaml", "worker-2.yaml"}
    for file, text in maps[name]["data"].items():
        (tmp_path / file).write_text(text)
        settings = load(tmp_path / file, AgentSettings)
        assert settings.gateway.placement is not None
        assert f"{settings.gateway.placement.node}.yaml" == file
        assert settings.gateway.fleet == "edge"


def test_the_driver_gets_a_file_that_it_takes(tmp_path: Path) -> None:
    maps = of_kind("ConfigMap")
    (name,) = [name for name in maps if name.startswith("edge-cluster-")]
    (tmp_path / "cluster.yaml").write_text(maps[name]["data"]["cluster.yaml"])
    settings = load(tmp_path / "cluster.yaml", ClusterSettings)
    sets = of_kind("DaemonSet")
    for slot, daemon_set in settings.slots.items():
        labels = sets[daemon_set]["spec"]["template"]["metadata"]["labels"]
        assert labels == {"penstock.dev/fleet": settings.fleet, "penstock.dev/slot": slot}
        (container,) = sets[daemon_set]["spec"]["template"]["spec"]["containers"]
        assert container["name"] == settings.container
        assert container["image"].startswith(f"{settings.repository}@sha256:")
    assert sets["edge-agent"]["spec"]["template"]["spec"]["nodeSelector"] == settings.bears


def test_the_orchestrator_gets_the_fleet_as_people_wrote_it(tmp_path: Path, values: Values) -> None:
    (tmp_path / "edge.yaml").write_text(of_kind("ConfigMap")["penstock-fleets"]["data"]["edge.yaml"])
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(fleet(values)["file"]))
    assert load(tmp_path / "edge.yaml", Fleet) == load(tmp_path / "own.yaml", Fleet)


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    for one in objects():
        if one["kind"] in ("DaemonSet", "Deployment"):
            yield one["metadata"]["name"], one["spec"]["template"]["spec"]


def test_no_pod_is_privileged_or_reads_the_api_unless_it_is_the_driver() -> None:
    for name, pod in pods():
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["enableServiceLinks"] is False, f"{name}: settings refuse variables that nobody set"
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in [*pod["containers"], *pod.get("initContainers", ())]:
            may = container["securityContext"]
            assert not may["privileged"], name
            assert not may["allowPrivilegeEscalation"], name
            assert may["readOnlyRootFilesystem"], name
            assert may["capabilities"]["drop"] == ["ALL"], name


def test_a_slots_pods_have_six_capabilities_no_port_and_an_end_that_waits_for_users() -> None:
    sets = of_kind("DaemonSet")
    for slot in ("a", "b", "c"):
        pod = sets[f"edge-{slot}"]["spec"]["template"]["spec"]
        (gateway,) = pod["containers"]
        added = ["NET_ADMIN", "SETUID", "SETGID", "CHOWN", "DAC_OVERRIDE", "KILL"]
        assert gateway["securityContext"]["capabilities"]["add"] == added
        assert "ports" not in gateway
        assert (
            pod["terminationGracePeriodSeconds"]
            > Fleet.model_fields["limits"].default.drain_deadline.total_seconds()
        )
        assert "sleep 1" in gateway["lifecycle"]["preStop"]["exec"]["command"][-1]
        assert sets[f"edge-{slot}"]["spec"]["updateStrategy"] == {"type": "OnDelete"}
        assert pod["nodeSelector"] == {f"penstock.dev/edge.{slot}": "true"}


def without(*keys: str) -> Change:
    def change(values: Values) -> None:
        found: Any = values
        for key in keys[:-1]:
            found = found[int(key)] if isinstance(found, list) else found[key]
        del found[keys[-1]]

    return change


REFUSED: dict[str, tuple[Change, str]] = {
    "no name of the cluster": (without("cluster"), "cluster has no name: give it the one that placement"),
    "no fleet": (lambda v: v.update(fleets=[]), "fleets is empty: name the fleets"),
    "a fleet without a file": (without("fleets", "0", "file"), "one has no file with a name"),
    "a fleet twice": (lambda v: v["fleets"].append(copy.deepcopy(fleet(v))), "edge is there twice"),
    "no driver": (lambda v: fleet(v).update(driver={"here": False}), "nobody could give a node its slot"),
    "one driver for two fleets": (
        lambda v: (
            v["fleets"].append(
                {
                    **copy.deepcopy(fleet(v)),
                    "driver": {"users": [f"system:serviceaccount:{NAMESPACE}:edge-cluster"]},
                }
            )
            or v["fleets"][1]["file"].update(name="core")
        ),
        "fleets edge and core have the same driver",
    ),
    "no probe": (without("fleets", "0", "agent", "file", "probe"), "agent.file has no probe"),
    "no repository": (without("fleets", "0", "repository"), "fleet edge has no repository"),
    "a repository with a tag": (
        lambda v: fleet(v).update(repository="registry.example/vpn/edge:1.4"),
        "has a tag, a digest or a scheme",
    ),
    "a grace within a drain": (
        lambda v: fleet(v)["file"].update(limits={"drain_deadline": "2d"}),
        "gateway.grace is 24h and the drains of fleet edge may take 2d: a pod would be killed with its users",
    ),
    "a grace that is none": (lambda v: v.update(gateway={"grace": "long"}), '"long" is no duration'),
    "a fleet of elsewhere": (lambda v: v.update(cluster="east"), "no gateway with placement.cluster east"),
    "two slots": (
        lambda v: [gateway["slots"].pop() for gateway in fleet(v)["file"]["gateways"]],
        "fleet edge has 2 slots: three or more are needed",
    ),
    "other slots": (
        lambda v: fleet(v)["file"]["gateways"][0]["slots"][2].update(name="d"),
        "a slot is one DaemonSet for all, so give every gateway the same",
    ),
    "two gateways on a node": (
        lambda v: fleet(v)["file"]["gateways"][1]["placement"].update(node="worker-1"),
        "gateways gw-1 and gw-2 are both on node worker-1",
    ),
    "a host that is placed": (
        lambda v: fleet(v)["file"]["gateways"][0].pop("runtime"),
        "gateway gw-1 of fleet edge has a placement and not `runtime: kubernetes`",
    ),
    "a label that is too long": (
        lambda v: fleet(v)["file"].update(name="x" * 62),
        "is too long for a cluster",
    ),
    "a fleet with a dot": (lambda v: fleet(v)["file"].update(name="edge.west"), "neither has a dot in it"),
    "a slot called as a label": (
        lambda v: [gateway["slots"][0].update(name="epoch") for gateway in fleet(v)["file"]["gateways"]],
        "no slot can be called epoch",
    ),
    "an image by tag": (
        lambda v: v.update(image="registry.example/penstock:1"),
        "is not named by its digest",
    ),
    "no image": (lambda v: v.pop("image"), "image is empty: name the image of agents and drivers"),
    "no image of the API": (
        lambda v: v["orchestrator"].pop("image"),
        "name the image of API, worker and relay",
    ),
    "a root that is none": (lambda v: v.update(root="var"), 'root "var" is no folder of a node'),
    "no page": (lambda v: v["orchestrator"].pop("page"), "orchestrator.page is empty"),
    "a NodePort": (
        lambda v: v.update(gateway={"exposure": "NodePort"}),
        "gateway.exposure NodePort is not offered",
    ),
    "a balancer": (lambda v: v.update(gateway={"exposure": "LoadBalancer"}), "LoadBalancer is not offered"),
    "a proxy": (lambda v: v.update(gateway={"exposure": "streamProxy"}), "streamProxy is not offered"),
}


@pytest.fixture(scope="module")
def said() -> Mapping[str, str]:
    """What Helm says of each."""
    found = {}
    for case, (change, _) in REFUSED.items():
        values: Values = yaml.safe_load(EXAMPLE.read_text())
        change(values)
        with pytest.raises(BadInput) as refused:
            rendered(values)
        found[case] = str(refused.value)
    return found


@pytest.mark.parametrize("case", REFUSED)
def test_values_that_make_no_sense_are_refused_with_a_sentence(case: str, said: Mapping[str, str]) -> None:
    assert REFUSED[case][1] in said[case]


def test_every_check_of_the_chart_is_met_by_values_here(said: Mapping[str, str]) -> None:
    checks = re.findall(r'{{- fail \(?(?:printf )?"((?:[^"\\]|\\.)+)"', CHECKS.read_text())
    assert len(checks) > 20
    for check in checks:
        pattern = re.sub(r"%[a-z]", ".+", re.escape(check))
        assert any(re.search(pattern, sentence) for sentence in said.values()), check


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda v: v.update(fleet=[]), "fleet"),
        (lambda v: fleet(v).update(repositry="registry.example/vpn/edge"), "repositry"),
        (lambda v: fleet(v).update(driver={"user": ["penstock-driver"]}), "user"),
        (lambda v: v.update(gateway={"gracePeriod": "24h"}), "gracePeriod"),
        (lambda v: v["orchestrator"].update(setings={}), "setings"),
    ],
    ids=["of the chart", "of a fleet", "of a driver", "of the gateways", "of the orchestrator"],
)
def test_a_key_that_the_chart_does_not_know_is_refused_by_name(
    values: Values, change: Change, name: str
) -> None:
    change(values)
    with pytest.raises(BadInput, match=f"additional properties '{name}' not allowed"):
        rendered(values)


def test_every_value_that_the_chart_has_is_known_to_its_schema() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())

    def unknown(values: Values, known: Values, place: str) -> Iterator[str]:
        for key, value in values.items():
            if key not in known["properties"]:
                yield f"{place}.{key}"
            elif isinstance(value, dict) and "properties" in known["properties"][key]:
                yield from unknown(value, known["properties"][key], f"{place}.{key}")

    assert [*unknown(yaml.safe_load((CHART / "values.yaml").read_text()), schema, "")] == []


def test_a_driver_elsewhere_has_the_rights_and_no_account_here(values: Values) -> None:
    fleet(values)["driver"] = {"here": False, "users": ["penstock-driver"]}
    assert of_kind("ServiceAccount", values) == {}
    subjects = of_kind("RoleBinding", values)["edge-cluster"]["subjects"]
    assert subjects == [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "penstock-driver"}]


def test_no_gateway_and_no_driver_mounts_a_secret_with_a_token() -> None:
    """L2: each node of a fleet could enrol as another one, while a token waits."""
    found = [
        (name, volume["secret"]["secretName"])
        for name, pod in pods()
        for volume in pod.get("volumes", ())
        if "secret" in volume and "enrolment" in volume["secret"]["secretName"]
    ]
    assert found == []


def test_no_file_that_a_process_trusts_lies_in_a_folder_that_every_user_may_write() -> None:
    """The kubelet makes the folder of a ConfigMap with mode 0777, and that of a projected volume sticky."""
    plain = [
        (name, volume["name"]) for name, pod in pods() for volume in pod["volumes"] if "configMap" in volume
    ]
    assert plain == []


def test_each_process_of_the_orchestrator_has_a_disk_and_keys_of_its_own_and_no_others() -> None:
    """S5: API, worker and relay had one disk, one Secret and one address of the ledger."""
    found = {name.removeprefix("penstock-"): pod for name, pod in pods() if name.startswith("penstock-")}
    assert found.keys() == {"api", "worker", "relay"}
    written, keys, addresses = dict[str, set[str]](), dict[str, list[str]](), dict[str, object]()
    for name, pod in found.items():
        (container,) = pod["containers"]
        volumes = {one["name"]: one for one in pod["volumes"]}
        read_only = {one["name"]: one.get("readOnly", False) for one in container["volumeMounts"]}
        disks = {
            one["persistentVolumeClaim"]["claimName"]: read_only[one["name"]]
            for one in pod["volumes"]
            if "persistentVolumeClaim" in one
        }
        written[name] = {disk for disk, may_only_read in disks.items() if not may_only_read}
        keys[name] = [one["key"] for one in volumes["keys"]["secret"]["items"]]
        (address,) = [one for one in container["env"] if one["name"] == "PENSTOCK_LEDGER_URL"]
        addresses[name] = address["valueFrom"]["secretKeyRef"]["key"]
    assert written == {"api": {"penstock-api"}, "worker": {"penstock-worker"}, "relay": set()}
    assert keys["worker"] == keys["relay"] == ["payload.keys", "metrics.token"]
    assert keys["api"] == ["api.payload.keys", "metrics.token"]
    assert addresses == {"api": "api", "worker": "worker", "relay": "relay"}
    (theirs,) = [one for one in found["api"]["containers"][0]["volumeMounts"] if one["name"] == "worker"]
    assert (theirs["subPath"], theirs["readOnly"]) == ("evidence", True)


def test_the_secrets_of_sinks_are_the_workers_alone_and_notices_yaml_is_read(values: Values) -> None:
    """No Secret could be mounted for a sink, so that no notice left a cluster."""
    values["files"] = {"notices.yaml": "apiVersion: penstock/v1\n"}
    values["orchestrator"] = values["orchestrator"] | {"notices": "penstock-sinks-1"}
    mounted, read = dict[str, str](), set[str]()
    for name, one in of_kind("Deployment", values).items():
        pod = one["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        places = {mount["name"]: mount for mount in container["volumeMounts"]}
        for volume in pod["volumes"]:
            if volume.get("secret", {}).get("secretName") == "penstock-sinks-1":
                assert places[volume["name"]]["readOnly"] is True
                assert volume["secret"]["defaultMode"] == 0o400
                mounted[name] = places[volume["name"]]["mountPath"]
        env = {variable["name"]: variable.get("value") for variable in container["env"]}
        if env.get("PENSTOCK_NOTICES") == "/etc/penstock/notices.yaml":
            read.add(name)
    assert mounted == {"penstock-worker": "/etc/penstock-notices"}
    assert read == {"penstock-api", "penstock-worker"}


def test_the_authoritys_key_is_the_relays_alone() -> None:
    """S5: it lay on the disk of all three."""
    found = {
        name: volume["secret"]
        for name, pod in pods()
        for volume in pod.get("volumes", ())
        if volume.get("secret", {}).get("secretName") == "penstock-relay-1"
    }
    assert found.keys() == {"penstock-api", "penstock-relay"}
    assert [one["key"] for one in found["penstock-api"]["items"]] == ["authority.pem"]
    assert "items" not in found["penstock-relay"]
