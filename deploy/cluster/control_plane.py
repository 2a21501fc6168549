"""A real Kubernetes control plane in one folder: etcd, API server, controllers, scheduler; kwok as kubelets.

Its parts are this machine's processes, of the programs that `deploy.cluster.programs` builds, on ports that
nobody else has, and on loopback unless another address is given. They die with the thread that started them.
"""

import shutil
import signal
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from deploy.cluster import programs
from deploy.cluster.api import Answered, Api
from deploy.cluster.audit import POLICY, Audit
from deploy.cluster.identities import ADMIN, LOOPBACK, SERVICES, Identities, Person
from deploy.lab import namespaces
from deploy.lab.processes import Process
from deploy.ports import free_port
from policies.model.errors import Unavailable

STAGES = Path(__file__).with_name("stages.yaml")
ETCD, API, CONTROLLERS, SCHEDULER, KWOK = PARTS = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kwok",
)
"""In the order in which they are started."""
READY_WITHIN = 120.0
"""Seconds until the API serves; three on two idle cores."""
FOREVER = "24h"
"""How long controllers wait for a node's heartbeat: simulated nodes have none."""
_ACCOUNT = "/api/v1/namespaces/default/serviceaccounts/default"
_GRACE = 3.0
"""Seconds for a part to end. An API server whose watches are open would take sixty."""
_POLL = 0.03


@dataclass(frozen=True)
class Ports:
    """Where each part listens."""

    etcd: int
    peers: int
    api: int
    controllers: int
    scheduler: int

    @classmethod
    def free(cls, address: str = LOOPBACK) -> "Ports":
        """Return ports that nobody has now at this address, in the network namespace of the caller."""
        return cls(*(free_port(address) for _ in fields(cls)))


@dataclass(frozen=True)
class Choices:
    """What differs between control planes."""

    address: str = LOOPBACK
    """Where the API listens."""
    namespace: str | None = None
    """The network namespace of all parts; None is ours."""
    people: tuple[Person, ...] = ()
    """Who has a token beside the control plane's own; no group is no right."""
    names: tuple[str, ...] = ()
    """Further addresses and names that the API server is known by."""
    authorization: str = "RBAC"
    api_flags: tuple[str, ...] = ()
    controller_flags: tuple[str, ...] = ()
    node_patience: str = FOREVER
    """How long controllers wait for a node's heartbeat until it is not Ready."""
    requests_per_second: int = 500
    """Of controllers and scheduler each; Kubernetes' own default is 20 to 50."""
    simulated: bool = True
    """Whether kwok plays the kubelets."""
    stages: tuple[Mapping[str, Any], ...] = ()
    """Stages of kwok beside those of `stages.yaml`."""


