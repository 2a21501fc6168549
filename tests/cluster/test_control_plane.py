"""The control plane of the tests is a real one, can be broken a part at a time, and leaves nothing."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.cluster.api import Answered, Api, reboot_node
from deploy.cluster.audit import Request, counted
from deploy.cluster.control_plane import API, CONTROLLERS, PARTS, READY_WITHIN, Choices, ControlPlane, running
from policies.model.errors import Unavailable
from tests.cluster.gateways import (
    CRASHING,
    GOOD,
    NEVER_PULLED,
    daemon_set,
    is_ready,
    path,
    pods,
    settled,
    slow,
)
from tests.patience import PATIENCE, wait_until

ROOT = Path(__file__).parents[2]
Nodes = Callable[..., list[str]]
KEPT_UP = """
import sys, time
from pathlib import Path
from deploy.cluster.control_plane import running
with running(Path(sys.argv[1])) as plane:
    print(*[part.pid for part in plane.parts.values()], flush=True)
    time.sleep(600)
"""


def pids_of(folder: Path) -> list[int]:
    """Return who was started with this folder in their command line."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            said = place.read_bytes()
        except OSError:
            continue
        if str(folder).encode() in said:
            found.append(int(place.parent.name))
    return found


def test_a_control_plane_serves_when_its_start_returns_and_leaves_nothing(
    plane: ControlPlane, tmp_path: Path
) -> None:
    begun = time.monotonic()
    with running(tmp_path / "second") as second:
        took = time.monotonic() - begun
        assert second.admin.ask("GET", "/readyz") == "ok"
        assert second.admin.get("/api/v1/namespaces/default/serviceaccounts/default")
        assert second.server != plane.server
        assert len(pids_of(tmp_path)) == len(PARTS)
    assert took < READY_WITHIN
    assert pids_of(tmp_path) == []
    with socket.create_server(("127.0.0.1", second.ports.api)):
        pass
    assert plane.is_serving()


def test_a_control_plane_dies_with_who_started_it(plane: ControlPlane, tmp_path: Path) -> None:
    command = [sys.executable, "-c", KEPT_UP, str(tmp_path / "kept")]
    maker = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert maker.stdout
    started = [int(word) for word in maker.stdout.readline().split()]
    assert len(started) == len(PARTS)
    maker.send_signal(signal.SIGKILL)
    maker.wait()
    wait_until(lambda: pids_of(tmp_path) == [], found=lambda: pids_of(tmp_path))


def test_a_part_that_ends_while_it_starts_is_quoted(plane: ControlPlane, tmp_path: Path) -> None:
    broken = Choices(api_flags=("--no-such-flag",))
    sentence = r"kube-apiserver has ended with 1; it said: .*no-such-flag"
    with pytest.raises(Unavailable, match=sentence), running(tmp_path / "broken", broken):
        pytest.fail("it cannot have started")
    assert pids_of(tmp_path) == []


def test_nodes_are_ready_open_and_known_by_their_boot(admin: Api, nodes: Nodes) -> None:
    first, second = nodes(2, zone="north")
    found = {name: admin.get(f"/api/v1/nodes/{name}") for name in (first, second)}
    boots = {node["status"]["nodeInfo"]["bootID"] for node in found.values()}
    assert len(boots) == 2
    assert all(boots)
    assert found[first]["metadata"]["labels"]["zone"] == "north"
    boot = reboot_node(admin, first)
    assert admin.get(f"/api/v1/nodes/{first}")["status"]["nodeInfo"]["bootID"] == boot
    assert boot not in boots


def test_a_pod_reports_the_image_that_was_asked_for(admin: Api, nodes: Nodes, space: str) -> None:
    names = nodes(3)
    admin.apply(daemon_set(space, "gateway", selector={"kubernetes.io/hostname": names[0]}))
    admin.until(path(space, "gateway"), settled(1))
    (pod,) = pods(admin, space)
    assert pod["spec"]["nodeName"] == names[0]
    (container,) = pod["status"]["containerStatuses"]
    assert container["imageID"] == GOOD
    assert container["ready"]
    assert pod["status"]["phase"] == "Running"


def test_a_label_places_a_gateway_and_its_removal_ends_it(admin: Api, nodes: Nodes, space: str) -> None:
    _, second = nodes(2)
    key = f"penstock.dev/{space}.blue"
    admin.apply(daemon_set(space, "blue", selector={key: "true"}))
    admin.until(path(space, "blue"), lambda found: found and found["status"].get("observedGeneration"))
    assert pods(admin, space) == []
    admin.merge(f"/api/v1/nodes/{second}", {"metadata": {"labels": {key: "true"}}})
    admin.until(path(space, "blue"), settled(1))
    (pod,) = pods(admin, space)
    assert pod["spec"]["nodeName"] == second
    admin.merge(f"/api/v1/nodes/{second}", {"metadata": {"labels": {key: None}}})
    admin.until(f"/api/v1/namespaces/{space}/pods/{pod['metadata']['name']}", lambda found: found is None)


