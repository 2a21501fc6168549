"""Listen for at most so many callers: where all places are taken, a newcomer gets that of a stranger.

uvicorn's own limit refuses the newcomer instead, so that whoever opens connections and says nothing keeps
everybody else out. It also begins to count after the TLS handshake, which a stranger need not begin.
"""

import asyncio
import logging
import socket
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import uvicorn
from uvicorn.server import ServerState

from orchestrator.crowd import crowd_of
from orchestrator.request_heads import BoundedRequests

STRANGER_SECONDS = 10.0
"""How long a caller may take from its first packet to a request that says who it is."""
ANSWER_SECONDS = 10.0
"""How long a caller who is known may take to receive an answer."""
KEPT_SECONDS = 120.0
"""How long one may stay without another request: longer than Prometheus waits between two scrapes."""

CALLER = "caller"
"""Under this name an application finds its caller in the state of a request."""

_LOOK_SECONDS = 1.0
_SHUTDOWN_SECONDS = 2.0
_AGAIN_SECONDS = 0.1
"""How long until a host without free descriptors is asked for a connection again."""

_log = logging.getLogger(__name__)


async def accepted(port: socket.socket) -> AsyncIterator[tuple[socket.socket, str]]:
    """Yield each connection to a port that does not block, and the address from which it comes."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            connection, address = await loop.sock_accept(port)
        except OSError as error:  # the caller has gone again, or this host is out of descriptors
            _log.warning("a connection was not accepted: %s", error)
            await asyncio.sleep(_AGAIN_SECONDS)
            continue
        yield connection, address[0]


@dataclass(eq=False)
class Caller:
    """One connection, from its first packet on."""

    socket: socket.socket
    address: str
    since: float = field(default_factory=time.monotonic)
    known: bool = False
    protocol: "_Protocol | None" = None
    receiving: "asyncio.Task[None] | None" = None

    def recognise(self) -> None:
        """Note that it has shown who it is, just now."""
        self.known, self.since = True, time.monotonic()

    def is_late(self, now: float) -> bool:
        """Say whether it has had its place for too long."""
        if not self.known:
            return now - self.since > STRANGER_SECONDS
        cycle = self.protocol.cycle if self.protocol is not None else None
        answering = cycle is not None and not cycle.response_complete
        return now - self.since > (ANSWER_SECONDS if answering else KEPT_SECONDS)

    def dismiss(self) -> None:
        """End the connection at once, whatever is still to be said."""
        if self.receiving is not None:
            self.receiving.cancel()
        if self.protocol is not None and self.protocol.transport is not None:
            self.protocol.transport.abort()


class _Protocol(BoundedRequests):
    """HTTP/1.1 that tells when its connection has ended."""

    listening: "Listening"
    caller: Caller

    def connection_lost(self, exc: Exception | None) -> None:
        self.listening.forget(self.caller)
        super().connection_lost(exc)


class Listening:
    """The callers of one application at one port."""

    def __init__(self, config: uvicorn.Config, tls: Callable[[], ssl.SSLContext] | None, most: int) -> None:
        """Take what is answered, what new connections are encrypted by, and how many there are at most."""
        config.load()
        self._config = config
        self._tls = tls
        self._most = most
        self._state = ServerState()
        self._callers: set[Caller] = set()

    @asynccontextmanager
    async def at(self, port: socket.socket) -> AsyncIterator[None]:
        """Answer at this listening socket for the length of the body; it is closed at its end."""
        port.setblocking(False)
        tasks = [asyncio.create_task(one) for one in (self._accept(port), self._look_after())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            for caller in [*self._callers]:
                self._dismiss(caller)
            port.close()

    def forget(self, caller: Caller) -> None:
        """Give the place of a connection that has ended free."""
        self._callers.discard(caller)

    async def _accept(self, port: socket.socket) -> None:
        async for connection, address in accepted(port):
            self._make_room()
            caller = Caller(connection, address)
            self._callers.add(caller)
            caller.receiving = asyncio.create_task(self._receive(caller))
            await asyncio.sleep(0)  # so that the descriptors of those who were dismissed are closed

    async def _receive(self, caller: Caller) -> None:
        def protocol() -> _Protocol:
            made = _Protocol(self._config, self._state, {CALLER: caller})
            made.listening, made.caller = self, caller
            caller.protocol = made
            return made

        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                protocol,
                caller.socket,
                ssl=self._tls and self._tls(),
                ssl_shutdown_timeout=_SHUTDOWN_SECONDS if self._tls is not None else None,
            )
        except OSError:  # no handshake came of it
            self.forget(caller)
            caller.socket.close()
        except asyncio.CancelledError:
            caller.socket.close()
            raise

    async def _look_after(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            now = time.monotonic()
            for caller in [one for one in self._callers if one.is_late(now)]:
                self._dismiss(caller)

    def _make_room(self) -> None:
        """Have one place free: of strangers before those who are known, of the largest crowd, the oldest."""
        while len(self._callers) >= self._most:
            waiting = [one for one in self._callers if not one.known] or [*self._callers]
            crowds = Counter(crowd_of(one.address) for one in waiting)
            self._dismiss(min(waiting, key=lambda one: (-crowds[crowd_of(one.address)], one.since)))

    def _dismiss(self, caller: Caller) -> None:
        self.forget(caller)
        caller.dismiss()