class ControlPlane:
    """One control plane: started, asked, broken a part at a time, and ended."""

    def __init__(self, folder: Path, choices: Choices | None = None, *, ports: Ports | None = None) -> None:
        """Take where its files are; programs have to be built already.

        Raises:
            Unavailable: a program is not built here; the sentence says how it comes.
        """
        self.choices = choices or Choices()
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        with self._there():
            self.ports = ports or Ports.free(self.choices.address)
        self.server = f"https://{self.choices.address}:{self.ports.api}"
        names = (self.choices.address, *self.choices.names)
        self.identities = Identities(folder / "identities", people=self.choices.people, addresses=names)
        self.audit = Audit(folder / "audit.log")
        self.parts = {name: self._process(name) for name in PARTS if name != KWOK or self.choices.simulated}
        """The process of each part that this control plane has, by its program's name."""
        self.admin = self.api(ADMIN.name)
        """May do everything."""

    def api(self, person: str, *, agent: str = "penstock-test-admin", token: str | None = None) -> Api:
        """Return a client for a person with a token, or for the token of a service account."""
        known = token or self.identities.token(person)
        space = self.choices.namespace
        return Api(self.server, self.identities.authority, known, agent=agent, namespace=space)

    def kubeconfig(self, person: str, *, server: str | None = None, token: str | None = None) -> Path:
        """Return a file by which a person reaches the API, or a proxy before it."""
        return self.identities.kubeconfig(person, server or self.server, token=token)

    def start(self) -> None:
        """Start all parts; return when the API serves and pods can be made.

        Raises:
            Unavailable: a part has ended or is not ready in time; its last words are quoted.
        """
        end = time.monotonic() + READY_WITHIN
        for name in (ETCD, API):
            self.parts[name].start()
        self._until_serving(end)
        for name in list(self.parts)[2:]:
            self.parts[name].start()
        # Without it no pod is admitted; the controllers make it.
        self._until(lambda: self.admin.find(_ACCOUNT) is not None, end)

    def stop(self) -> None:
        """End all parts, those first that others wait for; files stay until the folder is removed."""
        for name in reversed(self.parts):
            self.parts[name].thaw()
            self.parts[name].stop(signal.SIGTERM, grace=_GRACE)

    def kill(self, name: str) -> None:
        """End one part as a power cut would."""
        self.parts[name].kill()

    def start_again(self, name: str) -> None:
        """Start a part that was killed; return when the API serves.

        Raises:
            Unavailable: it does not in time.
        """
        end = time.monotonic() + READY_WITHIN
        if name in (ETCD, API):
            self._until_free(name, end)
        self.parts[name].start()
        self._until_serving(end)

    def is_serving(self) -> bool:
        """Say whether the API calls itself ready; before that, it refuses what it would allow."""
        with suppress(Answered, Unavailable):
            return bool(self.admin.ask("GET", "/readyz") == "ok")
        return False

    def _until_serving(self, end: float) -> None:
        self._until(self.is_serving, end)

    def _until(self, holds: Any, end: float) -> None:
        while not self._quietly(holds):
            for part in self.parts.values():
                if part.exit_code is not None and part.pid is None and part.exit_code != -signal.SIGKILL:
                    raise Unavailable(f"{part.name} has ended with {part.exit_code}; it said: {_words(part)}")
            if time.monotonic() > end:
                raise Unavailable(f"{self.server} is not ready in time; it said: {_words(self.parts[API])}")
            time.sleep(_POLL)

    def _quietly(self, holds: Any) -> bool:
        with suppress(Answered, Unavailable):
            return bool(holds())
        return False

    def _until_free(self, name: str, end: float) -> None:
        """Wait until the kernel gives a killed server's port back."""
        where = (LOOPBACK, self.ports.etcd) if name == ETCD else (self.choices.address, self.ports.api)
        while True:
            with suppress(OSError), self._there(), socket.create_server(where):
                return
            if time.monotonic() > end:
                raise Unavailable(f"port {where[1]} of {where[0]} is still in use; end who has it")
            time.sleep(_POLL)

    def _there(self) -> Any:
        space = self.choices.namespace
        return namespaces.inside(space) if space else nullcontext()

    def _process(self, name: str) -> Process:
        command: list[str | Path] = [programs.program(name), *self._flags(name)]
        return Process(name, command, log=self.folder / f"{name}.log", namespace=self.choices.namespace)

    def _flags(self, name: str) -> Sequence[str]:
        match name:
            case "etcd":
                return self._etcd()
            case "kube-apiserver":
                return self._api()
            case "kube-controller-manager":
                return self._controllers()
            case "kube-scheduler":
                return self._scheduler()
            case _:
                return self._kwok()

    def _etcd(self) -> Sequence[str]:
        clients, peers = (f"http://{LOOPBACK}:{port}" for port in (self.ports.etcd, self.ports.peers))
        return (
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={clients}",
            f"--advertise-client-urls={clients}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=default={peers}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        )

    def _api(self) -> Sequence[str]:
        policy = self.folder / "audit-policy.yaml"
        policy.write_text(yaml.safe_dump(POLICY))
        known = self.identities
        key, certificate = known.server
        return (
            f"--etcd-servers=http://{LOOPBACK}:{self.ports.etcd}",
            f"--bind-address={self.choices.address}",
            f"--advertise-address={self.choices.address}",
            f"--secure-port={self.ports.api}",
            f"--tls-cert-file={certificate}",
            f"--tls-private-key-file={key}",
            f"--client-ca-file={known.authority}",
            f"--token-auth-file={known.token_list}",
            f"--service-account-key-file={known.service_account_key}",
            f"--service-account-signing-key-file={known.service_account_key}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--authorization-mode={self.choices.authorization}",
            f"--service-cluster-ip-range={SERVICES}",
            "--endpoint-reconciler-type=none",
            "--allow-privileged=true",
            f"--audit-policy-file={policy}",
            f"--audit-log-path={self.folder / 'audit.log'}",
            "--audit-log-maxsize=4000",
            *self.choices.api_flags,
        )

    def _controllers(self) -> Sequence[str]:
        key = self.identities.service_account_key
        return (
            *self._client("controller-manager", self.ports.controllers),
            f"--service-account-private-key-file={key}",
            f"--root-ca-file={self.identities.authority}",
            "--controllers=*,-node-ipam-controller,-cloud-node-lifecycle-controller",
            f"--node-monitor-grace-period={self.choices.node_patience}",
            *self.choices.controller_flags,
        )

    def _scheduler(self) -> Sequence[str]:
        return self._client("scheduler", self.ports.scheduler)

    def _client(self, person: str, port: int) -> Sequence[str]:
        rate = self.choices.requests_per_second
        return (
            f"--kubeconfig={self.kubeconfig(person)}",
            "--leader-elect=false",
            f"--bind-address={LOOPBACK}",
            f"--secure-port={port}",
            f"--kube-api-qps={rate}",
            f"--kube-api-burst={2 * rate}",
        )

    def _kwok(self) -> Sequence[str]:
        stages = self.folder / "stages.yaml"
        shutil.copyfile(STAGES, stages)
        with stages.open("a") as file:
            file.writelines(f"---\n{yaml.safe_dump(dict(stage))}" for stage in self.choices.stages)
        return (
            f"--kubeconfig={self.kubeconfig('kwok')}",
            "--manage-all-nodes=true",
            f"--config={stages}",
            "--node-lease-duration-seconds=0",
            f"--node-ip={LOOPBACK}",
        )


@contextmanager
def running(folder: Path, choices: Choices | None = None) -> Iterator[ControlPlane]:
    """Have a control plane for the length of the block; nothing of it runs after that."""
    plane = ControlPlane(folder, choices)
    try:
        plane.start()
        yield plane
    finally:
        plane.stop()
        plane.admin.close()


def _words(part: Process) -> str:
    return " / ".join(part.last_lines(3)) or "nothing"
