"""Fetch over HTTP from a source that may be hostile: one total deadline, a size cap, no surprises.

httpx's own timeouts are per read, so a byte a second lasts for ever; here every read of the
socket gets what is left of one deadline. Bodies are taken raw, without an encoding, and
redirects only lead to origins of the allow-list.
"""

import contextlib
import socket
import ssl
import time
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpcore
import httpx

from policies.words.refusals import DownloadFailed, SizeExceeded, TransportRefused

HEADERS_END = b"\r\n\r\n"
CONNECT_SECONDS = 10.0
MOST_REDIRECTS = 3
OK, PARTIAL = 200, 206
GONE = (404, 410)
AGAIN = (408, 425, 429, 500, 502, 503, 504)
MOVED = (301, 302, 303, 307, 308)
DENIED = (401, 403)

BROKEN = (
    httpx.TransportError,
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ConnectionNotAvailable,
    OSError,
)
"""What a connection that breaks, stalls or talks nonsense looks like."""


class NotThere(DownloadFailed):
    """The source answers that it does not have the thing; a repository being filled may have it later."""

    @property
    def code(self) -> str:
        """Callers see one kind of failed download."""
        return DownloadFailed.__name__


class Deadline:
    """A moment by which everything must be done."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = time.monotonic() + seconds

    def left(self, most: float | None = None) -> float:
        """Return the seconds left, at most `most`.

        Raises:
            DownloadFailed: none are left.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise DownloadFailed(f"the source did not deliver within {self._seconds:g} s", reason="deadline")
        return left if most is None else min(left, most)


class Transport:
    """Requests to the origins a trust policy allows."""

    def __init__(
        self, origins: Iterable[str], *, deadline_seconds: float, authorization: str | None = None
    ) -> None:
        self._origins = frozenset(origin_of(origin) for origin in origins)
        self._seconds = deadline_seconds
        self._authorization = authorization
        self._tls: ssl.SSLContext | None = None
        self.accesses: list[str] = []
        """One line for each request: status, bytes, seconds and address without query."""

    def deadline(self) -> Deadline:
        """Return a deadline that starts now."""
        return Deadline(self._seconds)

    def get(self, url: str, *, most: int, deadline: Deadline, accept: str = "*/*") -> bytes:
        """Return a small document.

        Raises:
            DownloadFailed: it is not there, or did not arrive in time.
            SizeExceeded: it has more than `most` bytes.
            TransportRefused: the source answers in a way that is not accepted.
        """
        with self.open(url, deadline=deadline, headers={"accept": accept}) as answer:
            answer.require_plain(most)
            content = bytearray(most + 1)
            filled = 0
            while filled <= most and (taken := answer.read_into(memoryview(content)[filled:])):
                filled += taken
            if filled > most:
                raise SizeExceeded(f"{shown(url)} sends more than {most} bytes")
            return bytes(content[:filled])

    @contextlib.contextmanager
    def open(
        self, url: str, *, deadline: Deadline, headers: dict[str, str] | None = None
    ) -> Iterator["Answer"]:
        """Give the answer to a request, its body unread; the connection ends with the block.

        Raises:
            DownloadFailed: not there, or not in time.
            TransportRefused: not allowed to be asked, or answered by a status that is final.
        """
        sent = {"accept-encoding": "identity", "user-agent": "penstock"} | (headers or {})
        started = time.monotonic()
        with contextlib.ExitStack() as stack:
            try:
                answer = Answer(self._follow(stack, url, sent, deadline), deadline)
                try:
                    yield answer
                finally:
                    seconds = time.monotonic() - started
                    self.accesses.append(f"{answer.status} {answer.taken} {seconds:.3f} {shown(url)}")
            except BROKEN as error:
                deadline.left()
                sentence = f"{shown(url)} broke off: {type(error).__name__} {error}".rstrip()
                raise DownloadFailed(sentence, reason="connection") from error

    def _follow(
        self, stack: contextlib.ExitStack, url: str, headers: dict[str, str], deadline: Deadline
    ) -> httpx.Response:
        for _ in range(MOST_REDIRECTS + 1):
            self._require_allowed(url)
            if self._authorization:
                headers = headers | {"authorization": self._authorization}
            client = stack.enter_context(self._client(deadline))
            response = stack.enter_context(client.stream("GET", url, headers=headers))
            if response.status_code not in MOVED:
                _require_answer(response, url)
                return response
            target = urljoin(url, response.headers.get("location", ""))
            if url.startswith("https:") and not target.startswith("https:"):
                raise TransportRefused(
                    f"{shown(url)} redirects from https to {shown(target)}", reason="redirect"
                )
            url = target
        raise TransportRefused(
            f"{shown(url)} is reached only by more than {MOST_REDIRECTS} redirects", reason="redirect"
        )

    def _require_allowed(self, url: str) -> None:
        if origin_of(url) not in self._origins:
            raise TransportRefused(
                f"{shown(url)} is not on a source the trust policy allows; add its origin to sources.allow",
                reason="origin",
            )

    def _client(self, deadline: Deadline) -> httpx.Client:
        if self._tls is None:
            self._tls = httpx.create_ssl_context(trust_env=False)
        return httpx.Client(
            transport=_DeadlineTransport(deadline, self._tls),
            timeout=None,  # noqa: S113 - every wait has the deadline
            follow_redirects=False,
            trust_env=False,
        )


