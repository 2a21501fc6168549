"""Packet loss in tunnels: a few pings to each user's own tunnel address, now and then.

Where it is switched on, every tunnel is asked at most once in two minutes. One that answers no ping at all
says nothing: its device may refuse pings, or sleep. One that answers some of them and not others has loss.
Users of an instance in a network of its own are asked from there, as what is behind it would ask them.
"""

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from activities.drivers.foreign_sockets import opened_in
from activities.drivers.metrics.interfaces import Networks, nobodys_networks
from policies.model.errors import BadInput

AGAIN_SECONDS = 120.0
PINGS = 5
APART_SECONDS = 0.2
ANSWER_SECONDS = 1.0
AT_ONCE = 64
"""Tunnels that are asked in one round: 320 small packets in a second are nothing to a gateway."""

NEVER = float("-inf")

_REQUEST = {socket.AF_INET: 8, socket.AF_INET6: 128}
_PROTOCOL = {socket.AF_INET: socket.IPPROTO_ICMP, socket.AF_INET6: socket.IPPROTO_ICMPV6}
_HEADER = struct.Struct("!BBHHH")  # an echo (RFC 792, RFC 4443); kernel sets its checksum and its identifier

Instance = tuple[str, str]
"""Slot, and digest of the executable that runs there."""

Tunnel = tuple[str, str, str]
"""Slot, digest of the executable that runs there, and the user's address in the tunnel."""


def require_pings() -> None:
    """Return if this process may ping.

    Raises:
        BadInput: The kernel does not let it; the sentence says which setting does.
    """
    try:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP).close()
    except OSError as error:
        raise BadInput(
            f"exporter.probe_tunnels is set and this process may not ping ({error.strerror}): set "
            "net.ipv4.ping_group_range to a range with its group by sysctl, or take probe_tunnels out"
        ) from error


async def answered(addresses: Sequence[str], process: Path | None = None) -> dict[str, int]:
    """Return how many of the pings to each of these addresses were answered in time.

    They are sent from the network of that process, which its folder in `/proc` names; else from here.

    Raises:
        OSError: This process may not ping.
    """
    came = {address: set[int]() for address in addresses}
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as held:
        sockets: dict[int, socket.socket] = {}
        for family in {_family(address) for address in addresses}:
            one = held.enter_context(_opened(family, process))
            one.setblocking(False)
            loop.add_reader(one, _receive, one, came)
            held.callback(loop.remove_reader, one)
            sockets[family] = one
        for serial in range(1, PINGS + 1):
            for address in addresses:
                family = _family(address)
                packet = _HEADER.pack(_REQUEST[family], 0, 0, 0, serial)
                with contextlib.suppress(OSError):  # the session has just ended; nothing comes back
                    sockets[family].sendto(packet, (address, 0))
            await asyncio.sleep(APART_SECONDS if serial < PINGS else ANSWER_SECONDS)
    return {address: len(serials) for address, serials in came.items()}


def _opened(family: int, process: Path | None) -> socket.socket:
    how = family, socket.SOCK_DGRAM, _PROTOCOL[socket.AddressFamily(family)]
    return socket.socket(*how) if process is None else opened_in(process, *how)


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET if ip_address(address).version == 4 else socket.AF_INET6  # noqa: PLR2004 - IPv4


def _receive(one: socket.socket, came: Mapping[str, set[int]]) -> None:
    with contextlib.suppress(OSError):
        packet, peer = one.recvfrom(256)
        if len(packet) >= _HEADER.size and peer[0] in came:
            came[peer[0]].add(_HEADER.unpack(packet[: _HEADER.size])[4])


@dataclass
class _Count:
    probes: int = 0
    lossy: int = 0


@dataclass(eq=False)
class TunnelProbes(Collector):
    """Counts tunnels that were asked, and those of them that lost packets, of each instance."""

    networks: Networks = nobodys_networks
    _asked: dict[Tunnel, float] = field(default_factory=dict)
    _counts: dict[tuple[str, str], _Count] = field(default_factory=dict)

    async def ask(self, running: Iterable[Instance], tunnels: Iterable[Tunnel]) -> None:
        """Ask those whose turn it is, those that have waited longest first; forget instances that ended.

        Raises:
            OSError: This process may not ping.
        """
        now, there = time.monotonic(), list(tunnels)
        self._counts = {one: self._counts.get(one, _Count()) for one in running}
        self._asked = {one: self._asked[one] for one in there if one in self._asked}
        due = [one for one in there if now - self._asked.get(one, NEVER) >= AGAIN_SECONDS]
        chosen = sorted(due, key=lambda one: self._asked.get(one, NEVER))[:AT_ONCE]
        if not chosen:
            return
        self._asked |= dict.fromkeys(chosen, now)
        came = await self._answered(chosen)
        for slot, digest, address in chosen:
            if came[address] and (count := self._counts.get((slot, digest))) is not None:
                count.probes += 1
                count.lossy += came[address] < PINGS

    async def _answered(self, chosen: Sequence[Tunnel]) -> dict[str, int]:
        own = {slot: process for slot, (_, process) in self.networks().items()}
        came: dict[str, int] = {}
        for process in {own.get(slot) for slot, _, _ in chosen}:
            there = [address for slot, _, address in chosen if own.get(slot) == process]
            try:
                came |= await answered(there, process)
            except OSError:
                if process is None:
                    raise
                came |= dict.fromkeys(there, 0)  # it has just ended
        return came

    def describe(self) -> Iterable[Metric]:
        """Name nothing in advance: it depends on what runs."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield what was counted of the instances that ran when tunnels were last asked."""
        labels = ("slot", "digest")
        asked = CounterMetricFamily("vpngw_tunnel_probes", "Tunnels that answered pings", labels=labels)
        lossy = CounterMetricFamily(
            "vpngw_tunnel_probe_lossy", "Those of them that lost some of the pings", labels=labels
        )
        for (slot, digest), count in self._counts.copy().items():
            asked.add_metric([slot, digest], count.probes)
            lossy.add_metric([slot, digest], count.lossy)
        yield asked
        yield lossy
