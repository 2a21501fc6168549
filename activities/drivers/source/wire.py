"""The wire under httpx: sockets whose every wait ends at one deadline, read past the parser where possible.

httpx's own timeouts are per read, so a byte a second, or a header a second, lasts for ever.
"""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpcore
import httpx

from activities.drivers import header_lines  # noqa: F401 - the pattern that it sets
from activities.drivers.addresses import Found, connected
from activities.refusals import DownloadFailed

CONNECT_SECONDS = 10.0
CONNECT_TRY_SECONDS = 2.0
"""For each address: while a socket connects, it does not notice that the deadline was given up."""
HEADERS_END = b"\r\n\r\n"


class Deadline:
    """A moment by which everything must be done, unless it is given up before."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = time.monotonic() + seconds
        self._given_up = threading.Event()
        self._turn = threading.Lock()
        self._open: set[socket.socket] = set()

    def within(self, seconds: float) -> "Deadline":
        """Return a deadline in at most so many seconds, which ends, and is given up, with this one.

        Raises:
            DownloadFailed: no seconds are left.
        """
        part = Deadline(self.left(seconds))
        part._given_up, part._turn, part._open = self._given_up, self._turn, self._open
        return part

    def left(self, most: float | None = None) -> float:
        """Return the seconds left, at most `most`.

        Raises:
            DownloadFailed: none are left.
        """
        if self._given_up.is_set():
            raise DownloadFailed("the download was given up", reason="given_up")
        left = self._end - time.monotonic()
        if left <= 0:
            raise DownloadFailed(f"the source did not deliver within {self._seconds:g} s", reason="deadline")
        return left if most is None else min(left, most)

    def pause(self, seconds: float) -> None:
        """Wait so long; raises what `left` does, also as soon as everything is given up."""
        self._given_up.wait(self.left(seconds))
        self.left()

    def give_up(self) -> None:
        """End every wait of every thread that has this deadline, now and from now on."""
        self._given_up.set()
        with self._turn:
            for waiting in self._open:
                with contextlib.suppress(OSError):
                    # not TLS's own, which another thread may be using
                    socket.socket.shutdown(waiting, socket.SHUT_RDWR)

    def watch(self, waiting: socket.socket) -> None:
        """Have waits for this socket end when everything is given up."""
        with self._turn:
            self._open.add(waiting)
        self.left()

    def forget(self, waiting: socket.socket) -> None:
        """Leave the socket alone from now on: its number may soon be another one's."""
        with self._turn:
            self._open.discard(waiting)


class DeadlineTransport(httpx.BaseTransport):
    """One connection whose every wait ends at the deadline."""

    def __init__(self, deadline: Deadline, tls: ssl.SSLContext) -> None:
        self._pool = httpcore.ConnectionPool(
            ssl_context=tls, network_backend=Backend(deadline), max_connections=1
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
            stream=Body(response),
            extensions=response.extensions,
            request=request,
        )

    def close(self) -> None:
        """End the connection."""
        self._pool.close()


class Body(httpx.SyncByteStream):
    """The body of an answer, piece by piece as the socket gave it."""

    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        return self._response.iter_stream()

    def close(self) -> None:
        """Let go of the answer."""
        self._response.close()


class Backend(httpcore.NetworkBackend):
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
        """Connect within the deadline, in several tries where nothing answers."""
        del timeout
        end = time.monotonic() + CONNECT_SECONDS
        while True:
            seconds = self._deadline.left(CONNECT_TRY_SECONDS)
            try:
                stream = self._connected(host, port, seconds, local_address, socket_options)
            except httpcore.ConnectTimeout:
                if time.monotonic() >= end:
                    raise
            else:
                return DeadlineStream(stream, self._deadline, plain=True)

    def _connected(self, host: str, port: int, seconds: float, *more: Any) -> httpcore.NetworkStream:
        """Connect to the first address that answers; name servers and each address have so many seconds."""

        def connect(found: Found, _: float) -> httpcore.NetworkStream:
            try:
                return self._inner.connect_tcp(found[-1][0], port, self._deadline.left(seconds), *more)
            except httpcore.ConnectTimeout as error:
                raise TimeoutError(str(error)) from error
            except httpcore.ConnectError as error:
                raise OSError(str(error)) from error

        try:
            return connected(host, port, lambda: self._deadline.left(seconds), connect)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(str(error)) from error
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error


class DeadlineStream(httpcore.NetworkStream):
    """A socket that waits no longer than the deadline, and leaves the body for others to read."""

    def __init__(self, inner: httpcore.NetworkStream, deadline: Deadline, *, plain: bool) -> None:
        self._inner = inner
        self._deadline = deadline
        self._before = b""
        self._socket: socket.socket = inner.get_extra_info("socket")
        self.plain_socket: socket.socket | None = self._socket if plain else None
        deadline.watch(self._socket)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return what is there, through a plain socket never more than to the end of a header block."""
        del timeout
        if self.plain_socket is not None:
            self.plain_socket.settimeout(self._deadline.left())
            ahead = self._before + self.plain_socket.recv(max_bytes, socket.MSG_PEEK)
            end = ahead.find(HEADERS_END)
            stop = len(ahead) if end < 0 else end + len(HEADERS_END)
            max_bytes = max(stop - len(self._before), 1)  # what arrives meanwhile may hold the end
            self._before = ahead[-len(HEADERS_END) + 1 :] if end < 0 else b""
        return self._inner.read(max_bytes, self._deadline.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send within the deadline."""
        del timeout
        self._inner.write(buffer, self._deadline.left())

    def close(self) -> None:
        """End the connection."""
        self._deadline.forget(self._socket)
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """Shake hands within the deadline."""
        del timeout
        self._deadline.forget(self._socket)
        inner = self._inner.start_tls(ssl_context, server_hostname, self._deadline.left())
        return DeadlineStream(inner, self._deadline, plain=False)

    def get_extra_info(self, info: str) -> Any:
        """Return what the socket knows of itself."""
        return self._inner.get_extra_info(info)
