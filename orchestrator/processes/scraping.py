"""Answer Prometheus: over TLS, to whoever shows the token or a certificate, at one path."""

import asyncio
import logging
import secrets
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import uvicorn
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from activities.drivers.rights import require_own
from orchestrator.processes.agent_file import AgentSettings, ExporterSettings
from orchestrator.processes.places import CALLER, KEPT_SECONDS, Caller, Listening
from orchestrator.processes.read_again import ReadAgain
from policies.model.errors import BadInput

LOOPBACK = IPv4Address("127.0.0.1")
PATH = "/metrics"
SHORTEST_TOKEN = 32
_BEARER = b"bearer "
_MOST_HEADERS = 16 * 1024
_BACKLOG = 128
_TOLD_AGAIN_SECONDS = 60.0
_PLAIN = b"text/plain; charset=utf-8"

_log = logging.getLogger(__name__)

Answer = tuple[HTTPStatus, bytes, bytes]
"""Status, kind of content, and content."""


class Scrapes:
    """The application: the metrics of a registry, for those who show one of the tokens."""

    def __init__(
        self, registry: CollectorRegistry, tokens: Callable[[], Collection[bytes]] | None = None
    ) -> None:
        """Take what is shown, and what reads the tokens that are good now; None asks for none."""
        self._registry = registry
        self._tokens = tokens
        self._turn = asyncio.Lock()
        self._told = float("-inf")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        del receive
        status, kind, content = await self._answer(scope)
        headers = [(b"content-type", kind), (b"content-length", str(len(content)).encode())]
        if status is HTTPStatus.UNAUTHORIZED:
            headers.append((b"www-authenticate", b"Bearer"))
        if status is not HTTPStatus.OK:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status.value, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    async def _answer(self, scope: Any) -> Answer:
        caller: Caller = scope["state"][CALLER]
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if not self._is_known(headers.get(b"authorization", b"")):
            self._tell(caller.address)
            return HTTPStatus.UNAUTHORIZED, _PLAIN, b"show the token of this exporter\n"
        caller.recognise()
        if scope["path"] != PATH:
            return HTTPStatus.NOT_FOUND, _PLAIN, f"there is {PATH} and nothing else\n".encode()
        if scope["method"] != "GET":
            return HTTPStatus.METHOD_NOT_ALLOWED, _PLAIN, b"ask with GET\n"
        encode, kind = choose_encoder(headers.get(b"accept", b"").decode("latin-1"))
        async with self._turn:  # one thread reads, however many ask
            content: bytes = await asyncio.to_thread(encode, self._registry)
        return HTTPStatus.OK, kind.encode(), content

    def _is_known(self, shown: bytes) -> bool:
        if self._tokens is None:
            return True
        if not shown.lower().startswith(_BEARER):
            return False
        given = shown[len(_BEARER) :].strip()
        try:
            good = self._tokens()
        except BadInput as error:
            _log.warning("nobody can be recognised: %s", error)
            return False
        return any([secrets.compare_digest(given, one) for one in good])  # noqa: C419 - takes as long for each

    def _tell(self, address: str) -> None:
        """Say who was refused, once in a while: a stranger must not fill the log."""
        if time.monotonic() - self._told > _TOLD_AGAIN_SECONDS:
            self._told = time.monotonic()
            _log.warning("%s asked for the metrics without a token that is good here", address)


@asynccontextmanager
async def scraped(settings: AgentSettings, registry: CollectorRegistry) -> AsyncIterator[str]:
    """Answer scrapes for the length of the body, and yield where.

    Raises:
        BadInput: Others could read along, a file is not as it must be, or nobody can listen there.
    """
    exporter = settings.exporter
    address = exporter.address or settings.gateway.management or LOOPBACK
    tls = _certified(exporter, address)
    application = Scrapes(registry, _tokens_of(exporter))
    config = uvicorn.Config(
        application,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=int(KEPT_SECONDS),
        h11_max_incomplete_event_size=_MOST_HEADERS,
    )
    port = _port_at(address, settings.gateway.metrics_port)
    async with Listening(config, tls.value if tls else None, exporter.connections).at(port):
        host = f"[{address}]" if address.version == 6 else str(address)  # noqa: PLR2004 - IPv6
        yield f"{'https' if tls else 'http'}://{host}:{port.getsockname()[1]}{PATH}"


def _port_at(address: IPv4Address | IPv6Address, port: int) -> socket.socket:
    family = socket.AF_INET6 if isinstance(address, IPv6Address) else socket.AF_INET
    try:
        return socket.create_server((str(address), port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise BadInput(
            f"nobody can listen at {address}, port {port} ({error.strerror}); change exporter.address or "
            "gateway.metrics_port in this gateway's file, or stop who listens there"
        ) from error


def _context(certificate: Path, key: Path, clients: Path | None) -> ssl.SSLContext:
    """Return what a connection is answered with: the certificate that is shown, and who may be a client."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    require_own(key, secret=True)
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:
        raise BadInput(
            f"{certificate} and {key} are no certificate with its key ({error}); write both in PEM"
        ) from error
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(clients)
        except OSError as error:
            raise BadInput(
                f"{clients} holds no authority of client certificates ({error}); write it in PEM"
            ) from error
    return context


def _certified(
    exporter: ExporterSettings, address: IPv4Address | IPv6Address
) -> ReadAgain[ssl.SSLContext] | None:
    if exporter.certificate is None or exporter.key is None:
        if address.is_loopback and not exporter.clients:
            return None
        raise BadInput(
            f"{address} can be reached by others: name exporter.certificate and exporter.key in this "
            "gateway's file"
        )
    if exporter.token is None and exporter.clients is None and not address.is_loopback:
        raise BadInput(
            f"{address} can be reached by others: name exporter.token, or exporter.clients for client "
            "certificates, in this gateway's file"
        )
    files = (exporter.certificate, exporter.key, exporter.clients)
    return ReadAgain("the exporter's certificate", files, partial(_context, *files))


def _tokens_of(exporter: ExporterSettings) -> Callable[[], Collection[bytes]] | None:
    """Return what reads the token file anew for each request, so that a token is changed without a pause."""
    if exporter.token is None:
        return None
    path = exporter.token
    require_own(path, secret=True)
    read_tokens(path)
    return lambda: read_tokens(path)


def read_tokens(path: Path) -> tuple[bytes, ...]:
    """Return the tokens of a file, one in each line.

    Raises:
        BadInput: It cannot be read, is empty, or one of them can be guessed.
    """
    try:
        found = tuple(line.strip() for line in path.read_bytes().splitlines() if line.strip())
    except OSError as error:
        raise BadInput(
            f"{path} cannot be read ({error.strerror}); write the exporter's token into it"
        ) from error
    if not found or min(map(len, found)) < SHORTEST_TOKEN:
        raise BadInput(
            f"{path} must hold a token of at least {SHORTEST_TOKEN} characters in each line; "
            "make one with `openssl rand -hex 32`"
        )
    return found
