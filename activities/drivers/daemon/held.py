"""A session that is held for a test, of any product: what its client was given, and what was on the wire.

The client pings through its tunnel with a payload that nobody else has. Whoever finds it between client
and daemon, on the client's own cable, has read what the tunnel should hide.
"""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from activities.drivers.daemon.client import ANSWERED, COUNTS, Client
from policies.model.errors import Unavailable

PINGS = 10
SMALL = 120
"""Bytes of a small ping with its headers."""
ANY_PROTOCOL = 0x0003
"""ETH_P_ALL (packet(7)): what comes and what goes."""
FRAME = 2**17
"""Bytes of the largest frame: the kernel may hand over several segments as one."""
RIGHT = "give the agent CAP_NET_RAW"
"""What mends a wire that cannot be read."""


@dataclass
class Wire:
    """What was seen between client and daemon."""

    bytes: int = 0
    plain: int = 0
    """Packets in which the payload of the pings lies open."""


@dataclass
class Held:
    """How far a client got, and how its pings fared."""

    let_in: bool = False
    mtu: int = 0
    routes: set[str] = field(default_factory=set)
    pings: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Sent and received, of `small` and `full` ones."""
    words: str = "it said nothing"
    wire: Wire = field(default_factory=Wire)

    @property
    def carried(self) -> int:
        """Bytes that the pings which came back took through the tunnel, both ways."""
        sizes = {"small": SMALL, "full": self.mtu}
        return sum(2 * sizes[kind] * received for kind, (_, received) in self.pings.items())


class PingCounts:
    """Reads what a client's script says of its pings."""

    def __init__(self, held: Held) -> None:
        """Take the session that they are of."""
        self._held = held
        self._kind, self._last = "small", 0

    def take(self, line: str) -> bool:
        """Return whether the line says something of pings, which is noted then."""
        if line in ("penstock: small", "penstock: full"):
            self._kind, self._last = line.rpartition(" ")[2], 0
        elif found := COUNTS.search(line):
            sent, received = int(found[1]), int(found[2])
            self._held.pings[self._kind] = self._last if received >= PINGS else sent, received
        elif found := ANSWERED.search(line):
            self._last = max(self._last, int(found[1]))
        else:
            return False
        return True


@contextmanager
def watched(caller: Client, payload: bytes, wire: Wire) -> Iterator[None]:
    """Look at every packet on the client's cable meanwhile, where that is ours to do.

    Raises:
        Unavailable: the wire cannot be read on this host.
    """
    loop = asyncio.get_running_loop()
    try:
        seen = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ANY_PROTOCOL))
    except OSError as error:
        if not caller.environment.own_networks:  # an agent on a node has no such right, and may do without
            yield
            return
        raise Unavailable(f"the wire of a test cannot be read on this host: {error}; {RIGHT}") from error
    with seen:
        seen.setblocking(False)
        seen.bind((caller.cable, 0))

        def look() -> None:
            with suppress(OSError):  # nothing more to read, or the cable has gone with its client
                while frame := seen.recv(FRAME):
                    wire.bytes += len(frame)
                    wire.plain += payload in frame

        loop.add_reader(seen, look)
        try:
            yield
        finally:
            look()
            loop.remove_reader(seen)
