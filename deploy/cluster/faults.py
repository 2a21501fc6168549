"""What can go wrong between a client and an API server, on demand: a real TLS proxy before the real server.

Requests go through untouched until a rule names them. Every fault ends by itself: after so many requests,
after so many seconds, or with the proxy.
"""

import http.client
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from deploy.cluster.identities import LOOPBACK
from deploy.lab import namespaces

HELD_AT_MOST = 300.0
"""Seconds that a request hangs when neither its client nor the proxy ends before."""
_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "proxy-connection"}
_PIECE = 65536
_HELD = 0.05


class Fault(StrEnum):
    """What happens to a request."""

    CONFLICT = "409"
    EXPIRED = "410"
    TOO_MANY = "429"
    """With a plain text body and Retry-After, as the server says it under load."""
    FORBIDDEN = "403"
    """As the server says it of rights, and in its first moments of everybody."""
    UNAVAILABLE = "503"
    HANGS = "hangs"
    """Never answered, and the server never hears of it."""
    CUT = "cut"
    """The connection ends, and the server never hears of it."""
    CUT_AFTER = "cut after the server acted"
    HANGS_AFTER = "hangs after the server acted"
    BROKEN_AFTER = "half of its JSON after the server acted"
    WITHOUT_SPEC_AFTER = "an object without spec after the server acted"
    """A success that no model of the client accepts."""


_SAID = {
    Fault.CONFLICT: (
        "Conflict",
        "the object has been modified; please apply your changes to the latest version",
    ),
    Fault.EXPIRED: (
        "Expired",
        "the provided continue parameter is too old to display a consistent list result",
    ),
    Fault.FORBIDDEN: (
        "Forbidden",
        'User "somebody" cannot {verb} resource "{resource}" in API group "{group}"',
    ),
    Fault.UNAVAILABLE: ("ServiceUnavailable", "the server is currently unable to handle the request"),
}
_VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_BEFORE = {Fault.HANGS, Fault.CUT, Fault.TOO_MANY, *_SAID}


@dataclass
class Rule:
    """Which requests meet a fault, and for how long."""

    fault: Fault
    method: str
    """Of HTTP; empty is any."""
    path: re.Pattern[str]
    """Looked for in the path with its query."""
    times: int | None
    """How many requests still meet it; None is all until the end."""
    until: float
    """By the monotonic clock."""
    retry_after: int = 1
    """Seconds, told with a 429."""
    struck: list[str] = field(default_factory=list)
    """Method and path of each that met it."""

    def takes(self, method: str, path: str) -> bool:
        """Say whether this request meets it, and count it then."""
        spent = self.times is not None and len(self.struck) >= self.times
        if spent or time.monotonic() > self.until or self.method not in {"", method}:
            return False
        if not self.path.search(path):
            return False
        self.struck.append(f"{method} {path}")
        return True


