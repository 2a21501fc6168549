"""What the lab's control plane leans on, in the hub: the engine's server and Prometheus.

Each is ready when it answers, not when its process exists; each says in one sentence why it is not.
"""

import fcntl
import http.client
import json
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import yaml

from deploy.lab import namespaces
from deploy.lab.credentials import Credentials
from deploy.lab.processes import Process
from deploy.lab.topology import Host, Topology
from orchestrator.engine import development as development_engine
from policies.model.errors import Conflict, Unavailable

ENGINE_PORT, PROMETHEUS_PORT, EXPORTER_PORT = 7233, 9090, 9500
LOOPBACK = "127.0.0.1"
JOB = "vpngw"
SHIPPED = Path(__file__).parents[1] / "monitoring" / "prometheus.yaml"
_OK = 200
_POLL = 0.05


def scrape_limits() -> dict[str, int | str]:
    """Return the limits of one gateway's metrics that the shipped configuration of Prometheus has."""
    jobs = yaml.safe_load(SHIPPED.read_text())["scrape_configs"]
    job = next(one for one in jobs if one["job_name"] == JOB)
    return {name: value for name, value in job.items() if name.endswith("_limit")}


class Service:
    """A server of the hub: one process, one port, one way to ask whether it is ready."""

    def __init__(
        self,
        name: str,
        host: Host,
        port: int,
        command: Sequence[str | Path],
        folder: Path,
        *,
        address4: str | None = None,
    ) -> None:
        """Take where it listens: at the host's own address, unless another is given."""
        self.host, self.port = host, port
        self._address4 = address4 or host.address4
        self.folder = folder
        self.process = Process(name, command, log=folder / f"{name}.log", namespace=host.namespace)

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"{self._address4}:{self.port}"

    def start(self, *, within: float = 30.0) -> None:
        """Ensure that it runs and answers; when it already is, nothing happens.

        Raises:
            Conflict: something else listens on its port.
            Unavailable: it ended, or does not answer in that time; its last words are quoted.
        """
        if self.process.pid is not None:
            return
        if self._listens():
            raise Conflict(
                f"{self.process.name}: port {self.port} of {self._address4} is in use: free it first"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        self.process.start()
        deadline = time.monotonic() + within
        while not (self._listens() and self.is_ready()):
            if self.process.pid is None or time.monotonic() > deadline:
                said = " / ".join(self.process.last_lines(2)) or "nothing"
                self.stop()
                raise Unavailable(f"{self.process.name} does not answer at {self.address}; it said: {said}")
            time.sleep(_POLL)

    def is_ready(self) -> bool:
        """Say whether it answers as it must."""
        return True

    def stop(self) -> None:
        """End it; it keeps its files and can be started again.

        Temporal's server can take five seconds to go. Its journal survives a harder end.
        """
        self.process.stop(signal.SIGTERM, grace=1.0)

    def kill(self) -> None:
        """End it as a power cut would; it can be started again."""
        self.process.kill()

    def _listens(self) -> bool:
        with namespaces.inside(self.host.namespace), socket.socket() as caller:
            caller.settimeout(1.0)
            return caller.connect_ex((self._address4, self.port)) == 0


class Engine(Service):
    """Temporal's development server with its state in one SQLite file; nobody outside the hub reaches it."""

    def __init__(self, topology: Topology, folder: Path, *, port: int = ENGINE_PORT) -> None:
        self._database = folder / "engine.sqlite"
        self._lock: TextIO | None = None
        self._program = development_engine.program()
        command = development_engine.command(LOOPBACK, port, self._database)
        # The search attributes must exist from the start.
        command += ["--search-attribute", "Fleet=Keyword", "--search-attribute", "Phase=Keyword"]
        super().__init__("temporal", topology.hub, port, command, folder, address4=LOOPBACK)

    def start(self, *, within: float = 30.0) -> None:
        """Ensure that it runs and serves; two servers on one file would damage it, so the file is locked.

        Raises:
            Conflict: another process has this file or this port.
            Unavailable: it does not come up.
        """
        if self._lock is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = (self.folder / "engine.lock").open("w")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                raise Conflict(f"{self._database} is in use by another server: stop that one first") from None
            self._lock = lock
        super().start(within=within)

    def is_ready(self) -> bool:
        """Ask for a workflow that is not there: only all its parts together can say so."""
        enter = ["nsenter", f"--net={namespaces.NAMES / self.host.namespace}"]
        asked = [self._program, "workflow", "describe", "--workflow-id", "none", "--address", self.address]
        done = subprocess.run([*enter, *asked], text=True, capture_output=True, check=False, timeout=30)
        return "not found" in done.stderr

    def stop(self) -> None:
        """End it and give the file free."""
        super().stop()
        if self._lock:
            self._lock.close()
            self._lock = None


class Prometheus(Service):
    """Prometheus, reading every exporter once a second, at its management address, with the token."""

    def __init__(
        self, topology: Topology, folder: Path, issued: Credentials, *, port: int = PROMETHEUS_PORT
    ) -> None:
        self._topology = topology
        self._issued = issued
        self._config = folder / "prometheus.json"
        command = [
            "prometheus",
            f"--config.file={self._config}",
            f"--storage.tsdb.path={folder / 'prometheus'}",
            "--storage.tsdb.retention.time=6h",
            f"--web.listen-address={topology.hub.address4}:{port}",
            "--log.level=warn",
        ]
        super().__init__("prometheus", topology.hub, port, command, folder)

    def start(self, *, within: float = 30.0) -> None:
        """Ensure that it runs with a configuration for this topology; see `Service.start`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        targets = [f"{host.management4}:{EXPORTER_PORT}" for host in self._topology.gateways]
        job = {
            "job_name": JOB,
            **scrape_limits(),
            "scheme": "https",
            "tls_config": {"ca_file": str(self._issued.authority)},
            "authorization": {"credentials_file": str(self._issued.metrics_token)},
            "static_configs": [{"targets": targets}],
        }
        # YAML is a superset of JSON.
        config = {"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": [job]}
        self._config.write_text(json.dumps(config, indent=1))
        super().start(within=within)

    def is_ready(self) -> bool:
        """Ask it."""
        with namespaces.inside(self.host.namespace):
            caller = socket.create_connection((self.host.address4, self.port), timeout=2)
        request = http.client.HTTPConnection(self.host.address4, self.port)
        request.sock = caller
        try:
            request.request("GET", "/-/ready")
            return request.getresponse().status == _OK
        except OSError:
            return False
        finally:
            request.close()
