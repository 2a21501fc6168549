"""A peer on loopback that answers HTTP requests as badly as a test wants, in threads of its own."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.fakes.authority import EnterpriseCa

Behaviour = Callable[[socket.socket], None]
"""Answers one connection whose request was received."""

LINGERS_SECONDS = 1.0

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


class HostilePeer:
    """Answers each connection as `behaves` has it at that time."""

    def __init__(self, behaves: Behaviour, tls: ssl.SSLContext | None = None) -> None:
        self.behaves = behaves
        self._tls = tls
        self.requests: list[bytes] = []
        """What one read of each connection returned."""
        self.over = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.url = f"http{'s' if tls is not None else ''}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.over.set()
        self._listening.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                one, _ = self._listening.accept()
                threading.Thread(target=self._answer, args=(one,), daemon=True).start()

    def _answer(self, one: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.closing(self._secured(one)) as peer:
            self.requests.append(peer.recv(65_536))
            self.behaves(peer)
            peer.shutdown(socket.SHUT_WR)  # what is left unread would take back what was sent
            peer.settimeout(LINGERS_SECONDS)
            while peer.recv(65_536):
                pass

    def _secured(self, one: socket.socket) -> socket.socket:
        return self._tls.wrap_socket(one, server_side=True) if self._tls is not None else one

    def drips(self, begins: bytes, piece: bytes = b" ") -> Behaviour:
        """Return the behaviour that sends this, and then a piece every 20 ms for as long as it is taken."""

        def drip(one: socket.socket) -> None:
            one.sendall(begins)
            while not self.over.wait(0.02):
                one.sendall(piece)

        return drip


def says(*pieces: bytes) -> Behaviour:
    """Return the behaviour that sends these and closes the connection."""

    def say(one: socket.socket) -> None:
        for piece in pieces:
            one.sendall(piece)

    return say


def endless(begins: bytes, piece: bytes) -> Behaviour:
    """Return the behaviour that sends this, and then the piece for as long as it is taken."""

    def send(one: socket.socket) -> None:
        one.sendall(begins)
        while True:
            one.sendall(piece)

    return send


@contextlib.contextmanager
def hostile(behaves: Behaviour | None = None, tls: ssl.SSLContext | None = None) -> Iterator[HostilePeer]:
    """Give a peer that answers for the length of the body; by itself it closes each connection."""
    with HostilePeer(behaves or says(), tls) as peer:
        yield peer


def named_by(folder: Path, name: str) -> tuple[ssl.SSLContext, Path]:
    """Return what a peer of that name shows by TLS, and the file of authorities that verifies it."""
    authority = EnterpriseCa(folder, "the company's own")
    known = (x509.DNSName(name),)
    key, certificate = authority.leaf(name, usage=ExtendedKeyUsageOID.SERVER_AUTH, names=known)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context, authority.roots
