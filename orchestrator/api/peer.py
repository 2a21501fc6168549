"""Who is at the local socket: the kernel's word (SO_PEERCRED, unix(7)), not the caller's.

uvicorn knows no peer of a unix socket, so its HTTP/1.1 protocol is asked for one here.
"""

import asyncio
import socket
import struct
from collections import Counter
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from orchestrator.api.crowd import crowd_of

AT_THE_SOCKET = "uid:"
PATIENCE_SECONDS = 5.0
"""How long a request may take to become whole, once or twice: who is slower is let go."""
MOST_OF_ONE = 64
"""Connections that one user of this host or one crowd may have: the others are for everybody else."""

_CREDENTIALS = struct.Struct("3i")


class PeerProtocol(H11Protocol):
    """HTTP/1.1 that gives a caller at the unix socket its user number as its address."""

    held: "Counter[str]"
    """How many connections each user number or crowd has; the server's own."""

    _seen: object = None
    _check: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Ask the kernel who it is, before anything is read."""
        super().connection_made(transport)
        self._check = self.loop.call_later(PATIENCE_SECONDS, self._look_after)
        peer: Any = transport.get_extra_info("socket")
        if peer is not None and peer.family == socket.AF_UNIX:
            found = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            pid, uid, _ = _CREDENTIALS.unpack(found)
            self.client = (f"{AT_THE_SOCKET}{uid}", pid)
        self.held[self._whose] += 1
        if self.held[self._whose] > MOST_OF_ONE:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Look after it no longer."""
        if self._check is not None:
            self._check.cancel()
        self.held[self._whose] -= 1
        if not self.held[self._whose]:
            del self.held[self._whose]
        super().connection_lost(exc)

    @property
    def _whose(self) -> str:
        return crowd_of(self.client[0]) if self.client is not None else ""

    def _look_after(self) -> None:
        """Close a connection on which a request has not become whole since the last look."""
        seen = (self.conn.their_state, self.cycle)
        waits = self.conn.their_state in {h11.IDLE, h11.SEND_BODY}
        if waits and seen == self._seen:
            self.transport.close()
            return
        self._seen = seen
        self._check = self.loop.call_later(PATIENCE_SECONDS, self._look_after)


def uid_of(address: str) -> int | None:
    """Return the user number of a caller at the socket, None for one who came by the network."""
    return int(address.removeprefix(AT_THE_SOCKET)) if address.startswith(AT_THE_SOCKET) else None
