"""Floods of HTTP/2 by the holder of a certificate; it loads nothing of ours, so that it begins at once.

`python -m tests.relay.floods KIND ADDRESS FILE CONNECTIONS` floods until it is ended, and connects again
whenever the relay closes a connection.
"""

import select
import socket
import ssl
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count

from tests.relay.bare import CONTINUATION, ENDS_HEADERS, HEADERS, PING, RESET, SETTINGS, frame, headers, text

CALL = "/temporal.api.workflowservice.v1.WorkflowService/RecordWorkerHeartbeat"
"""A call that the relay answers by itself."""


def continuation() -> Iterator[bytes]:
    """Yield headers that have no end."""
    yield frame(HEADERS, 0, 1, headers(CALL))
    more = frame(CONTINUATION, 0, 1, b"\0" + text("x" * 50) + text("y" * 50)) * 100
    while True:
        yield more


def ping() -> Iterator[bytes]:
    """Yield pings."""
    while True:
        yield frame(PING, 0, 0, b"12345678") * 500


def settings() -> Iterator[bytes]:
    """Yield settings, each of which has to be acknowledged."""
    while True:
        yield frame(SETTINGS, 0, 0, struct.pack("!HI", 4, 65_535)) * 500


def reset() -> Iterator[bytes]:
    """Yield calls that are taken back at once."""
    body, taken_back = headers(CALL), struct.pack("!I", 8)
    for begin in count(1, 200):
        streams = range(begin, begin + 200, 2)
        yield b"".join(
            frame(HEADERS, ENDS_HEADERS | 1, stream, body) + frame(RESET, 0, stream, taken_back)
            for stream in streams
        )


KINDS: dict[str, Callable[[], Iterator[bytes]]] = {
    one.__name__: one for one in (continuation, ping, settings, reset)
}


def flood(kind: str, address: str, context: ssl.SSLContext) -> None:
    """Flood by one connection after the other, for ever."""
    host, _, port = address.rpartition(":")
    while True:
        try:
            with context.wrap_socket(socket.create_connection((host, int(port)), timeout=5)) as one:
                one.setblocking(False)
                send(one, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0))
                for piece in KINDS[kind]():
                    send(one, piece)
        except OSError:
            continue


def send(one: ssl.SSLSocket, piece: bytes) -> None:
    """Send a piece, and meanwhile read what is answered, so that the flood does not stand still.

    One thread does both: a connection of OpenSSL belongs to one thread at a time.

    Raises:
        OSError: The other side has closed the connection, or takes nothing for three seconds.
    """
    left = memoryview(piece)
    while left:
        with suppress(ssl.SSLWantReadError):
            while one.recv(65_536):
                pass
            raise ConnectionResetError
        try:
            left = left[one.send(left) :]
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            readable, writable, _ = select.select([one], [one], [], 3)
            if not (readable or writable):
                raise TimeoutError from None


def main(kind: str, address: str, shown: str, connections: str) -> None:
    """Flood by so many connections at once."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(shown)
    threads = [
        threading.Thread(target=flood, args=(kind, address, context), daemon=True)
        for _ in range(int(connections))
    ]
    for thread in threads:
        thread.start()
    print("flooding", flush=True)
    threads[0].join()


if __name__ == "__main__":
    main(*sys.argv[1:])
