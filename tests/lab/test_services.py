"""The engine and Prometheus of a lab: ready when they answer, clear when they cannot, whole after a kill."""

import http.client
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.lab import namespaces
from deploy.lab.credentials import Credentials, issue
from deploy.lab.daemons.ocserv import LabOcserv
from deploy.lab.services import Engine, Prometheus
from deploy.lab.topology import Host, Topology
from policies.model.errors import Conflict, Unavailable
from tests.lab.network import network
from tests.patience import PATIENCE, wait_until

PREFIX = "psts-"
pytestmark = pytest.mark.lab
TEMPORAL = Path(sys.executable).with_name("temporal")


@pytest.fixture(scope="module")
def topology() -> Iterator[Topology]:
    with network(PREFIX, gateways=2) as built:
        yield built


@pytest.fixture(scope="module")
def issued(topology: Topology, tmp_path_factory: pytest.TempPathFactory) -> Credentials:
    return issue(topology, tmp_path_factory.mktemp("credentials"), LabOcserv(), people=1)


def engine_says(engine: Engine, *arguments: str) -> str:
    with namespaces.inside(engine.host.namespace):
        done = subprocess.run(
            [TEMPORAL, *arguments, "--address", engine.address], text=True, capture_output=True, check=True
        )
    return done.stdout


def test_the_engine_comes_back_after_a_kill_with_everything_it_knew(
    topology: Topology, tmp_path: Path
) -> None:
    engine = Engine(topology, tmp_path)
    try:
        engine.start()
        engine_says(
            engine,
            "workflow",
            "start",
            "--type",
            "Change",
            "--task-queue",
            "none",
            "--workflow-id",
            "change/f",
        )
        engine.kill()
        assert engine.process.pid is None
        engine.start()
        assert '"change/f"' in engine_says(engine, "workflow", "list", "--output", "json")
        attributes = engine_says(engine, "operator", "search-attribute", "list", "--output", "json")
        assert {"Fleet", "Phase"} <= set(json.loads(attributes)["customAttributes"])
    finally:
        engine.stop()


def test_two_engines_never_share_one_file(topology: Topology, tmp_path: Path) -> None:
    first = Engine(topology, tmp_path)
    try:
        first.start()
        with pytest.raises(Conflict, match=r"engine\.sqlite is in use by another server"):
            Engine(topology, tmp_path, port=7234).start()
    finally:
        first.stop()


def test_a_taken_port_is_named(topology: Topology, tmp_path: Path) -> None:
    with namespaces.inside(topology.hub.namespace):
        taken = socket.create_server(("127.0.0.1", 7233))
    with taken, pytest.raises(Conflict, match=r"port 7233 of 127\.0\.0\.1 is in use"):
        Engine(topology, tmp_path).start()


def test_a_server_that_cannot_start_is_quoted(
    topology: Topology, issued: Credentials, tmp_path: Path
) -> None:
    (tmp_path / "prometheus").write_text("a file where a folder must be")
    with pytest.raises(Unavailable, match=r"prometheus does not answer at .*; it said: .*prometheus"):
        Prometheus(topology, tmp_path, issued).start(within=PATIENCE)


@pytest.mark.sweep
def test_prometheus_asks_every_gateway_and_says_which_do_not_answer(
    topology: Topology, issued: Credentials, tmp_path: Path
) -> None:
    prometheus = Prometheus(topology, tmp_path, issued)
    with exporter(topology.gateways[0]):
        prometheus.start()
        try:
            up: dict[str, str] = {}

            def are_asked() -> bool:
                nonlocal up
                up = {row["metric"]["instance"]: row["value"][1] for row in query(prometheus, "up")}
                return len(up) == 2

            wait_until(are_asked)
        finally:
            prometheus.stop()
    assert set(up) == {"198.18.4.1:9500", "198.18.4.2:9500"}
    assert up["198.18.4.2:9500"] == "0"


def exporter(host: Host) -> socket.socket:
    """A port that takes connections and says nothing."""
    with namespaces.inside(host.namespace):
        return socket.create_server((host.management4, 9500))


def query(prometheus: Prometheus, expression: str) -> list[dict[str, Any]]:
    connection = http.client.HTTPConnection(prometheus.host.address4, prometheus.port, timeout=5)
    with namespaces.inside(prometheus.host.namespace):
        connection.connect()
    connection.request("GET", f"/api/v1/query?query={expression}")
    result: list[dict[str, Any]] = json.loads(connection.getresponse().read())["data"]["result"]
    connection.close()
    return result