@pytest.mark.parametrize("image", [NEVER_PULLED, CRASHING], ids=["never pulled", "crashing"])
def test_an_image_that_fails_is_never_ready_and_says_why(
    admin: Api, nodes: Nodes, space: str, image: str
) -> None:
    nodes(1)
    admin.apply(daemon_set(space, "gateway", image))
    admin.until(
        path(space, "gateway"), lambda found: found and found["status"].get("currentNumberScheduled") == 1
    )
    (pod,) = pods(admin, space)
    where = f"/api/v1/namespaces/{space}/pods/{pod['metadata']['name']}"
    said = admin.until(where, lambda found: found and found["status"].get("containerStatuses"))
    assert said is not None
    (container,) = said["status"]["containerStatuses"]
    wanted = "ImagePullBackOff" if image == NEVER_PULLED else "CrashLoopBackOff"
    assert container["state"]["waiting"]["reason"] == wanted
    assert not is_ready(said)


@pytest.mark.parametrize("way", ["annotation", "digest"])
def test_a_slow_pod_is_ready_when_it_was_said_to_be(admin: Api, nodes: Nodes, space: str, way: str) -> None:
    nodes(1)
    by = {"test.penstock.dev/ready-after": "2s"} if way == "annotation" else {}
    begun = time.monotonic()
    admin.apply(daemon_set(space, "gateway", GOOD if by else slow(2), annotations=by))
    admin.until(path(space, "gateway"), settled(1))
    assert time.monotonic() - begun >= 2


@pytest.mark.parametrize(("ends", "seconds"), [("grace", 3), ("after", 2)])
def test_a_pod_ends_as_its_annotations_say(
    admin: Api, nodes: Nodes, space: str, ends: str, seconds: int
) -> None:
    nodes(1)
    how = {"test.penstock.dev/ends": ends, "test.penstock.dev/end-after": "2s"}
    admin.apply(daemon_set(space, "gateway", annotations=how, grace=3))
    admin.until(path(space, "gateway"), settled(1))
    (pod,) = pods(admin, space)
    where = f"/api/v1/namespaces/{space}/pods/{pod['metadata']['name']}"
    begun = time.monotonic()
    admin.delete(path(space, "gateway"))
    admin.until(where, lambda found: found and "deletionTimestamp" in found["metadata"])
    admin.until(where, lambda found: found is None)
    # The server counts a grace from full seconds.
    assert time.monotonic() - begun >= seconds - 1


def test_who_has_no_rights_is_refused(plane: ControlPlane, space: str) -> None:
    stranger = plane.api("stranger")
    with pytest.raises(Answered, match='User "stranger" cannot list resource "pods"') as refused:
        stranger.every(f"/api/v1/namespaces/{space}/pods")
    stranger.close()
    assert refused.value.status == 403


def test_pods_get_a_service_account_whose_tokens_are_known(
    plane: ControlPlane, admin: Api, nodes: Nodes, space: str
) -> None:
    nodes(1)
    admin.apply(daemon_set(space, "gateway"))
    admin.until(path(space, "gateway"), settled(1))
    (pod,) = pods(admin, space)
    assert pod["spec"]["serviceAccountName"] == "default"
    known = plane.api("", token=admin.token(space, "default"))
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    said = known.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", review)
    known.close()
    assert said["status"]["userInfo"]["username"] == f"system:serviceaccount:{space}:default"


def test_a_killed_api_server_comes_back_with_all_it_knew(plane: ControlPlane, admin: Api, space: str) -> None:
    plane.kill(API)
    with pytest.raises(Unavailable, match="does not answer GET"):
        admin.get(f"/api/v1/namespaces/{space}")
    plane.start_again(API)
    assert admin.get(f"/api/v1/namespaces/{space}")["status"]["phase"] == "Active"


def test_without_controllers_nothing_happens_until_they_are_back(
    plane: ControlPlane, admin: Api, nodes: Nodes, space: str
) -> None:
    nodes(1)
    plane.kill(CONTROLLERS)
    admin.apply(daemon_set(space, "gateway"))
    with pytest.raises(Unavailable, match="not as waited for after 1 s"):
        admin.until(path(space, "gateway"), settled(1), within=1)
    plane.start_again(CONTROLLERS)
    admin.until(path(space, "gateway"), settled(1), within=PATIENCE)


def test_every_request_is_counted_by_who_asked_and_for_what(plane: ControlPlane, space: str) -> None:
    before = plane.audit.position()
    counting = plane.api("admin", agent=f"counted-{os.getpid()}")
    for _ in range(3):
        counting.get(f"/api/v1/namespaces/{space}")
    counting.every(f"/api/v1/namespaces/{space}/pods")
    with pytest.raises(Answered):
        counting.get("/api/v1/nodes/nobody/status")
    counting.close()
    asked: list[Request] = []

    def are_noted() -> bool:
        nonlocal asked
        asked = [one for one in plane.audit.since(before) if one.agent == f"counted-{os.getpid()}"]
        return len(asked) >= 5

    wait_until(are_noted)
    assert counted(asked) == {("get", "namespaces"): 3, ("list", "pods"): 1, ("get", "nodes/status"): 1}
    assert {one.user for one in asked} == {"admin"}
    assert [one.status for one in asked if one.resource == "nodes/status"] == [404]
    assert all(0 <= one.took < 60 for one in asked)
