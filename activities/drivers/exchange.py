"""One HTTP request to a peer that may be hostile: one deadline for everything, and a bound on what it sends.

Timeouts of HTTP clients hold for each read: a peer that sends a byte a second lasts for ever. Here every wait
ends at the deadline, bytes are counted as they come off the connection (head and chunk lines too), bodies are
taken without an encoding, and redirects and proxies are followed nowhere.
"""

import base64
import io
import socket
import ssl
import time
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any, NamedTuple, Self, cast
from urllib.parse import SplitResult, quote, unquote, urlsplit

MOST_HEAD = 64 * 1024
"""Bytes that a peer may send beside a body: its head, and the lines of chunks."""

_PIECE = 64 * 1024
_IN_TARGETS = "/%:=&?~+!$,;'@()*[]-._"
"""Characters of an address that are sent as they are."""


class NotAnswered(Exception):
    """There is no whole answer; the text has the reason in one line."""


class Answered(NamedTuple):
    """A whole answer."""

    status: int
    body: bytes

    @property
    def is_success(self) -> bool:
        """Whether the peer did what was requested."""
        return 200 <= self.status < 300  # noqa: PLR2004 - HTTP's own

    @property
    def is_server_error(self) -> bool:
        """Whether the peer fails, whatever was requested."""
        return self.status >= 500  # noqa: PLR2004 - HTTP's own


def exchange(
    url: str,
    *,
    tls: ssl.SSLContext,
    seconds: float,
    most: int,
    method: str = "GET",
    content: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answered:
    """Send one request and return its answer, whatever its status; this blocks its thread.

    Args:
        url: Of `http` or `https`; a name and password in it are sent as HTTP has it.
        tls: Verifies the peer.
        seconds: How long everything may take together, from the connection to the last byte.
        most: Bytes of the body.
        method: Of the request.
        content: The body of the request.
        headers: Of the request, beside those that each request has.

    Raises:
        NotAnswered: It cannot be reached, is too slow, sends too much, or does not speak HTTP.
    """
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna").decode()
        port = parts.port or (443 if parts.scheme == "https" else 80)
        if parts.scheme not in {"http", "https"} or not host:
            raise NotAnswered("its address is no URL of http or https")
        with _Wire(seconds, most + MOST_HEAD) as wire:
            wire.connect(host, port, tls if parts.scheme == "https" else None)
            connection = HTTPConnection(host, port)
            connection.sock = cast(Any, wire)
            sent = {"Accept-Encoding": "identity", "Connection": "close", "User-Agent": "penstock"}
            connection.request(
                method, _target(parts), content, sent | _named(parts, host) | dict(headers or {})
            )
            answer = connection.getresponse()
            return Answered(answer.status, _body(answer, most))
    except TimeoutError as error:
        raise NotAnswered(f"it did not answer within {seconds:g} s") from error
    except ssl.SSLError as error:
        raise NotAnswered(str(error)) from error
    except OSError as error:
        raise NotAnswered(error.strerror or type(error).__name__) from error
    except (HTTPException, ValueError) as error:
        raise NotAnswered(f"it does not answer as HTTP requires: {type(error).__name__}") from error


class _Wire:
    """A connection in the place of http.client's socket: its waits end at one deadline, its bytes are few."""

    def __init__(self, seconds: float, most: int) -> None:
        self._ends = time.monotonic() + seconds
        self._most = most
        self._taken = 0
        self._socket: socket.socket | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._socket is not None:
            self._socket.close()

    def connect(self, host: str, port: int, tls: ssl.SSLContext | None) -> None:
        """Connect to the first address that answers; each has an equal part of the time that is left."""
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        failure: OSError = OSError("it has no address")
        for number, (family, kind, protocol, _, address) in enumerate(found):
            made = socket.socket(family, kind, protocol)
            try:
                made.settimeout(self._left() / (len(found) - number))
                made.connect(address)
            except OSError as error:
                made.close()
                failure = error
                continue
            self._socket = made
            if tls is not None:
                made.settimeout(self._left())
                self._socket = tls.wrap_socket(made, server_hostname=host)
            return
        raise failure

    def sendall(self, content: bytes) -> None:
        self._ready().sendall(content)

    def receive(self, memory: memoryview) -> int:
        """Receive some bytes; return how many, 0 at the end."""
        count = self._ready().recv_into(memory)
        self._taken += count
        if self._taken > self._most:
            raise NotAnswered(f"it sends more than {self._most - MOST_HEAD} bytes")
        return count

    def makefile(self, mode: str) -> io.BufferedReader:
        del mode
        return io.BufferedReader(_Received(self))

    def close(self) -> None:
        """Do nothing: http.client closes its socket before it has read the body."""

    def _ready(self) -> socket.socket:
        if self._socket is None:
            raise OSError("it is not connected")
        self._socket.settimeout(self._left())
        return self._socket

    def _left(self) -> float:
        left = self._ends - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


class _Received(io.RawIOBase):
    """The bytes of a connection as a file."""

    def __init__(self, wire: _Wire) -> None:
        self._wire = wire

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._wire.receive(memoryview(buffer).cast("B"))


def _body(answer: HTTPResponse, most: int) -> bytes:
    if answer.getheader("content-encoding", "identity").strip().lower() != "identity":
        raise NotAnswered("it sends an encoded body, which was not accepted")
    if (answer.length or 0) > most:
        raise NotAnswered(f"it announces {answer.length} bytes; at most {most} are read")
    body = bytearray()
    while piece := answer.read(_PIECE):
        body += piece
        if len(body) > most:
            raise NotAnswered(f"it sends more than {most} bytes")
    if answer.length:
        raise NotAnswered(f"it broke off with {answer.length} bytes to go")
    return bytes(body)


def _target(parts: SplitResult) -> str:
    query = f"?{quote(parts.query, _IN_TARGETS)}" if parts.query else ""
    return (quote(parts.path, _IN_TARGETS) or "/") + query


def _named(parts: SplitResult, host: str) -> dict[str, str]:
    """Return the headers that follow from the address."""
    named = f"[{host}]" if ":" in host else host
    found = {"Host": named if parts.port is None else f"{named}:{parts.port}"}
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        found["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    return found
