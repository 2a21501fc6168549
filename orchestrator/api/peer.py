"""Who is at the local socket: the kernel's word (SO_PEERCRED, unix(7)), not the caller's.

uvicorn knows no peer of a unix socket, so its HTTP/1.1 protocol is asked for one here.
"""

import asyncio
import socket
import struct
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

AT_THE_SOCKET = "uid:"
_CREDENTIALS = struct.Struct("3i")


class PeerProtocol(H11Protocol):
    """HTTP/1.1 that gives a caller at the unix socket its user number as its address."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Ask the kernel who it is, before anything is read."""
        super().connection_made(transport)
        peer: Any = transport.get_extra_info("socket")
        if peer is not None and peer.family == socket.AF_UNIX:
            found = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            pid, uid, _ = _CREDENTIALS.unpack(found)
            self.client = (f"{AT_THE_SOCKET}{uid}", pid)


def uid_of(address: str) -> int | None:
    """Return the user number of a caller at the socket, None for one who came by the network."""
    return int(address.removeprefix(AT_THE_SOCKET)) if address.startswith(AT_THE_SOCKET) else None
