"""The lab's network: a hub, gateways, users' sites and a place where logins come from.

```
  hub 198.18.0.1 ── bridge ──┬── gw-N    198.18.1.N   inside target 10.99.0.1 on lo
  (control plane)            ├── site-NN 198.18.2.N   one user each
                             └── load    198.18.3.1…  many users who only log in
```
198.18.0.0/15 is set aside for tests of network devices (RFC 2544), 2001:db8::/32 for
documentation (RFC 3849). Both ends of every cable are made inside the namespaces, so the
machine's own network never sees the lab.
"""

import os
import re
import socket
import struct
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from deploy.lab import namespaces
from orchestrator.settings import state_folder
from policies.model.errors import BadInput, Conflict, PenstockError, Unavailable

PREFIX = "pst-"
TARGET4, TARGET6 = "10.99.0.1", "fd99::1"
LOAD_ADDRESSES = 200
_CLAIMS = "\0penstock-lab-"
_COMMAND_SHOWN = 120


@dataclass(frozen=True)
class Host:
    """One namespace of the lab with its addresses."""

    name: str
    namespace: str
    address4: str
    address6: str
    management4: str = ""
    """Of a gateway: its address off its users' network, where its metrics are."""


class Topology:
    """The namespaces of one lab, told apart from others by their prefix."""

    def __init__(self, *, gateways: int = 4, sites: int = 24, prefix: str = PREFIX) -> None:
        self.prefix = prefix
        self.hub = self._host("hub", 0, 1)
        self.gateways = [
            replace(self._host(f"gw-{number}", 1, number), management4=f"198.18.4.{number}")
            for number in range(1, gateways + 1)
        ]
        self.sites = [self._host(f"site-{number:02}", 2, number) for number in range(1, sites + 1)]
        self.load = self._host("load", 3, 1)

    @property
    def hosts(self) -> list[Host]:
        """Every host, the hub first."""
        return [self.hub, *self.gateways, *self.sites, self.load]

    @property
    def load_network(self) -> str:
        """The network of the login load's addresses."""
        return "198.18.3.0/24"

    @property
    def load_addresses(self) -> list[str]:
        """The source addresses of the login load: shares are shares of source addresses."""
        return [f"198.18.3.{number}" for number in range(1, LOAD_ADDRESSES + 1)]

    def build(self) -> None:
        """Make the network; what an earlier lab left is removed first.

        Raises:
            Unavailable: the kernel or `ip` refused a step; everything is removed again.
        """
        self.tear_down()
        try:
            _ip(None, self._cables())
            _ip(self.hub.namespace, self._bridge())
            for host in self.hosts:
                _ip(host.namespace, self._addresses(host))
                _allow(host)
        except BaseException:
            self.tear_down()
            raise

    def leftovers(self) -> list[str]:
        """Return the namespaces of this prefix that exist now, of this size of lab or any other."""
        ours = re.compile(re.escape(self.prefix) + r"(hub|load|gw-\d+|site-\d+)")
        return [name for name in namespaces.existing(self.prefix) if ours.fullmatch(name)]

    def tear_down(self) -> int:
        """Remove every namespace of this prefix and end what lives in them; return how many processes.

        Safe at any time and any number of times, also for the leavings of a lab that was killed.

        Raises:
            Unavailable: a process does not die; its namespace is kept, so that it can be found again.
        """
        names = self.leftovers()
        ended = namespaces.end_inhabitants(names)
        _ip(None, [f"netns del {name}" for name in names], force=True)
        return ended

    def _host(self, name: str, third: int, fourth: int) -> Host:
        return Host(
            name, f"{self.prefix}{name}", f"198.18.{third}.{fourth}", f"2001:db8:18::{third}:{fourth}"
        )

    def _cables(self) -> list[str]:
        ends = [host for host in self.hosts if host is not self.hub]
        return [f"netns add {host.namespace}" for host in self.hosts] + [
            f"link add eth0 netns {host.namespace} type veth peer name {host.name} netns {self.hub.namespace}"
            for host in ends
        ]

    def _bridge(self) -> list[str]:
        ports = [host.name for host in self.hosts if host is not self.hub]
        return [
            "link add eth0 type bridge mcast_snooping 0",
            *(f"link set {port} master eth0 up" for port in ports),
        ]

    def _addresses(self, host: Host) -> list[str]:
        lines = [
            "link set lo up",
            "link set eth0 up",
            f"addr add {host.address4}/16 dev eth0",
            f"addr add {host.address6}/64 dev eth0 nodad",
        ]
        if host in self.gateways:
            lines.append(f"addr add {host.management4}/16 dev eth0")
            lines += [f"addr add {TARGET4}/32 dev lo", f"addr add {TARGET6}/128 dev lo nodad"]
            # One neighbour instead of two hundred: the kernel keeps 1024 for all namespaces together
            # (gc_thresh3, arp(7)), and beyond that nobody can connect any more, in any lab.
            lines.append(f"route add {self.load_network} via {self.load.address4}")
        if host is self.load:
            lines += [f"addr add {address}/16 dev eth0" for address in self.load_addresses[1:]]
        return lines