class Answer:
    """An answer whose body is read piece by piece into the reader's own memory.

    Through a plain socket a body of known length is read past the HTTP parser, which would
    copy every byte three times.
    """

    def __init__(self, response: httpx.Response, deadline: Deadline) -> None:
        self.status = response.status_code
        self.headers = response.headers
        self.url = shown(str(response.url))
        self.taken = 0
        self._deadline = deadline
        self._pieces = response.iter_raw()
        self._rest = memoryview(b"")
        self._socket: socket.socket | None = None
        length = response.headers.get("content-length", "")
        stream = response.extensions.get("network_stream")
        if length.isascii() and length.isdigit() and "transfer-encoding" not in response.headers:
            self._left = int(length)
            self._socket = stream.plain_socket if isinstance(stream, _Stream) else None

    def require_plain(self, most: int) -> None:
        """Refuse an encoded body and one that announces more than `most` bytes.

        Raises:
            TransportRefused: the body is compressed.
            SizeExceeded: it is announced to be too long.
        """
        if self.headers.get("content-encoding", "identity").lower() != "identity":
            raise TransportRefused(f"{self.url} sends an encoded body", reason="encoding")
        announced = self.headers.get("content-length")
        if announced is not None and int(announced) > most:
            raise SizeExceeded(f"{self.url} announces {announced} bytes; at most {most} are taken")

    def read_into(self, memory: memoryview) -> int:
        """Fill some of the memory with the next bytes of the body; return how many, 0 at its end."""
        count = self._from_parser(memory) if self._socket is None else self._from_socket(self._socket, memory)
        self.taken += count
        return count

    def _from_socket(self, plain: socket.socket, memory: memoryview) -> int:
        wanted = min(self._left, len(memory))
        if not wanted:
            return 0
        plain.settimeout(self._deadline.left())
        count = plain.recv_into(memory[:wanted])
        if not count:
            raise DownloadFailed(f"{self.url} broke off with {self._left} bytes to go", reason="connection")
        self._left -= count
        return count

    def _from_parser(self, memory: memoryview) -> int:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        count = min(len(self._rest), len(memory))
        memory[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def origin_of(url: str) -> str:
    """Return scheme, host and port of a URL, with the port always written; empty if it is no HTTP URL.

    A URL with credentials in it has no origin: secrets do not belong into addresses.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        return ""
    return f"{parts.scheme}://{parts.hostname.lower()}:{port}"


def shown(url: str) -> str:
    """Return a URL without query, fragment and credentials, as it may be logged."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _require_answer(response: httpx.Response, url: str) -> None:
    status = response.status_code
    if status in GONE:
        raise NotThere(f"{shown(url)} is not there", reason="absent")
    if status in AGAIN:
        raise DownloadFailed(f"{shown(url)} answers {status}", reason="status")
    if status in DENIED:
        raise TransportRefused(
            f"{shown(url)} answers {status}: the source wants other credentials", reason="denied"
        )
    if status not in (OK, PARTIAL):
        raise TransportRefused(f"{shown(url)} answers {status}", reason="status")


class _DeadlineTransport(httpx.BaseTransport):
    """One connection whose every wait ends at the deadline."""

    def __init__(self, deadline: Deadline, tls: ssl.SSLContext) -> None:
        self._pool = httpcore.ConnectionPool(
            ssl_context=tls, network_backend=_Backend(deadline), max_connections=1
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request and return the answer with its body unread."""
        response = self._pool.handle_request(
            httpcore.Request(
                method=request.method,
                url=httpcore.URL(
                    scheme=request.url.raw_scheme,
                    host=request.url.raw_host,
                    port=request.url.port,
                    target=request.url.raw_path,
                ),
                headers=request.headers.raw,
                content=b"",
            )
        )
        return httpx.Response(
            status_code=response.status,
            headers=response.headers,
            stream=_Body(response),
            extensions=response.extensions,
            request=request,
        )

    def close(self) -> None:
        """End the connection."""
        self._pool.close()


class _Body(httpx.SyncByteStream):
    """The body of an answer, piece by piece as the socket gave it."""

    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        return self._response.iter_stream()

    def close(self) -> None:
        self._response.close()


class _Backend(httpcore.NetworkBackend):
    """Opens sockets whose waits end at the deadline."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._inner = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore.NetworkStream:
        """Connect within the deadline."""
        del timeout
        seconds = self._deadline.left(CONNECT_SECONDS)
        stream = self._inner.connect_tcp(host, port, seconds, local_address, socket_options)
        return _Stream(stream, self._deadline, plain=True)


class _Stream(httpcore.NetworkStream):
    """A socket that waits no longer than the deadline, and leaves the body for others to read."""

    def __init__(self, inner: httpcore.NetworkStream, deadline: Deadline, *, plain: bool) -> None:
        self._inner = inner
        self._deadline = deadline
        self._before = b""
        self.plain_socket: socket.socket | None = inner.get_extra_info("socket") if plain else None

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return what is there, through a plain socket never more than to the end of a header block."""
        del timeout
        if self.plain_socket is not None:
            self.plain_socket.settimeout(self._deadline.left())
            ahead = self._before + self.plain_socket.recv(max_bytes, socket.MSG_PEEK)
            end = ahead.find(HEADERS_END)
            if end >= 0:
                max_bytes = end + len(HEADERS_END) - len(self._before)
            self._before = ahead[-len(HEADERS_END) + 1 :] if end < 0 else b""
        return self._inner.read(max_bytes, self._deadline.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send within the deadline."""
        del timeout
        self._inner.write(buffer, self._deadline.left())

    def close(self) -> None:
        """End the connection."""
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """Shake hands within the deadline."""
        del timeout
        inner = self._inner.start_tls(ssl_context, server_hostname, self._deadline.left())
        return _Stream(inner, self._deadline, plain=False)

    def get_extra_info(self, info: str) -> Any:
        """Return what the socket knows of itself."""
        return self._inner.get_extra_info(info)
