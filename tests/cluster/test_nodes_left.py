"""Real nodes end with nothing left of them, however they end; two clusters of them do not meet."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.cluster import cgroups, programs
from deploy.cluster.nodes import RealNodes, Size, folder_of, is_ready, real_nodes, require
from deploy.cluster.registry import image_of
from deploy.lab import namespaces
from policies.model.errors import BadInput
from tests.cluster import building
from tests.house.leftovers import nothing_is_left

pytestmark = [pytest.mark.lab, pytest.mark.sweep, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
PREFIX = "pstv-"
SMALL = Size(nodes=1, clients=1, prefix=PREFIX)
MAKER = f"""
import time
from deploy.cluster.nodes import Size, real_nodes
with real_nodes(lambda _: None, Size(nodes=1, clients=1, prefix={PREFIX!r})):
    print("up", flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def cluster(request: pytest.FixtureRequest) -> None:
    """Nothing but the programs: each of these tests makes nodes of its own."""
    building.insist(request)
    try:
        require()
    except BadInput as obstacle:
        pytest.skip(str(obstacle))


@pytest.fixture
def killed() -> Iterator[None]:
    """Nodes whose maker was killed while they were up."""
    with subprocess.Popen(
        [sys.executable, "-c", MAKER], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as maker:
        assert maker.stdout
        assert maker.stdout.readline() == "up\n"
        maker.send_signal(signal.SIGKILL)
    yield
    remove()


def remove() -> str:
    command = [sys.executable, "-m", "deploy.cluster.nodes", "remove", "--prefix", PREFIX]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_a_pod(up: RealNodes, node: str) -> None:
    """Run a pod that is not in the node's own network, until it is ready."""
    image = up.registry.push("one", image_of(programs.program("pause"), up.folder / "images"))
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "one", "namespace": "default"},
        "spec": {"nodeName": node, "containers": [{"name": "one", "image": image}]},
    }
    up.plane.admin.apply(pod)
    up.plane.admin.until("/api/v1/namespaces/default/pods/one", is_ready)


def test_nodes_that_end_in_order_leave_nothing() -> None:
    with nothing_is_left(PREFIX):
        with real_nodes(lambda _: None, SMALL) as up:
            run_a_pod(up, "gw-1")
        assert not cgroups.leftovers(f"{PREFIX}*")
        assert not folder_of(PREFIX).exists()


def test_what_killed_nodes_left_is_removed_by_a_command(killed: None) -> None:
    assert namespaces.existing(PREFIX), "a killed maker should leave something, or this test proves nothing"
    assert cgroups.leftovers(f"{PREFIX}*")
    assert folder_of(PREFIX).exists()
    assert "removed 4 namespaces" in remove()
    assert not namespaces.existing(PREFIX)
    assert not cgroups.leftovers(f"{PREFIX}*")
    assert not folder_of(PREFIX).exists()


def test_two_clusters_beside_each_other_do_not_meet() -> None:
    other = Size(nodes=1, clients=1, prefix="pstm-")
    with nothing_is_left(PREFIX), real_nodes(lambda _: None, SMALL) as one:
        run_a_pod(one, "gw-1")
        with real_nodes(lambda _: None, other) as two:
            run_a_pod(two, "gw-1")
            assert (
                two.plane.admin.get("/api/v1/nodes/gw-1")["metadata"]["uid"]
                != (one.plane.admin.get("/api/v1/nodes/gw-1")["metadata"]["uid"])
            )
        one.wait_ready("gw-1")