class Proxy:
    """Stands before one API server, with a certificate of the same authority."""

    def __init__(
        self,
        server: str,
        authority: Path,
        known: tuple[Path, Path],
        *,
        address: str = LOOPBACK,
        namespace: str | None = None,
    ) -> None:
        """Take the server's URL, who vouches for it, and the key and certificate that clients are shown."""
        place = urlsplit(server)
        self._server = (str(place.hostname), int(place.port or 443))
        self._trusted = ssl.create_default_context(cafile=str(authority))
        self._shown = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._shown.load_cert_chain(known[1], known[0])
        self._namespace = namespace
        self._lock = threading.Lock()
        self._rules: list[Rule] = []
        self.ended = threading.Event()
        self.accepts = threading.Event()
        self.accepts.set()
        with self._there():
            self._listener = _Listener((address, 0), self)
        self.url = f"https://{address}:{self._listener.server_address[1]}"
        """What a client is told instead of the server's own URL."""

    def __enter__(self) -> Self:
        serve = self._listener.serve_forever
        self._thread = threading.Thread(target=serve, kwargs={"poll_interval": _HELD}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self._listener.shutdown()
        self._listener.server_close()
        self._thread.join()

    def inject(
        self,
        fault: Fault,
        *,
        method: str = "",
        path: str = "",
        times: int | None = 1,
        seconds: float = HELD_AT_MOST,
        retry_after: int = 1,
    ) -> Rule:
        """Have requests of this method, whose path this pattern is found in, meet a fault; the next one only.

        With `times` None it is all of them within these seconds. Of several rules the oldest counts.
        """
        rule = Rule(fault, method, re.compile(path), times, time.monotonic() + seconds, retry_after)
        with self._lock:
            self._rules.append(rule)
        return rule

    def heal(self) -> None:
        """Forget every rule; what hangs already goes on to hang."""
        with self._lock:
            self._rules.clear()

    @contextmanager
    def half_open(self) -> Iterator[None]:
        """Have new connections accepted, and nothing said on them, for the length of the block."""
        self.accepts.clear()
        try:
            yield
        finally:
            self.accepts.set()

    def fault_of(self, method: str, path: str) -> Rule | None:
        """Return the rule that this request meets."""
        with self._lock:
            return next((rule for rule in self._rules if rule.takes(method, path)), None)

    def greet(self, connection: socket.socket) -> ssl.SSLSocket:
        """Return the connection of a client once it is a secure one."""
        self.hold_while(lambda: not self.accepts.is_set())
        return self._shown.wrap_socket(connection, server_side=True)

    def hold_while(self, holds: Callable[[], bool]) -> None:
        """Wait while this holds, never longer than the proxy lives or anything may hang."""
        end = time.monotonic() + HELD_AT_MOST
        while holds() and time.monotonic() < end and not self.ended.wait(_HELD):
            pass

    def upstream(self) -> http.client.HTTPSConnection:
        """Return a new connection to the server."""
        found = http.client.HTTPSConnection(*self._server, context=self._trusted, timeout=HELD_AT_MOST)
        with self._there():
            found.connect()
        return found

    def _there(self) -> AbstractContextManager[None]:
        return namespaces.inside(self._namespace) if self._namespace else nullcontext()


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, place: tuple[str, int], proxy: Proxy) -> None:
        self.proxy = proxy
        super().__init__(place, _Handler)

    def handle_error(self, *_: object) -> None:
        """A client that leaves in the middle is what this is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Listener

    def setup(self) -> None:
        self.proxy = self.server.proxy
        self._server_side: http.client.HTTPSConnection | None = None
        self.request = self.proxy.greet(self.request)
        super().setup()

    def finish(self) -> None:
        if self._server_side is not None:
            self._server_side.close()
        with suppress(OSError):
            super().finish()
        with suppress(OSError):
            self.request.close()

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_GET  # noqa: N815 - named by the standard library

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        rule = self.proxy.fault_of(self.command, self.path)
        if rule is not None and rule.fault in _BEFORE:
            self._refuse(rule)
            return
        answer = self._asked(body)
        if rule is None:
            self._pass_on(answer)
        else:
            self._spoil(rule.fault, answer)

    def _refuse(self, rule: Rule) -> None:
        match rule.fault:
            case Fault.HANGS:
                self._hang()
            case Fault.CUT:
                self._cut()
            case Fault.TOO_MANY:
                text = b"Too many requests, please try again later.\n"
                self._say(429, text, "text/plain; charset=utf-8", {"Retry-After": str(rule.retry_after)})
            case _:
                status = int(rule.fault.value)
                self._say(status, json.dumps(_status(rule.fault, self.command, self.path)).encode())

    def _spoil(self, fault: Fault, answer: http.client.HTTPResponse) -> None:
        content = answer.read()
        match fault:
            case Fault.CUT_AFTER:
                self._cut()
            case Fault.HANGS_AFTER:
                self._hang()
            case Fault.BROKEN_AFTER:
                self._say(answer.status, content[: len(content) // 2])
            case _:
                said = json.loads(content)
                said.pop("spec", None)
                self._say(answer.status, json.dumps(said).encode())

    def _asked(self, body: bytes) -> http.client.HTTPResponse:
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
        if self._server_side is None:
            self._server_side = self.proxy.upstream()
        self._server_side.request(self.command, self.path, body or None, headers)
        return self._server_side.getresponse()

    def _pass_on(self, answer: http.client.HTTPResponse) -> None:
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in _HOP:
                self.send_header(name, value)
        whole = answer.getheader("Content-Length") is not None or self.command == "HEAD"
        if not whole:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while piece := answer.read1(_PIECE):
            self.wfile.write(piece if whole else b"%x\r\n%s\r\n" % (len(piece), piece))
        if not whole:
            self.wfile.write(b"0\r\n\r\n")
        answer.close()  # or its connection takes no next request: read1 does not notice the end

    def _say(
        self,
        status: int,
        content: bytes,
        kind: str = "application/json",
        headers: dict[str, str] | None = None,
    ) -> None:
        self.send_response_only(status, HTTPStatus(status).phrase)
        for name, value in {"Content-Type": kind, **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _hang(self) -> None:
        self.proxy.hold_while(lambda: not self._client_left())
        self._cut()

    def _client_left(self) -> bool:
        self.request.settimeout(0)
        try:
            return bool(self.request.recv(1) == b"")
        except (ssl.SSLWantReadError, BlockingIOError):
            return False
        except OSError:
            return True

    def _cut(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            socket.socket.shutdown(self.request, socket.SHUT_RDWR)


def _status(fault: Fault, method: str, path: str) -> dict[str, Any]:
    reason, message = _SAID[fault]
    parts = urlsplit(path).path.strip("/").split("/")
    group = parts[1] if parts[0] == "apis" and len(parts) > 1 else ""
    rest = parts[3 if group else 2 :]
    resource = (rest[2:] if rest[:1] == ["namespaces"] and len(rest) > 2 else rest)[:1]  # noqa: PLR2004
    verb = _VERBS.get(method, method.lower())
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message.format(verb=verb, resource="".join(resource), group=group),
        "reason": reason,
        "code": int(fault.value),
    }
