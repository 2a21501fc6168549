"""To which instance a HAProxy carries each source address, as it goes by on the gateway's loopback.

Neither HAProxy nor an instance is asked: each connection between them begins with a PROXY header (version
2), which names the user's address, and a packet socket reads it (packet(7)).
"""

import asyncio
import ipaddress
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from deploy.lab.namespaces import inside
from tests.patience import PATIENCE

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
"""The first bytes of a PROXY header of version 2 (HAProxy's `proxy-protocol.txt`)."""
TCP_OVER_IPV4 = 0x11
_ETH_P_IP = 0x0800
_SO_RCVBUFFORCE, _ROOM = 33, 16 * 1024 * 1024
"""Room for packets that wait to be read, beyond what the host gives others (socket(7))."""
AT_ONCE = 40
"""Connections begun together."""
READ_EVERY = 0.01
_SHORTEST_TCP = 20


class Carried:
    """The slots of one gateway to which connections go, by the user's address."""

    def __init__(self, listener: socket.socket, ports: Mapping[int, str]) -> None:
        """Take a packet socket on loopback, and the slots by their ports."""
        self._listener, self._ports = listener, ports
        self._awaited: dict[str, asyncio.Future[str]] = {}

    @contextmanager
    def awaited(self, source: str) -> Iterator[asyncio.Future[str]]:
        """Yield what becomes the slot to which the next connection from this address goes."""
        self._awaited[source] = asyncio.get_running_loop().create_future()
        try:
            yield self._awaited[source]
        finally:
            del self._awaited[source]

    def read(self) -> None:
        """Take in everything that has gone by."""
        with suppress(BlockingIOError):
            while True:
                self._note(self._listener.recv(256))

    def _note(self, packet: bytes) -> None:
        size = (packet[0] & 0x0F) * 4
        if packet[9] != socket.IPPROTO_TCP or len(packet) < size + _SHORTEST_TCP:
            return
        port = struct.unpack_from("!H", packet, size + 2)[0]
        header = packet[size + (packet[size + 12] >> 4) * 4 :]
        if port in self._ports and header.startswith(SIGNATURE) and header[13] == TCP_OVER_IPV4:
            found = self._awaited.get(str(ipaddress.IPv4Address(header[16:20])))
            if found is not None and not found.done():
                found.set_result(self._ports[port])


@contextmanager
def carried(namespace: str, ports: Mapping[int, str]) -> Iterator[Carried]:
    """Watch what goes by on the loopback of a gateway's namespace."""
    with inside(namespace):
        listener = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_IP))
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM)
        listener.bind(("lo", _ETH_P_IP))
        listener.setblocking(False)
        yield Carried(listener, ports)


def addresses(count: int) -> list[str]:
    """Return so many source addresses of 10.88.0.0/16, which nobody else has here."""
    return [f"10.88.{number // 250}.{number % 250 + 1}" for number in range(count)]


async def sides_of(
    watched: Carried,
    namespace: str,
    sources: Sequence[str],
    address: str,
    port: int,
    *,
    per_second: float = 100.0,
) -> dict[str, str]:
    """Connect once from each address, which the namespace has; return the slot to which each was carried.

    Whoever has arrived goes again at once: an instance takes that for a load balancer's look, and nobody
    for a login. It costs ocserv a process all the same: 400 a second are more than two cores can make, and
    for as long as it takes until all of them were made, nobody else gets in.

    Raises:
        TimeoutError: A connection was not accepted, or not carried to any slot.
    """
    loop = asyncio.get_running_loop()
    turn, begun = asyncio.Semaphore(AT_ONCE), loop.time()

    async def side(number: int, source: str) -> str:
        await asyncio.sleep(begun + number / per_second - loop.time())
        async with turn, asyncio.timeout(PATIENCE):
            with inside(namespace):
                caller = socket.socket()
            with caller, watched.awaited(source) as slot:
                caller.setblocking(False)
                caller.setsockopt(socket.IPPROTO_IP, socket.IP_BIND_ADDRESS_NO_PORT, 1)
                caller.bind((source, 0))
                await loop.sock_connect(caller, (address, port))
                return await slot

    async def read() -> None:
        while True:
            watched.read()
            await asyncio.sleep(READ_EVERY)

    reading = asyncio.create_task(read())
    try:
        found = await asyncio.gather(*(side(number, source) for number, source in enumerate(sources)))
    finally:
        reading.cancel()
    return dict(zip(sources, found, strict=True))
