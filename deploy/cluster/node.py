"""A real node: containerd, kubelet and kube-proxy in namespaces of their own, in a gateway's network.

It loses its power when its process 1 is killed: every process of it dies, and its mounts are gone. Its disk
stays, a folder, until all is removed.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from deploy.cluster import cgroups, node_files, programs
from deploy.cluster.node_files import NodeIdentity
from deploy.lab.processes import Process
from deploy.lab.topology import Host
from policies.model.errors import Unavailable

SCRIPT = Path(__file__).with_name("node.sh")
ROOT = Path(__file__).parents[2]
SERVICES = ("containerd", "kubelet", "kube-proxy")
_NAMESPACES = ("--mount", "--pid", "--ipc", "--uts", "--cgroup")
_INTO = 'while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs"; shift; done; shift; exec "$@"'
# nsenter waits in front of the command, which would outlive it; so the command dies with it.
_ENTER = (
    'unset TMPDIR; exec nsenter --target="$(cat "$0")" --mount --pid --net --uts --ipc --cgroup --wd -- '
    'setpriv --pdeathsig KILL "$@"'
)
_POLL = 0.02
_BEGUN_WITHIN = 30.0


class Node:
    """One node of a cluster, which is the host of one gateway."""

    def __init__(self, host: Host, folder: Path, seen: Sequence[Path] = ()) -> None:
        """Take whose network it is in, where its disk is, and which folders of this machine it sees, too."""
        self.host = host
        self._seen = tuple(seen)
        self.name = host.name
        self.disk = folder / "disk"
        self._log = folder / "node.log"
        self._kept = folder / "process-1"
        self._outer: Process | None = None
        self._first: int | None = None

    def prepare(self, identity: NodeIdentity, registry: str, sandbox: str) -> None:
        """Write its new disk; see `node_files.write`."""
        node_files.write(self.disk, identity, registry, sandbox)

    def start(self) -> None:
        """Give it power; when it has, nothing happens.

        Raises:
            BadInput: this machine has no control groups of version 1.
            Unavailable: it does not begin; its log is quoted.
        """
        if self._outer and self._outer.pid:
            return
        groups = cgroups.make(self.host.namespace)
        controllers = " ".join(cgroups.hierarchies())
        inside: list[str | Path] = [SCRIPT, self.name, self.disk, controllers, *_seen(self._seen)]
        unshare = ["unshare", *_NAMESPACES, "--fork", "--kill-child", *inside]
        command = ["sh", "-c", _INTO, "sh", *groups, "--", *unshare]
        self._outer = Process(self.name, command, log=self._log, namespace=self.host.namespace)
        self._outer.start()
        self._first = self._begun(self._outer)
        self._kept.write_text(str(self._first))

    @property
    def process_1(self) -> int:
        """The pid, as this machine has it, of the node's process 1.

        Raises:
            Unavailable: the node has no power.
        """
        # Were it not the child of ours any more, its number could be another's by now.
        if self._outer is None or self._first not in _children(self._outer.pid):
            raise Unavailable(f"{self.name} has no power")
        return self._first

    def lose_power(self) -> None:
        """End everything of it at once, as a power cut would; its disk stays."""
        if self._outer is None:
            return
        with suppress(Unavailable):
            self._kill(self.process_1)
        self._outer.kill()
        self._first = None
        cgroups.remove(self.host.namespace)

    def pids(self, service: str) -> list[int]:
        """Return the pids, as this machine has them, of its processes of that program, pods' too."""
        return [pid for pid in cgroups.members(self.host.namespace) if _program(pid) == service]

    def kill(self, service: str) -> None:
        """Kill a service; it is started again a second later.

        Raises:
            Unavailable: it does not run.
        """
        self._send(service, signal.SIGKILL)

    def freeze(self, service: str) -> None:
        """Stop a service without ending it.

        Raises:
            Unavailable: it does not run.
        """
        self._send(service, signal.SIGSTOP)

    def thaw(self, service: str) -> None:
        """Let a frozen service go on."""
        self._send(service, signal.SIGCONT)

    def hold(self, service: str) -> None:
        """Kill a service, and keep it from being started again until `release`."""
        self._held(service).touch()
        self._send(service, signal.SIGKILL)

    def release(self, service: str) -> None:
        """Let a service that was held be started again, within a second."""
        self._held(service).unlink(missing_ok=True)

    def run(self, *command: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a program as one of the node's own; what it printed and its code are in the answer.

        Raises:
            Unavailable: the node has no power.
        """
        _ = self.process_1  # refuses a node without power
        return subprocess.run(
            [*self.entered(), *command], input=stdin, text=True, capture_output=True, check=False
        )

    def entered(self) -> list[str]:
        """Return what, before a command, makes it a command of the node, also after it had no power."""
        return ["sh", "-c", _ENTER, str(self._kept)]

    def last_lines(self, service: str, count: int = 5) -> list[str]:
        """Return the end of a service's log."""
        log = self.disk / "var" / "log" / f"{service}.log"
        return log.read_text(errors="replace").splitlines()[-count:] if log.is_file() else []

    def _held(self, service: str) -> Path:
        return self.disk / node_files.PLACE.relative_to("/") / f"{service}.service.held"

    def _begun(self, outer: Process) -> int:
        deadline = time.monotonic() + _BEGUN_WITHIN
        while True:
            for pid in _children(outer.pid):
                if _is_at(pid, self.disk):
                    return pid
            if outer.pid is None or time.monotonic() > deadline:
                said = " / ".join(outer.last_lines(2)) or "nothing"
                outer.kill()
                raise Unavailable(f"node {self.name} does not begin; it said: {said}")
            time.sleep(_POLL)

    def _send(self, service: str, number: signal.Signals) -> None:
        pids = self.pids(service)
        if not pids:
            raise Unavailable(f"{service} does not run on {self.name}")
        for pid in pids:
            self._kill(pid, number)

    def _kill(self, pid: int, number: signal.Signals = signal.SIGKILL) -> None:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return


def _seen(also: Sequence[Path]) -> Sequence[Path]:
    """Return the folders of this machine that a node sees: programs, this checkout, its Python, and more."""
    wanted = [programs.cache(), ROOT, Path(sys.prefix), Path(sys.base_prefix), *also]
    seen: list[Path] = []
    for folder in (path.resolve() for path in wanted):
        if not any(folder.is_relative_to(one) for one in [Path("/usr"), *seen]):
            seen.append(folder)
    return seen


def _is_at(pid: int, disk: Path) -> bool:
    """Say whether a process has that folder as its root."""
    try:
        return Path(f"/proc/{pid}/root").samefile(disk)
    except OSError:
        return False


def _program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/exe").readlink().name
    except OSError:
        return ""


def _children(pid: int | None) -> list[int]:
    try:
        return [int(number) for number in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
