"""Listening for HTTP: who is slow, idle or too many costs a place for seconds and no more."""

import asyncio
import logging
import os
import resource
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from starlette.types import ASGIApp

from orchestrator.api.peer import PeerProtocol
from orchestrator.crowd import Connections
from orchestrator.processes.handshakes import Handshakes
from policies.model.errors import BadInput

KEPT_ALIVE_SECONDS = 20
BACKLOG = 1024
"""Connections that wait to be accepted: one that finds no room is tried again after a second."""

ACCEPTED_AT_ONCE = 8
"""Connections that are accepted before everybody else has a turn again, those at the local socket too."""

SPARE_DESCRIPTORS = 1_000
"""Open files beside connections."""

_log = logging.getLogger(__name__)


class _Server(uvicorn.Server):
    """A server that leaves signals to the process it is part of, and waits for no slow handshake."""

    def __init__(
        self,
        config: uvicorn.Config,
        tls: ssl.SSLContext | None,
        most: int,
        is_known: Callable[[int], bool],
    ) -> None:
        super().__init__(config)
        self._is_known = is_known
        self._tls = tls
        self._most = most
        self._accepting: list[asyncio.Task[None]] = []
        self._held = Connections(most)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen at these sockets; uvicorn's own way counts nothing before the handshake, for a minute."""
        await self.lifespan.startup()
        loop = asyncio.get_running_loop()
        self.servers = []
        for one in sockets or ():
            if self._tls is not None:
                shaking = Handshakes(self._tls, self._most, self._connection)
                self._accepting.append(asyncio.create_task(shaking.accept(one)))
            else:  # asyncio accepts so many in one turn of its loop
                server = await loop.create_server(self._connection, sock=one, backlog=ACCEPTED_AT_ONCE)
                self.servers.append(server)
            one.listen(BACKLOG)
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more, and end what is under way."""
        for task in self._accepting:
            task.cancel()
        await asyncio.gather(*self._accepting, return_exceptions=True)
        await super().shutdown(sockets)

    def _connection(self) -> asyncio.Protocol:
        made = PeerProtocol(self.config, self.server_state, self.lifespan.state.copy())
        made.held, made.is_known = self._held, self._is_known
        return made

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


@asynccontextmanager
async def answering_at(
    application: ASGIApp,
    *sockets: socket.socket,
    tls: ssl.SSLContext | None,
    most: int,
    is_known: Callable[[int], bool] = lambda _: False,
) -> AsyncIterator[None]:
    """Answer at these sockets for the length of the body; then they are closed.

    There are at most so many connections at once, and of TLS as many more whose handshake is not done.
    Connections of users of this host are authenticated where `is_known` returns so of their number.
    """
    config = uvicorn.Config(
        application,
        http=PeerProtocol,
        proxy_headers=False,  # whoever calls from this host would name their own address, and be anybody
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEPT_ALIVE_SECONDS,
        timeout_graceful_shutdown=2,
    )
    server = _Server(config, tls, most, is_known)
    answering = asyncio.create_task(server.serve([*sockets]))
    try:
        while not (server.started or answering.done()):  # noqa: ASYNC110 - uvicorn tells it by a flag
            await asyncio.sleep(0.01)
        yield
    finally:
        server.should_exit = True
        await answering


def allow_descriptors(connections: int) -> None:
    """Have room for so many connections, as far as this host lets the process have it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + SPARE_DESCRIPTORS
    room = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft < room:
        resource.setrlimit(resource.RLIMIT_NOFILE, (room, hard))
    if room < wanted:
        _log.warning(
            "only %d of %d connections fit: raise LimitNOFILE", room - SPARE_DESCRIPTORS, connections
        )


def port_at(address: str, setting: str) -> socket.socket:
    """Return a socket at this host and port, which this setting names; `[::]` takes IPv4 callers, too.

    Raises:
        BadInput: It is none, or nobody can listen there.
    """
    name, _, port = address.rpartition(":")
    host = name.strip("[]")
    try:
        families = {one[0] for one in socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)}
        family = socket.AF_INET if socket.AF_INET in families else socket.AF_INET6
        both = host == "::" and socket.has_dualstack_ipv6()
        return socket.create_server((host, int(port)), family=family, dualstack_ipv6=both, reuse_port=False)
    except (OSError, ValueError, OverflowError) as error:
        number = error.errno if isinstance(error, OSError) else None
        why = os.strerror(number).lower() if number is not None and number > 0 else error
        wrong = f"nobody can listen at {address} ({why}); write {setting} as HOST:PORT"
        raise BadInput(wrong) from error
