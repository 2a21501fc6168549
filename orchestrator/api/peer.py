"""Who is at the local socket: the kernel's word (SO_PEERCRED, unix(7)), not the caller's.

uvicorn knows no peer of a unix socket, so its HTTP/1.1 protocol is asked for one here.
"""

import asyncio
import socket
import struct
from typing import Any, Protocol

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from orchestrator.crowd import crowd_of

AT_THE_SOCKET = "uid:"
PATIENCE_SECONDS = 5.0
"""How long a request may take to become whole, once or twice: who is slower is let go."""
MOST_OF_ONE = 64
"""Connections that one user of this host or one crowd may have: the others are for everybody else."""

_CREDENTIALS = struct.Struct("3i")


CONNECTION = "connection"
"""Under this name an application finds the connection of a request in its state."""


class Held(Protocol):
    """A connection that has a place."""

    @property
    def known(self) -> bool:
        """Whether it has shown who it is."""

    @property
    def waits(self) -> bool:
        """Whether no whole request has come that would have to be answered."""

    @property
    def crowd(self) -> str:
        """Whose connection it is, as far as can be told."""

    def dismiss(self) -> None:
        """End the connection at once."""


class Connections:
    """The connections of one server; where all places are taken, a newcomer gets that of a stranger.

    Refusing the newcomer instead would let whoever opens connections and says nothing keep everybody out;
    so would it within a crowd, which may be everybody behind one proxy.
    """

    def __init__(self, most: int) -> None:
        """Take how many there may be at once."""
        self._most = most
        self._held: dict[Held, None] = {}
        self._crowds: dict[str, dict[Held, None]] = {}

    def take(self, newcomer: Held) -> None:
        """Give the newcomer a place; where its own crowd has enough of them, one of these makes room."""
        before = [*self._crowds.get(newcomer.crowd, ())]
        self._held[newcomer] = None
        self._join(newcomer)
        if len(before) >= MOST_OF_ONE:
            next((one for one in before if one.waits), before[0]).dismiss()
        elif len(self._held) > self._most:
            self._who_makes_room().dismiss()

    def recognise(self, shown: Held, before: str) -> None:
        """Let one person have no more places than one crowd may: their oldest connection makes room."""
        if shown not in self._held:
            return
        self._leave(shown, before)
        self._join(shown)
        theirs = self._crowds[shown.crowd]
        if len(theirs) > MOST_OF_ONE:
            next(iter(theirs)).dismiss()

    def forget(self, gone: Held) -> None:
        """Give the place of a connection that has ended free."""
        if gone in self._held:
            del self._held[gone]
            self._leave(gone, gone.crowd)

    def _join(self, one: Held) -> None:
        self._crowds.setdefault(one.crowd, {})[one] = None

    def _leave(self, one: Held, crowd: str) -> None:
        members = self._crowds[crowd]
        del members[one]
        if not members:
            del self._crowds[crowd]

    def _who_makes_room(self) -> Held:
        """Return the stranger who has said nothing for longest; else the oldest of the largest crowd.

        A thousand strangers with an address each are as many crowds of one; two operators behind one proxy
        are a larger crowd than each of them. Those operators have just come, and ask at once.
        """
        strangers = [one for one in self._held if not one.known]
        silent = next((one for one in strangers if one.waits), None)
        return silent or max(strangers or self._held, key=lambda one: len(self._crowds[one.crowd]))


class PeerProtocol(H11Protocol):
    """HTTP/1.1 that gives a caller at the unix socket its user number as its address."""

    held: Connections
    """The server's own."""

    known = False
    """Whether it has shown who it is."""

    crowd = ""
    """Whose connection it is, as far as can be told: of many behind one address each is their own."""

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
            self.known = True
        self.crowd = crowd_of(self.client[0]) if self.client is not None else ""
        self.app_state[CONNECTION] = self
        self.held.take(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Look after it no longer."""
        if self._check is not None:
            self._check.cancel()
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
