"""The flows that the kernel tracks (conntrack), where it must forget some.

A redirected UDP flow keeps its instance for as long as packets come, whatever the table says by then: 120
seconds after the last one, which a client that tries again and again never lets pass.
"""

import asyncio
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from errno import ENOENT, ETIMEDOUT
from ipaddress import IPv4Address, IPv6Address
from os import strerror
from typing import NamedTuple

from activities.drivers.programs import run
from policies.model.errors import Unavailable

_NOTHING = "0 flow entries have been deleted"
# Words of netlink(7) and of the kernel's nfnetlink_conntrack.h.
_NETLINK_NETFILTER = 12
_LIST, _DELETE = (1 << 8) | 1, (1 << 8) | 2
_REQUEST_AND_ANSWER, _REQUEST_AND_ALL = 1 | 4, 1 | 0x300
_ERROR, _DONE = 2, 3
_NESTED = 1 << 15
_KIND = 0x3FFF
_ORIGINAL, _IP, _PROTOCOL = 1 | _NESTED, 1 | _NESTED, 2 | _NESTED
_REPLY = 2
_FROM, _TO = 1, 2
_UDP, _NUMBER, _PORT_FROM, _PORT_TO = 17, 1, 2, 3
_SIZE_AND_KIND = struct.Struct("=IH")
LOOK = timedelta(seconds=5)
"""How long one listing may take."""
_ANSWER = timedelta(seconds=1)
_HEADER_BYTES, _FAMILY_BYTES = 16, 4
_ANSWER_BYTES, _LISTING_BYTES = 4096, 256 * 1024


class Flow(NamedTuple):
    """One UDP flow over IPv4 as its packets come, before they are sent elsewhere."""

    source: IPv4Address
    source_port: int
    to: IPv4Address
    port: int


class Sent(NamedTuple):
    """A flow, and from which address and port it is answered."""

    flow: Flow
    home: IPv4Address
    home_port: int


class Flows(NamedTuple):
    """The flows that are sent to an address, and those that it began, whose answers come to it, too."""

    sent: tuple[Flow, ...]
    begun: tuple[Flow, ...]


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


async def flows_of(homes: Iterable[IPv4Address], within: timedelta = LOOK) -> Mapping[IPv4Address, Flows]:
    """Return the UDP flows of each of these addresses, to which others are redirected.

    Raises:
        Unavailable: The kernel does not say, or not in time.
    """
    sent: dict[IPv4Address, list[Flow]] = {home: [] for home in homes}
    begun: dict[IPv4Address, list[Flow]] = {home: [] for home in sent}
    for flow, home, _ in await _listing([home.packed for home in sent], within):
        if flow.source in begun:
            begun[flow.source].append(flow)
        elif home in sent and flow.to != home:
            sent[home].append(flow)
    return {home: Flows(tuple(sent[home]), tuple(begun[home])) for home in sent}


async def flows_to_port(port: int, within: timedelta = LOOK) -> tuple[Flow, ...]:
    """Return the UDP flows over IPv4 that are redirected to this port.

    Raises:
        Unavailable: The kernel does not say, or not in time.
    """
    mark = struct.pack("=HH", 6, _PORT_FROM) + struct.pack("!H", port)
    listed = await _listing([mark], within)
    return tuple(flow for flow, _, home_port in listed if home_port == port != flow.port)


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


async def _listing(marks: Sequence[bytes], within: timedelta) -> list[Sent]:
    try:
        return await asyncio.to_thread(_listed, marks, within)
    except OSError as error:
        raise Unavailable(f"the flows of this host cannot be listed: {error.strerror or error}") from error


def _listed(marks: Sequence[bytes], within: timedelta) -> list[Sent]:
    """Return the UDP flows over IPv4 that have one of these marks, in one listing of the kernel."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as kernel:
        kernel.settimeout(_ANSWER.total_seconds())
        kernel.send(_message(_LIST, _REQUEST_AND_ALL, 1, b""))
        return read_listing(lambda: kernel.recv(_LISTING_BYTES), marks, within)


def read_listing(receive: Callable[[], bytes], marks: Sequence[bytes], within: timedelta) -> list[Sent]:
    """Return the UDP flows that a listing of the kernel has with one of these marks.

    Of a table that has every user of a large gateway, and whatever else it forwards, few are of interest: the
    others are not parsed.

    Raises:
        OSError: The kernel says so, or it takes longer than it may.
    """
    found, until = list[Sent](), time.monotonic() + within.total_seconds()
    while True:
        answer, at = receive(), 0
        if time.monotonic() > until:
            raise TimeoutError(ETIMEDOUT, f"it took more than {within.total_seconds():.0f} s")
        marked = any(mark in answer for mark in marks)
        while at < len(answer):
            size, kind = _SIZE_AND_KIND.unpack_from(answer, at)
            if kind == _DONE:
                return found
            if kind == _ERROR:
                failed = -int(struct.unpack_from("=i", answer, at + _HEADER_BYTES)[0])
                raise OSError(failed, strerror(failed))
            if marked:
                told = answer[at + _HEADER_BYTES + _FAMILY_BYTES : at + size]
                if any(mark in told for mark in marks):
                    found += _flow_in(told)
            at += -(-size // 4) * 4


def _flow_in(told: bytes) -> Iterator[Sent]:
    parts = dict(_attributes(told))
    (source, to), (kind, source_port, port) = _tuple_in(parts[_ORIGINAL & _KIND])
    if kind == _UDP:
        (home, _), (_, home_port, _) = _tuple_in(parts[_REPLY])
        yield Sent(Flow(source, source_port, to, port), home, home_port)


def _tuple_in(told: bytes) -> tuple[tuple[IPv4Address, IPv4Address], tuple[int, int, int]]:
    """Return addresses, and protocol and ports, of one direction."""
    parts = dict(_attributes(told))
    addresses, ports = (dict(_attributes(parts[part & _KIND])) for part in (_IP, _PROTOCOL))
    source_port, port = (int.from_bytes(ports.get(one, b""), "big") for one in (_PORT_FROM, _PORT_TO))
    return (IPv4Address(addresses[_FROM]), IPv4Address(addresses[_TO])), (
        ports[_NUMBER][0],
        source_port,
        port,
    )


def _attributes(told: bytes) -> Iterator[tuple[int, bytes]]:
    while told:
        size, kind = struct.unpack_from("=HH", told)
        yield kind & _KIND, told[4:size]
        told = told[-(-size // 4) * 4 :]


def _deletion(flow: Flow, number: int) -> bytes:
    addresses = _attribute(_FROM, flow.source.packed) + _attribute(_TO, flow.to.packed)
    ports = (
        _attribute(_NUMBER, bytes([_UDP]))
        + _attribute(_PORT_FROM, struct.pack("!H", flow.source_port))
        + _attribute(_PORT_TO, struct.pack("!H", flow.port))
    )
    original = _attribute(_ORIGINAL, _attribute(_IP, addresses) + _attribute(_PROTOCOL, ports))
    return _message(_DELETE, _REQUEST_AND_ANSWER, number, original)


def _message(kind: int, flags: int, number: int, attributes: bytes) -> bytes:
    asked = struct.pack("=BBH", socket.AF_INET, 0, 0) + attributes
    return struct.pack("=IHHII", _HEADER_BYTES + len(asked), kind, flags, number, 0) + asked


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
