"""Two real nodes run gateways that are pods, carry live tunnels through their crashes, and leave nothing."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TypeVar

import pytest

from deploy.cluster.api import Api, Json
from deploy.cluster.node import SERVICES, Node
from deploy.cluster.nodes import RealNodes, Size, is_ready, real_nodes, require
from deploy.lab import credentials, namespaces
from deploy.lab.daemons.ocserv import LabOcserv
from deploy.lab.trees import collect_host_tree, fetch_shell
from deploy.lab.users import User
from orchestrator.publishing.image import ImageLabels, build_image
from orchestrator.settings import state_folder
from policies.model.errors import BadInput
from tests.cluster import building, gateway_pods
from tests.cluster.gateway_pods import CAPABILITIES, LABEL, NAMESPACE, PLACE
from tests.patience import PATIENCE

pytestmark = [pytest.mark.lab, pytest.mark.sweep, pytest.mark.timeout(300)]

MASKED = ("kernel/panic", "kernel/panic_on_oops", "vm/overcommit_memory", "vm/panic_on_oom")
NODE, OTHER = "gw-1", "gw-2"
_BITS = {"CHOWN": 0, "DAC_OVERRIDE": 1, "KILL": 5, "SETGID": 6, "SETUID": 7, "NET_ADMIN": 12}
"""Numbers of capabilities (capability.h)."""

T = TypeVar("T")


def sysctls() -> list[str]:
    return [Path("/proc/sys", name).read_text() for name in MASKED]


@pytest.fixture(scope="module")
def machine() -> list[str]:
    """Settings of the whole machine as they are without nodes."""
    return sysctls()


@pytest.fixture(scope="module")
def told() -> list[str]:
    return []


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shell of images, which comes from outside: nothing does once the nodes are up."""
    cache = state_folder() / "lab" / "cache" / "packages"
    return fetch_shell(tmp_path_factory.mktemp("shell") / "busybox", cache)


@pytest.fixture(scope="module")
def cluster(
    request: pytest.FixtureRequest, machine: list[str], told: list[str], shell: Path
) -> Iterator[RealNodes]:
    building.insist(request)
    try:
        require()
    except BadInput as obstacle:
        pytest.skip(str(obstacle))
    with real_nodes(told.append, Size(prefix="pstn-")) as up:
        yield up


@pytest.fixture(scope="module")
def api(cluster: RealNodes) -> Api:
    return cluster.plane.admin


@pytest.fixture(scope="module")
def issued(cluster: RealNodes) -> credentials.Credentials:
    return credentials.issue(cluster.topology, cluster.folder / "credentials", LabOcserv(), people=1)


