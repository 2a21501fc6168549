"""A peer on loopback that answers HTTP requests as badly as a test wants, in threads of its own."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Self

Behaviour = Callable[[socket.socket], None]
"""Answers one connection whose request was received."""

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


class HostilePeer:
    """Answers each connection as `behaves` has it at that time."""

    def __init__(self, behaves: Behaviour) -> None:
        self.behaves = behaves
        self.requests: list[bytes] = []
        """What one read of each connection returned."""
        self.over = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"

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
        with one, contextlib.suppress(OSError):
            self.requests.append(one.recv(65_536))
            self.behaves(one)

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
def hostile(behaves: Behaviour | None = None) -> Iterator[HostilePeer]:
    """Give a peer that answers for the length of the body; by itself it closes each connection."""
    with HostilePeer(behaves or says()) as peer:
        yield peer
