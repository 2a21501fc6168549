"""Accept connections over TLS: until its handshake is done, a connection has one of so many places.

asyncio counts nothing before that, and each connection takes 256 KiB from its first packet on.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable

from orchestrator.api.peer import PATIENCE_SECONDS
from orchestrator.crowd import Connections, crowd_of
from orchestrator.processes.places import accepted


class Handshake:
    """One connection, until its handshake is done or has failed."""

    known = False
    idle = True
    done = False

    def __init__(self, connection: socket.socket, address: str, places: Connections) -> None:
        """Take what was accepted, from where, and whose place it has."""
        self.connection = connection
        self.crowd = crowd_of(address)
        self.places = places
        self.task: asyncio.Task[None] | None = None

    def dismiss(self) -> None:
        """End the connection at once."""
        self.places.forget(self)
        if self.task is not None:
            self.task.cancel()


class Handshakes:
    """The connections of one port that have not shown yet that they speak TLS."""

    def __init__(self, tls: ssl.SSLContext, most: int, protocol: Callable[[], asyncio.Protocol]) -> None:
        """Take what encrypts, how many handshakes there are at once, and what answers after one."""
        self._tls = tls
        self._places = Connections(most)
        self._protocol = protocol
        self._tasks = set[asyncio.Task[None]]()

    async def accept(self, port: socket.socket) -> None:
        """Accept connections until cancelled, one in each turn of the loop."""
        port.setblocking(False)
        try:
            async for connection, address in accepted(port):
                self._begin(Handshake(connection, address, self._places))
                await asyncio.sleep(0)
        finally:
            for task in self._tasks:
                task.cancel()

    def _begin(self, one: Handshake) -> None:
        one.task = asyncio.create_task(self._shake(one))
        self._tasks.add(one.task)
        one.task.add_done_callback(self._tasks.discard)
        one.task.add_done_callback(lambda _: self._end(one))
        self._places.take(one)

    async def _shake(self, one: Handshake) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._protocol,
                one.connection,
                ssl=self._tls,
                ssl_handshake_timeout=PATIENCE_SECONDS,
                ssl_shutdown_timeout=PATIENCE_SECONDS,
            )
        except OSError:  # no handshake came of it: the library closes the connection
            return
        one.done = True

    def _end(self, one: Handshake) -> None:
        """Give its place free, and close what is no connection over TLS."""
        self._places.forget(one)
        if not one.done:
            one.connection.close()
