"""One exchange with the API: at the local socket, where the kernel says who asks, or over the network.

Loaded when something is asked: help and offline tools do not wait for it.
"""

import http.client
import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MOST = 64 * 1024 * 1024


class Exchange:
    """One request and its answer; whatever breaks it is an OSError."""

    is_sent = False
    """Whether the whole request was sent, so that the API may carry it out without an answer."""

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self._connection = connection

    def send(self, method: str, target: str, headers: dict[str, str], content: bytes | None) -> None:
        """Ask, and wait for the beginning of the answer."""
        with _broken():
            self._connection.request(method, target, content, headers)
            self.is_sent = True
            self._answer = self._connection.getresponse()
        self.status = self._answer.status

    def read(self) -> bytes:
        """Return the answer."""
        with _broken():
            return self._answer.read(_MOST)

    def lines(self) -> Iterator[str]:
        """Yield the answer line by line, as they come."""
        with _broken():
            for raw in self._answer:
                yield raw.decode().rstrip("\r\n")

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


def at_socket(path: Path, timeout: float) -> Exchange:
    """Return an exchange at the local socket."""
    return Exchange(_AtSocket(path, timeout))


def at_host(host: str, port: int | None, timeout: float, *, tls: bool) -> Exchange:
    """Return an exchange over the network; `PENSTOCK_AUTHORITIES` may name who vouches for the host."""
    if not tls:
        return Exchange(http.client.HTTPConnection(host, port, timeout=timeout))
    context = ssl.create_default_context(cafile=os.environ.get("PENSTOCK_AUTHORITIES"))
    return Exchange(http.client.HTTPSConnection(host, port, timeout=timeout, context=context))


class _AtSocket(http.client.HTTPConnection):
    """HTTP over the local socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("penstock", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Knock at the socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(os.fspath(self._path))


@contextmanager
def _broken() -> Iterator[None]:
    try:
        yield
    except http.client.HTTPException as error:
        raise ConnectionError(f"the answer breaks off: {error!r}") from error