class Claim:
    """The right to have a lab of this prefix on this machine; held by one process, freed by its end.

    A listening socket in the abstract namespace (unix(7)) leaves no file behind, whatever kills us,
    and tells the next one who holds it.
    """

    def __init__(self, prefix: str = PREFIX) -> None:
        self._address = f"{_CLAIMS}{prefix}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def __enter__(self) -> Self:
        """Take it.

        Raises:
            Conflict: another process has it; the sentence names its pid and its command.
        """
        try:
            self._socket.bind(self._address)
        except OSError:
            self._socket.close()
            raise Conflict(
                f"another lab is running on this machine ({_holder(self._address)}): "
                "wait for it or stop it first"
            ) from None
        self._socket.listen()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


def other_labs() -> dict[str, str]:
    """Return the labs that other people have here: prefix → the pid and command that holds it.

    What this process and its children hold is its own.
    """
    listed = Path("/proc/net/unix").read_text().splitlines()
    addresses = {line.split()[-1].replace("@", "\0", 1) for line in listed}
    return {
        address.removeprefix(_CLAIMS): _holder(address)
        for address in sorted(addresses)
        if address.startswith(_CLAIMS) and not _is_ours(_pid_of(address))
    }


def _pid_of(address: str) -> int | None:
    """Return who listens there: 0 in another container, None when nobody does any more."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        try:
            caller.connect(address)
        except OSError:
            return None
        credentials = caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid: int = struct.unpack("3i", credentials)[0]
    return pid


def _holder(address: str) -> str:
    pid = _pid_of(address)
    if pid is None:
        return "pid unknown"
    if pid == 0:
        return "in another container"
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        command = ""
    return f"pid {pid}: {command.strip()[:_COMMAND_SHOWN]}" if command else f"pid {pid}"


def _is_ours(pid: int | None) -> bool:
    """Say whether that is this process or came from it; nobody at all is no one else, either."""
    if pid is None:
        return True
    while pid > 1:
        if pid == os.getpid():
            return True
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return False
    return False


def _allow(host: Host) -> None:
    """Let the namespace forward packets and root send pings from an ordinary socket (icmp(7))."""
    settings = Path("/proc/sys/net")
    try:
        with namespaces.inside(host.namespace):
            (settings / "ipv4/ip_forward").write_text("1")
            (settings / "ipv6/conf/all/forwarding").write_text("1")
            (settings / "ipv4/ping_group_range").write_text("0 0")
    except OSError as error:
        raise BadInput(f"cannot set up namespace {host.namespace}: {error}; the lab needs root") from error


def _ip(namespace: str | None, lines: list[str], *, force: bool = False) -> None:
    """Run many `ip` commands in one process."""
    command = [
        "ip",
        *(["-netns", namespace] if namespace else []),
        *(["-force"] if force else []),
        "-batch",
        "-",
    ]
    done = subprocess.run(command, input="\n".join(lines), text=True, capture_output=True, check=False)
    if done.returncode and not force:
        first = (done.stderr.strip() or "no message").splitlines()[0]
        raise Unavailable(f"cannot build the lab's network in {namespace or 'the kernel'}: {first}")


def _main(arguments: list[str]) -> int:
    """Remove what a lab left; refuse while one runs."""
    if arguments != ["remove"]:
        print("usage: python -m deploy.lab.topology remove", file=sys.stderr)
        return BadInput.exit_code
    topology = Topology()
    try:
        with Claim(topology.prefix):
            left = topology.leftovers()
            ended = topology.tear_down()
            namespaces.end_rooted(state_folder().absolute())
    except PenstockError as problem:
        print(problem, file=sys.stderr)
        return problem.exit_code
    print(f"removed {len(left)} namespaces and {ended} processes of a lab")
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
