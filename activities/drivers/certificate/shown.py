"""How an authority is shown whose a name is: over HTTP on this host, or by a program that writes to DNS."""

import logging
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from subprocess import TimeoutExpired, run
from typing import Any, Protocol, TypeAlias

from acme import challenges
from josepy.jwk import JWK

from activities.drivers.rights import require_own
from policies.model.errors import BadInput, PenstockError, Unavailable

STRANGER_SECONDS = 5
"""How long a caller may take to say what he wants: everybody reaches this port for as long as it is open."""
MOST_CALLERS = 64
HOOK_SECONDS = 240
"""How long the program may take until everybody sees a record."""

Asked: TypeAlias = tuple[str, Any, JWK | None]
"""A name, its challenge, and the account's key that answers it."""

_log = logging.getLogger(__name__)


class Shown(Protocol):
    """One kind of proof."""

    kind: type[challenges.Challenge]

    def showing(self, asked: Sequence[Asked]) -> AbstractContextManager[None]:
        """Show the answers for the length of a block.

        Raises:
            BadInput: What it was told does not work on this host.
            Unavailable: It did not come to pass now.
        """
        ...


class ShownOverHttp:
    """http-01: this host answers at a port, for as long as it takes, and tells nothing else."""

    kind = challenges.HTTP01

    def __init__(self, port: int) -> None:
        """Take the port to which requests for port 80 come."""
        self._port = port

    @contextmanager
    def showing(self, asked: Sequence[Asked]) -> Iterator[None]:
        """Answer for the length of the block."""
        said = {one.path: one.validation(key).encode() for _, one, key in asked}
        try:
            server = _Answers(("", self._port), _answering(said))
        except OSError as error:
            raise BadInput(
                f"nobody can answer at port {self._port} of this host: {error.strerror}; say another "
                "http_port, to which requests for port 80 are led"
            ) from error
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()


class _Answers(ThreadingHTTPServer):
    """Answers IPv6 and IPv4; one more caller than there are places for is sent away at once."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = MOST_CALLERS
    address_family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._places = threading.BoundedSemaphore(MOST_CALLERS)
        super().__init__(address, handler)

    def server_bind(self) -> None:
        """Take both families where there are two."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: whoever breaks off is nobody's business."""


def _answering(said: dict[str, bytes]) -> type[BaseHTTPRequestHandler]:
    class Answer(BaseHTTPRequestHandler):
        timeout = STRANGER_SECONDS

        def do_GET(self) -> None:
            found = said.get(self.path)
            if found is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("content-type", "application/octet-stream")
            self.send_header("content-length", str(len(found)))
            self.end_headers()
            self.wfile.write(found)

        def log_message(self, *said: Any) -> None:
            """Write no line for each stranger."""

    return Answer


class ShownInDns:
    """dns-01: a program of the operator's has a TXT record seen, and takes it away again."""

    kind = challenges.DNS01

    def __init__(self, hook: Path) -> None:
        """Take the program."""
        self._hook = hook

    @contextmanager
    def showing(self, asked: Sequence[Asked]) -> Iterator[None]:
        """Have the records there for the length of the block.

        One that cannot be taken away, or is left by a process that was killed, proves nothing to anybody.
        """
        with ExitStack() as shown:
            for name, one, key in asked:
                record = one.validation_domain_name(name), one.validation(key)
                self._call("present", *record)
                shown.callback(self._clean, *record)
            yield

    def _clean(self, name: str, value: str) -> None:
        try:
            self._call("clean", name, value)
        except PenstockError as error:
            _log.warning("a record stays in DNS: %s", error)

    def _call(self, what: str, name: str, value: str) -> None:
        require_own(self._hook)
        try:
            done = run(
                [self._hook, what, name, value],
                capture_output=True,
                timeout=HOOK_SECONDS,
                check=False,
                text=True,
            )
        except OSError as error:
            raise BadInput(f"dns_hook {self._hook} cannot be started: {error.strerror}") from error
        except TimeoutExpired as error:
            raise Unavailable(
                f"dns_hook {self._hook} did not end its {what} of {name} within {HOOK_SECONDS} s"
            ) from error
        if done.returncode:
            words = ["it said nothing", *(done.stderr or done.stdout).strip().splitlines()]
            raise Unavailable(f"dns_hook {self._hook} has failed to {what} {name}: {words[-1]}")