@pytest.fixture(scope="module")
def image(cluster: RealNodes, shell: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("image")
    labels = ImageLabels("edge", collect_host_tree(folder / "tree"))
    return cluster.registry.push("vpn/edge", build_image(folder / "tree", shell, labels, folder / "blobs"))


@pytest.fixture(scope="module")
def slot(cluster: RealNodes, api: Api, issued: credentials.Credentials, image: str) -> None:
    """A slot that no node is told to run yet."""
    gateway_pods.write_config(cluster, issued)
    api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    api.until(f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default", bool)
    api.apply(gateway_pods.daemon_set(image))


def eventually(seen: Callable[[], T | None], told: Callable[[], object] = str) -> T:
    deadline = time.monotonic() + PATIENCE
    while not (found := seen()):
        if time.monotonic() > deadline:
            pytest.fail(f"not so after {PATIENCE:g} s {told()}")
        time.sleep(0.05)
    return found


def tell(api: Api, node: str, *, runs: bool) -> None:
    api.merge(f"/api/v1/nodes/{node}", {"metadata": {"labels": {LABEL: "true" if runs else None}}})


def pods(api: Api, node: str) -> list[Json]:
    return api.every(f"/api/v1/namespaces/{NAMESPACE}/pods", fieldSelector=f"spec.nodeName={node}")


def ready_pod(api: Api, node: str) -> Json | None:
    return next((pod for pod in pods(api, node) if is_ready(pod)), None)


def said_of(cluster: RealNodes, api: Api, node: str) -> str:
    """Return what the cluster says of the node's pods, and what was written there last by whom."""
    disk = cluster.nodes[node].disk
    files = [*(disk / "var/log/pods").rglob("*.log"), disk / PLACE / "log"]
    logs = [f"{file.name}: {file.read_text(errors='replace')[-2000:]}" for file in files]
    kubelet = cluster.nodes[node].last_lines("kubelet", 30)
    return "\n".join([*(str(pod["status"]) for pod in pods(api, node)), *logs, *kubelet])


@pytest.fixture
def gateway(cluster: RealNodes, api: Api, slot: None) -> Iterator[Json]:
    """The ready pod of the slot on the first node, which is told to end at last."""
    tell(api, NODE, runs=True)
    try:
        yield eventually(lambda: ready_pod(api, NODE), told=lambda: said_of(cluster, api, NODE))
    finally:
        tell(api, NODE, runs=False)
        eventually(lambda: not pods(api, NODE))


@asynccontextmanager
async def user(cluster: RealNodes, issued: credentials.Credentials, folder: Path) -> AsyncIterator[User]:
    """A person who is logged in at the first node's pod, and pings through the tunnel."""
    site, gateway = cluster.topology.sites[0], cluster.topology.gateways[0]
    url = f"https://{gateway.address4}:{gateway_pods.PORT}"
    person = User(site, gateway, LabOcserv(), issued, folder / site.name, url)
    living = asyncio.create_task(person.live())
    try:
        await soon(lambda: person.up)
        yield person
    finally:
        living.cancel()
        with suppress(asyncio.CancelledError):
            await living
        await person.leave()


async def kill(node: Node, service: str) -> None:
    """Kill a service and wait until it runs again."""
    before = set(node.pids(service))
    node.kill(service)
    await soon(lambda: set(node.pids(service)) - before)


async def soon(seen: Callable[[], T | None]) -> T:
    return await asyncio.to_thread(eventually, seen)


async def test_nodes_are_ready_and_nothing_of_the_machine_is_changed(
    cluster: RealNodes, machine: list[str], told: list[str]
) -> None:
    assert "2 nodes are ready" in told[-1]
    assert sysctls() == machine


def test_a_gateway_is_pulled_by_digest_and_runs_with_six_capabilities_only(
    cluster: RealNodes, gateway: Json, image: str
) -> None:
    [status] = gateway["status"]["containerStatuses"]
    assert status["imageID"] == image
    pid, *_ = cluster.nodes[NODE].pids("ocserv")
    said = dict(
        line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    assert (
        int(said["CapEff"], 16) == int(said["CapBnd"], 16) == sum(1 << _BITS[name] for name in CAPABILITIES)
    )
    assert (said["NoNewPrivs"], said["Seccomp"]) == ("1", "2")


def test_the_control_socket_of_a_pod_lies_in_a_folder_that_its_uid_names(
    cluster: RealNodes, gateway: Json
) -> None:
    run = cluster.nodes[NODE].disk / PLACE / "run" / gateway["metadata"]["uid"]
    assert (run / "occtl.sock").is_socket()


async def test_who_is_logged_in_notices_no_crash_of_the_cluster(
    cluster: RealNodes,
    api: Api,
    gateway: Json,
    issued: credentials.Credentials,
    tmp_path: Path,
) -> None:
    node = cluster.nodes[NODE]
    async with user(cluster, issued, tmp_path) as person:
        await soon(lambda: person.view()["udp"])
        for service in SERVICES:
            await kill(node, service)
        cluster.plane.kill("kube-apiserver")
        await asyncio.sleep(2)
        await asyncio.to_thread(cluster.plane.start_again, "kube-apiserver")
        await asyncio.to_thread(cluster.wait_ready, NODE)
        await person.pings.pause()
        assert person.pings.count.sent > 20
        assert (person.pings.count.lost, person.tally.lost, person.tally.reconnects) == (0, 0, 0)
        [after] = pods(api, NODE)
        assert after["metadata"]["uid"] == gateway["metadata"]["uid"]
        assert after["status"]["containerStatuses"][0]["restartCount"] == 0


async def test_a_gateway_whose_label_is_taken_serves_until_its_last_user_has_left(
    cluster: RealNodes,
    api: Api,
    gateway: Json,
    issued: credentials.Credentials,
    tmp_path: Path,
) -> None:
    async with user(cluster, issued, tmp_path) as person:
        tell(api, NODE, runs=False)
        await soon(lambda: "deletionTimestamp" in pods(api, NODE)[0]["metadata"])
        await asyncio.sleep(5)
        await person.pings.pause()
        assert person.pings.count.sent > 20
        assert (person.pings.count.lost, person.tally.lost) == (0, 0)
    await soon(lambda: not pods(api, NODE))


async def test_a_node_that_lost_its_power_serves_again_by_itself(
    cluster: RealNodes, api: Api, gateway: Json
) -> None:
    node = cluster.nodes[NODE]
    node.lose_power()
    assert not namespaces.inhabitants([node.host.namespace])
    node.start()
    await soon(lambda: pods(api, NODE)[0]["status"]["containerStatuses"][0]["restartCount"] == 1)
    after = await soon(lambda: ready_pod(api, NODE))
    assert after["metadata"]["uid"] == gateway["metadata"]["uid"]
    await asyncio.to_thread(cluster.wait_ready, NODE)
    assert node.run("hostname").stdout == f"{NODE}\n"
