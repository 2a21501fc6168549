"""Who is at the local socket: the kernel's word (SO_PEERCRED, unix(7)), not the caller's.

uvicorn knows no peer of a unix socket, so its HTTP/1.1 protocol is asked for one here.
"""

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Any

import h11

from orchestrator.crowd import Connections, crowd_of
from orchestrator.request_heads import BoundedRequests

AT_THE_SOCKET = "uid:"

UNKNOWN_USERS = "an unknown user of this host"
"""All users at the socket who are no person here: one user may have 65,536 numbers (subuid(5))."""

PATIENCE_SECONDS = 5.0
"""How long a request may take to become whole, once or twice: who is slower is let go."""

_CREDENTIALS = struct.Struct("3i")


CONNECTION = "connection"
"""Under this name an application finds the connection of a request in its state."""


class PeerProtocol(BoundedRequests):
    """HTTP/1.1 that gives a caller at the unix socket its user number as its address."""

    held: Connections
    """The server's own."""

    is_known: Callable[[int], bool]
    """Whether the user of that number at the socket is a person here; the server's own, and asks no file."""

    known = False
    """Whether it has shown who it is."""

    origin = ""
    """The client network that it comes from, or the user at the socket; all unknown users are one."""

    crowd = ""
    """Whose connection it is, as far as can be told: of many behind one address each is their own."""

    turn: asyncio.Future[bool] | None = None
    """What its request waits for before it is worked on: False where that is never."""

    _person: str | None = None

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
            self.known = self.is_known(uid)
            self.origin = self.client[0] if self.known else UNKNOWN_USERS
        elif self.client is not None:
            self.origin = crowd_of(self.client[0])
        self.crowd = self.origin
        self.app_state[CONNECTION] = self
        self.held.take(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Look after it no longer; a request of it that waits for a turn is not worked on."""
        if self._check is not None:
            self._check.cancel()
        if self.turn is not None and not self.turn.done():
            self.turn.set_result(False)
        self.held.forget(self)
        super().connection_lost(exc)

    def dismiss(self) -> None:
        """End the connection at once, whatever is still to be said."""
        self.held.forget(self)
        self.transport.abort()

    def recognise(self, person: str) -> None:
        """Take down who has shown here who they are."""
        if self._person != person:
            before, self.crowd = self.crowd, f"person:{person}"
            self.known, self._person = True, person
            self.held.recognise(self, before)

    @property
    def waits(self) -> bool:
        """Whether no whole request has come that would have to be answered."""
        return self.conn.their_state in {h11.IDLE, h11.SEND_BODY}

    @property
    def idle(self) -> bool:
        """Whether it waits for a request, or sends a stream that its client can open again."""
        return self.waits or self.conn.our_state is h11.SEND_BODY

    def _look_after(self) -> None:
        """Close a connection on which a request has not become whole since the last look."""
        seen = (self.conn.their_state, self.cycle)
        if self.waits and seen == self._seen:
            self.transport.close()
            return
        self._seen = seen
        self._check = self.loop.call_later(PATIENCE_SECONDS, self._look_after)


def uid_of(address: str) -> int | None:
    """Return the user number of a caller at the socket, None for one who came by the network."""
    return int(address.removeprefix(AT_THE_SOCKET)) if address.startswith(AT_THE_SOCKET) else None
