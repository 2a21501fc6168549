"""A server that may do anything to whoever asks it: scripts answer raw requests on a loopback socket."""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self


@dataclass
class Request:
    """What was asked: path and lower-case headers."""

    path: str
    headers: dict[str, str]
    number: int
    """How many requests came before this one."""

    @property
    def start(self) -> int:
        """Where the asked range begins."""
        return int(self.headers.get("range", "bytes=0-")[6:].split("-")[0])


Script = Callable[[Request, "Peer"], None]


@dataclass
class Peer:
    """The connection to whoever asked."""

    connection: socket.socket
    server: "HostileServer"

    def send(self, *parts: bytes | str) -> None:
        """Send bytes as they are, and count them."""
        raw = b"".join(part.encode() if isinstance(part, str) else part for part in parts)
        self.connection.sendall(raw)
        self.server.sent += len(raw)

    def head(self, status: str = "200 OK", /, **headers: object) -> None:
        """Send a status and headers; underscores become dashes."""
        lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.send("\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]))

    def trickle(self, raw: bytes, pause: float) -> None:
        """Send one byte at a time until the peer is gone or the server ends."""
        for byte in raw:
            if self.server.ended.wait(pause):
                return
            self.send(bytes([byte]))


@dataclass
class HostileServer:
    """Serves every request by a script, one thread for each."""

    script: Script
    tls: ssl.SSLContext | None = None
    requests: list[Request] = field(default_factory=list)
    sent: int = 0
    ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self._listener.shutdown(socket.SHUT_RDWR)  # a close leaves the thread in `accept`, and the port
        self._listener.close()

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                connection.settimeout(60)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            self._answer(self.tls.wrap_socket(connection, server_side=True) if self.tls else connection)

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            raw = b""
            while b"\r\n\r\n" not in raw:
                received = connection.recv(65536)
                if not received:
                    return
                raw += received
            first, *lines = raw.decode("latin-1").split("\r\n\r\n")[0].split("\r\n")
            headers = {
                name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
            }
            request = Request(first.split(" ")[1], headers, len(self.requests))
            self.requests.append(request)
            self.script(request, Peer(connection, self))
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(1)
            while connection.recv(65536):  # an early close with unread data would reset what was sent
                pass


def blob_server(content: bytes, tag: str = '"one"') -> Script:
    """Return a script that serves these bytes well, ranges included."""

    def script(request: Request, peer: Peer) -> None:
        part = content[request.start :]
        if request.start and request.headers.get("if-range") == tag:
            span = f"bytes {request.start}-{len(content) - 1}/{len(content)}"
            peer.head("206 Partial Content", Content_Length=len(part), Content_Range=span, ETag=tag)
        else:
            part = content
            peer.head(Content_Length=len(part), ETag=tag)
        peer.send(part)

    return script


def cut_after(script_content: bytes, cuts: list[int], tag: str = '"one"') -> Script:
    """Return a script that breaks off at each of these offsets in turn, and goes on when asked again."""

    def script(request: Request, peer: Peer) -> None:
        cut = cuts[request.number] if request.number < len(cuts) else len(script_content)
        start = request.start if request.headers.get("if-range") == tag else 0
        length = len(script_content)
        if start:
            span = f"bytes {start}-{length - 1}/{length}"
            peer.head("206 Partial Content", Content_Length=length - start, Content_Range=span, ETag=tag)
        else:
            peer.head(Content_Length=length, ETag=tag)
        peer.send(script_content[start:cut])

    return script


def slowly(seconds: float) -> None:
    """Wait, as a server does that never means to finish."""
    time.sleep(seconds)
