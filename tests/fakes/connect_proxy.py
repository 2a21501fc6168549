"""A proxy on loopback that connects callers to peers by CONNECT, wherever a test says that these are."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from functools import partial

from tests.fakes.hostile_peer import Behaviour, HostilePeer


class ConnectProxy(HostilePeer):
    """Passes bytes on both ways between a caller and the peer; `requests` has what callers asked of it."""

    def __init__(self, peer: int) -> None:
        """Take the port on loopback at which every peer is."""
        super().__init__(partial(_pass_on, peer))


@contextlib.contextmanager
def connect_proxy(peer: int) -> Iterator[ConnectProxy]:
    """Give a proxy that connects for the length of the body."""
    with ConnectProxy(peer) as proxy:
        yield proxy


def refuses(status: bytes) -> Behaviour:
    """Return the behaviour that answers each CONNECT with this status."""
    return lambda one: one.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")


def _pass_on(peer: int, caller: socket.socket) -> None:
    with socket.create_connection(("127.0.0.1", peer)) as found:
        caller.sendall(b"HTTP/1.1 200 Connection established\r\nVia: 1.1 proxy\r\n\r\n")
        back = threading.Thread(target=_copy, args=(found, caller), daemon=True)
        back.start()
        _copy(caller, found)
        back.join()


def _copy(source: socket.socket, to: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(65_536):
            to.sendall(piece)
    with contextlib.suppress(OSError):
        to.shutdown(socket.SHUT_WR)
