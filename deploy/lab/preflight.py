"""What this machine must be before a lab is made: asked first, all of it, and nothing is changed."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from deploy.lab.daemons.ocserv import LabOcserv
from deploy.lab.daemons.port import LabDaemon
from deploy.lab.topology import Claim, Topology
from policies.model.errors import BadInput

PROGRAMS = {
    "nft": "nftables",
    "ip": "iproute2",
    "ping": "iputils-ping",
    "prometheus": "prometheus",
    "haproxy": "haproxy",
    "setpriv": "util-linux",
    "nsenter": "util-linux",
    "unshare": "util-linux",
}
"""The programs that every lab starts, each with the Debian package that brings it."""
OCSERV = LabOcserv()

TUN = Path("/dev/net/tun")
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"


def examine(daemon: LabDaemon = OCSERV) -> None:
    """Say everything that stands in the way of a lab here, one sentence each.

    Raises:
        BadInput: something does; nothing was changed.
    """
    if obstacles := list(_obstacles(daemon)):
        raise BadInput("\n".join(obstacles))


def is_able() -> bool:
    """Say whether real gateways can run here; without root or /dev/net/tun only a simulation can."""
    return os.geteuid() == 0 and TUN.exists()


def begin(topology: Topology, daemon: LabDaemon = OCSERV) -> tuple[Claim, str]:
    """Check the machine, claim the lab and clear away what an earlier one left.

    Returns the claim, to be held for the lab's whole life, and a sentence about what was cleared
    away, empty when there was nothing.

    Raises:
        BadInput: this machine cannot have a lab.
        Conflict: another lab is running.
    """
    examine(daemon)
    claim = Claim(topology.prefix).__enter__()
    left = topology.leftovers()
    if not left:
        return claim, ""
    ended = topology.tear_down()
    return claim, (
        f"cleared away what an earlier lab left: {len(left)} namespaces ({left[0]} …) and {ended} processes"
    )


def _obstacles(daemon: LabDaemon) -> Iterator[str]:
    if sys.platform != "linux":
        yield "the lab needs Linux: its gateways are network namespaces"
        return
    if os.geteuid() != 0:
        yield "the lab needs root to make network namespaces: run it as root"
    if not TUN.exists():
        yield (
            f"{TUN} is missing: `modprobe tun`, or give the container --device {TUN} "
            "and the capabilities NET_ADMIN and SYS_ADMIN"
        )
    programs = {**PROGRAMS, **daemon.programs}
    path = f"{os.environ.get('PATH', '')}:{_SBIN}"
    missing = sorted({package for name, package in programs.items() if not shutil.which(name, path=path)})
    if missing:
        yield f"programs are missing: `apt-get install --no-install-recommends {' '.join(missing)}`"
