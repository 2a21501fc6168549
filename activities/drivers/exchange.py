"""One HTTP request to a peer that may be hostile: one deadline for everything, and a bound on what it sends.

Timeouts of HTTP clients hold for each read: a peer that sends a byte a second lasts for ever. Here every wait
ends at the deadline, name servers included. Bytes are counted as they come off the connection (head and chunk
lines too), bodies are taken without an encoding, and redirects are not followed. A proxy is used only where
the caller wants that of the environment.
"""

import base64
import io
import socket
import ssl
import time
import urllib.request
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any, NamedTuple, Self, cast
from urllib.parse import SplitResult, quote, unquote, urlsplit

from activities.drivers.addresses import Found, connected

MOST_HEAD = 64 * 1024
"""Bytes that a peer may send beside a body: its head, and the lines of chunks."""

_PIECE = 64 * 1024
_IN_TARGETS = "/%:=&?~+!$,;'@()*[]-._"
"""Characters of an address that are sent as they are."""


class NotAnswered(Exception):
    """There is no whole answer; the text has the reason in one line."""


class _Proxy(NamedTuple):
    host: str
    port: int
    login: dict[str, str]
    """The header by which it knows its caller; empty where it asks for none."""

    @property
    def named(self) -> str:
        return f"proxy {self.host}:{self.port}"


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
    cut: bool = False,
    proxied: bool = False,
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
        cut: Whether a longer body, or one with an encoding, is cut, and no reason to refuse the answer.
        proxied: Whether the proxy of the environment is used (`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`).

    Raises:
        NotAnswered: It cannot be reached, is too slow, sends too much, or does not speak HTTP.
    """
    by = ""
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna").decode()
        port = parts.port or (443 if parts.scheme == "https" else 80)
        if parts.scheme not in {"http", "https"} or not host:
            raise NotAnswered("its address is no URL of http or https")
        proxy = _proxy_of(parts.scheme, host, port) if proxied else None
        by = f" ({proxy.named})" if proxy is not None else ""
        with _Wire(seconds, most + MOST_HEAD) as wire:
            wire.connect(*(proxy[:2] if proxy is not None else (host, port)))
            target, named = _target(parts), _named(parts, host)
            if parts.scheme == "https":
                if proxy is not None:
                    _tunnel(wire, proxy, host, port)
                wire.begin_tls(tls, host)
            elif proxy is not None:
                target, named = f"http://{named['Host']}{target}", named | proxy.login
            connection = HTTPConnection(host, port)
            connection.sock = cast(Any, wire)
            sent = {"Accept-Encoding": "identity", "Connection": "close", "User-Agent": "penstock"}
            connection.request(method, target, content, sent | named | dict(headers or {}))
            answer = connection.getresponse()
            return Answered(answer.status, _body(answer, most, cut=cut))
    except TimeoutError as error:
        raise NotAnswered(f"it did not answer within {seconds:g} s{by}") from error
    except ssl.SSLError as error:
        raise NotAnswered(f"{error}{by}") from error
    except OSError as error:
        raise NotAnswered(f"{error.strerror or str(error) or type(error).__name__}{by}") from error
    except (HTTPException, ValueError) as error:
        raise NotAnswered(f"it does not answer as HTTP requires: {type(error).__name__}{by}") from error


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

    def connect(self, host: str, port: int) -> None:
        """Connect to the first address that answers."""
        self._socket = connected(host, port, self._left, _connected)

    def begin_tls(self, tls: ssl.SSLContext, host: str) -> None:
        """Verify the peer, which is this host."""
        self._socket = tls.wrap_socket(self._ready(), server_hostname=host)

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


def _connected(found: Found, seconds: float) -> socket.socket:
    family, kind, protocol, _, address = found
    made = socket.socket(family, kind, protocol)
    try:
        made.settimeout(seconds)
        made.connect(address)
    except OSError:
        made.close()
        raise
    return made


class _Received(io.RawIOBase):
    """The bytes of a connection as a file."""

    def __init__(self, wire: _Wire) -> None:
        self._wire = wire

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._wire.receive(memoryview(buffer).cast("B"))


def _proxy_of(scheme: str, host: str, port: int) -> _Proxy | None:
    """Return the proxy that the environment has for the peer, None where it has none."""
    proxies = urllib.request.getproxies()
    url = proxies.get(scheme) or proxies.get("all")
    if not url or urllib.request.proxy_bypass(f"{host}:{port}"):
        return None
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme != "http" or not parts.hostname:
        raise NotAnswered(f"the proxy of the environment for {scheme} is no URL of http")
    return _Proxy(parts.hostname, parts.port or 80, _login(parts, "Proxy-Authorization"))


def _tunnel(wire: _Wire, proxy: _Proxy, host: str, port: int) -> None:
    """Have the proxy connect to the peer (RFC 9110, section 9.3.6)."""
    to = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [
        f"CONNECT {to} HTTP/1.1",
        f"Host: {to}",
        *(f"{name}: {said}" for name, said in proxy.login.items()),
    ]
    wire.sendall("\r\n".join([*lines, "", ""]).encode())
    answer = HTTPResponse(cast(Any, wire), method="CONNECT")
    answer.begin()
    if not 200 <= answer.status < 300:  # noqa: PLR2004 - HTTP's own
        raise NotAnswered(f"the {proxy.named} does not connect to it: it answers {answer.status}")


def _body(answer: HTTPResponse, most: int, *, cut: bool) -> bytes:
    if not cut and answer.getheader("content-encoding", "identity").strip().lower() != "identity":
        raise NotAnswered("it sends an encoded body, which was not accepted")
    if not cut and (answer.length or 0) > most:
        raise NotAnswered(f"it announces {answer.length} bytes; at most {most} are read")
    body, end = bytearray(), most if cut else most + 1
    while len(body) < end and (piece := answer.read(min(_PIECE, end - len(body)))):
        body += piece
    if len(body) > most:
        raise NotAnswered(f"it sends more than {most} bytes")
    if answer.length and len(body) < end:
        raise NotAnswered(f"it broke off with {answer.length} bytes to go")
    return bytes(body)


def _target(parts: SplitResult) -> str:
    query = f"?{quote(parts.query, _IN_TARGETS)}" if parts.query else ""
    return (quote(parts.path, _IN_TARGETS) or "/") + query


def _named(parts: SplitResult, host: str) -> dict[str, str]:
    """Return the headers that follow from the address."""
    named = f"[{host}]" if ":" in host else host
    return {"Host": named if parts.port is None else f"{named}:{parts.port}"} | _login(parts, "Authorization")


def _login(parts: SplitResult, header: str) -> dict[str, str]:
    """Return the name and password of an address as that header has them; nothing where it has none."""
    if parts.username is None:
        return {}
    login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {header: f"Basic {base64.b64encode(login.encode()).decode()}"}
