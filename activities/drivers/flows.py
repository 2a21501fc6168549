"""The flows that the kernel tracks (conntrack), where it must forget some.

A redirected UDP flow keeps its instance for as long as packets come, whatever the table says by then: 120
seconds after the last one, which a client that tries again and again never lets pass.
"""

import re
import socket
import struct
from collections.abc import Iterable, Mapping
from datetime import timedelta
from errno import ENOENT
from ipaddress import IPv4Address, IPv6Address
from os import strerror
from typing import NamedTuple

from activities.drivers.programs import run
from policies.model.errors import Unavailable

_NOTHING = "0 flow entries have been deleted"
_LISTED = re.compile(
    r"src=(?P<source>\S+) dst=(?P<to>\S+) sport=(?P<source_port>\d+) dport=(?P<port>\d+) .*?src=(?P<home>\S+)"
)

# Words of netlink(7) and of the kernel's nfnetlink_conntrack.h.
_NETLINK_NETFILTER = 12
_DELETE = (1 << 8) | 2
_REQUEST_AND_ANSWER = 1 | 4
_NESTED = 1 << 15
_ORIGINAL, _IP, _PROTOCOL = 1 | _NESTED, 1 | _NESTED, 2 | _NESTED
_FROM, _TO = 1, 2
_UDP, _NUMBER, _PORT_FROM, _PORT_TO = 17, 1, 2, 3
_ANSWER = timedelta(seconds=1)
_HEADER_BYTES = 16
_ANSWER_BYTES = 4096


class Flow(NamedTuple):
    """One UDP flow over IPv4 as its packets come, before they are sent elsewhere."""

    source: IPv4Address
    source_port: int
    to: IPv4Address
    port: int


async def forget_flows(port: int, source: IPv4Address | IPv6Address | None = None, of: int = 0) -> None:
    """Have the kernel forget UDP flows that it redirects to this port: all, or those of a source's port.

    Raises:
        Unavailable: It does not, or `conntrack` is not installed.
    """
    versions = (4, 6) if source is None else (source.version,)
    of_source = () if source is None else ("--orig-src", str(source), "--orig-port-src", str(of))
    for version in versions:
        command = ["conntrack", "-D", "-f", f"ipv{version}", "-p", "udp", "--reply-port-src", str(port)]
        done = await run([*command, *of_source])
        if done.status and _NOTHING not in done.err:
            raise Unavailable(f"flows to port {port} cannot be forgotten: {done.last_words}")


async def flows_to(homes: Iterable[IPv4Address]) -> Mapping[IPv4Address, tuple[Flow, ...]]:
    """Return the UDP flows that are sent to each of these addresses.

    Raises:
        Unavailable: The kernel does not say, or `conntrack` is not installed.
    """
    listed = await run(["conntrack", "-L", "-f", "ipv4", "-p", "udp"])
    if listed.status:
        raise Unavailable(f"the flows of this host cannot be listed: {listed.last_words}")
    found: dict[IPv4Address, list[Flow]] = {home: [] for home in homes}
    for one in _LISTED.finditer(listed.out):
        flows = found.get(IPv4Address(one["home"]))
        source, to = IPv4Address(one["source"]), IPv4Address(one["to"])
        if flows is not None and to != IPv4Address(one["home"]):
            flows.append(Flow(source, int(one["source_port"]), to, int(one["port"])))
    return {home: tuple(flows) for home, flows in found.items()}


def forget(flows: Iterable[Flow]) -> int:
    """Have the kernel forget exactly these flows, at once; return how many it still had.

    By a message of its own for each, which takes it no time: a client may send its next packet any moment.

    Raises:
        Unavailable: It does not.
    """
    forgotten = 0
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as kernel:
            kernel.settimeout(_ANSWER.total_seconds())
            for number, flow in enumerate(flows, start=1):
                kernel.send(_deletion(flow, number))
                failed = -int(struct.unpack_from("=i", kernel.recv(_ANSWER_BYTES), _HEADER_BYTES)[0])
                if failed not in (0, ENOENT):
                    raise OSError(failed, strerror(failed))  # noqa: TRY301 - told like every other one
                forgotten += failed == 0
    except OSError as error:
        raise Unavailable(f"flows cannot be forgotten: {error.strerror or error}") from error
    return forgotten


def _deletion(flow: Flow, number: int) -> bytes:
    addresses = _attribute(_FROM, flow.source.packed) + _attribute(_TO, flow.to.packed)
    ports = (
        _attribute(_NUMBER, bytes([_UDP]))
        + _attribute(_PORT_FROM, struct.pack("!H", flow.source_port))
        + _attribute(_PORT_TO, struct.pack("!H", flow.port))
    )
    asked = struct.pack("=BBH", socket.AF_INET, 0, 0)
    asked += _attribute(_ORIGINAL, _attribute(_IP, addresses) + _attribute(_PROTOCOL, ports))
    return struct.pack("=IHHII", _HEADER_BYTES + len(asked), _DELETE, _REQUEST_AND_ANSWER, number, 0) + asked


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
