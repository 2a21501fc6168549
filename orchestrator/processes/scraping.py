"""Answer Prometheus: over TLS, to whoever shows the token or a certificate, at one path.

Of a process that says how it is, `/healthz` and `/readyz` are answered to everybody, from memory.
"""

import asyncio
import logging
import secrets
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import Any

import uvicorn
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from activities.drivers.rights import opened_own, read_own
from orchestrator.processes.agent_file import AgentSettings
from orchestrator.processes.places import CALLER, KEPT_SECONDS, Caller, Listening
from orchestrator.processes.read_again import ReadAgain
from policies.model.errors import BadInput

LOOPBACK = IPv4Address("127.0.0.1")
PATH = "/metrics"
ALIVE, READY = "/healthz", "/readyz"
SHORTEST_TOKEN = 32
_BEARER = b"bearer "
_BACKLOG = 128
_TOLD_AGAIN_SECONDS = 60.0
_PLAIN = b"text/plain; charset=utf-8"

_log = logging.getLogger(__name__)

Answer = tuple[HTTPStatus, bytes, bytes]
"""Status, kind of content, and content."""

Fault = Callable[[], str | None]
"""Says from memory why a process cannot do its work, None when it can."""


@dataclass(frozen=True)
class Door:
    """How Prometheus is answered: what is shown, who is asked for what, and how people spell all that."""

    certificate: Path | None
    key: Path | None
    clients: Path | None
    token: Path | None
    connections: int
    spelled: Callable[[str], str]
    """Returns the name by which people set one of these."""
    where: str
    """Where people set it, for the end of a sentence."""


class Scrapes:
    """The application: the metrics of a registry, for those who show one of the tokens."""

    def __init__(
        self,
        registry: CollectorRegistry,
        tokens: Callable[[], Collection[bytes]] | None = None,
        fault: Fault | None = None,
    ) -> None:
        """Take what is shown, and what reads the tokens that are good now; None asks for none.

        With `fault` the process says to everybody whether it is ready.
        """
        self._registry = registry
        self._tokens = tokens
        self._fault = fault
        self._turn = asyncio.Lock()
        self._told = float("-inf")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        del receive
        status, kind, content = await self._answer(scope)
        headers = [(b"content-type", kind), (b"content-length", str(len(content)).encode())]
        if status is HTTPStatus.UNAUTHORIZED:
            headers.append((b"www-authenticate", b"Bearer"))
        if status is not HTTPStatus.OK or scope["path"] != PATH:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status.value, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    async def _answer(self, scope: Any) -> Answer:
        if self._fault is not None and scope["path"] in {ALIVE, READY}:
            return _health(scope["path"], self._fault)
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


def _health(path: str, fault: Fault) -> Answer:
    """Return whether the process lives, or is ready; whoever asks costs nothing else."""
    wrong = fault() if path == READY else None
    if wrong is not None:
        return HTTPStatus.SERVICE_UNAVAILABLE, _PLAIN, f"not ready: {wrong}\n".encode()
    return HTTPStatus.OK, _PLAIN, b"ready\n" if path == READY else b"alive\n"


@asynccontextmanager
async def scraped(settings: AgentSettings, registry: CollectorRegistry) -> AsyncIterator[str]:
    """Answer scrapes of a gateway's exporter for the length of the body, and yield where.

    Raises:
        BadInput: Others could read along, a file is not as it must be, or nobody can listen there.
    """
    exporter = settings.exporter
    address = str(exporter.address or settings.gateway.management or LOOPBACK)
    door = Door(
        certificate=exporter.certificate,
        key=exporter.key,
        clients=exporter.clients,
        token=exporter.token,
        connections=exporter.connections,
        spelled=lambda name: f"exporter.{name}",
        where="in this gateway's file",
    )
    mend = "change exporter.address or gateway.metrics_port in this gateway's file"
    async with answering_scrapes(registry, door, address, settings.gateway.metrics_port, mend) as where:
        yield where


@asynccontextmanager
async def answering_scrapes(
    registry: CollectorRegistry, door: Door, address: str, number: int, mend: str, fault: Fault | None = None
) -> AsyncIterator[str]:
    """Answer scrapes at this address and port for the length of the body, and yield where.

    Sentences tell people to `mend` an address where nobody can listen.

    Raises:
        BadInput: Others could read along, a file is not as it must be, or nobody can listen there.
    """
    loopback = is_loopback(address)
    tls = _certified(door, address, loopback=loopback)
    application = Scrapes(registry, _tokens_of(door), fault)
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
    )
    port = _port_at(address, number, mend)
    async with Listening(config, tls.value if tls else None, door.connections).at(port):
        host = f"[{address}]" if ":" in address else address
        yield f"{'https' if tls else 'http'}://{host}:{port.getsockname()[1]}{PATH}"


def is_loopback(address: str) -> bool:
    """Return whether only this host reaches that address; a name that is no address may be anybody's."""
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


def _port_at(address: str, port: int, mend: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        return socket.create_server((address, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise BadInput(
            f"nobody can listen at {address}, port {port} ({error.strerror}); {mend}, or free it"
        ) from error


def certified(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return what a connection is answered with: the certificate that is shown.

    Raises:
        BadInput: They are no certificate with its key, or other users may read the key.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        with opened_own(key, secret=True) as checked:  # the library opens files by their path alone
            context.load_cert_chain(certificate, f"/proc/self/fd/{checked.fileno()}")
    except OSError as error:
        raise BadInput(
            f"{certificate} and {key} are no certificate with its key ({error}); write both in PEM"
        ) from error
    return context


def _context(certificate: Path, key: Path, clients: Path | None) -> ssl.SSLContext:
    """Return what a connection is answered with: the certificate that is shown, and who may be a client."""
    context = certified(certificate, key)
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(cadata=read_own(clients).decode())
        except (OSError, ValueError) as error:
            raise BadInput(
                f"{clients} holds no authority of client certificates ({error}); write it in PEM"
            ) from error
    return context


def _certified(door: Door, address: str, *, loopback: bool) -> ReadAgain[ssl.SSLContext] | None:
    if door.certificate is None or door.key is None:
        if loopback and not door.clients:
            return None
        raise BadInput(
            f"{address} can be reached by others: name {door.spelled('certificate')} and "
            f"{door.spelled('key')} {door.where}"
        )
    if door.token is None and door.clients is None and not loopback:
        raise BadInput(
            f"{address} can be reached by others: name {door.spelled('token')}, or {door.spelled('clients')} "
            f"for client certificates, {door.where}"
        )
    files = (door.certificate, door.key, door.clients)
    what = f"the certificate for Prometheus at {address}"
    return ReadAgain(what, files, partial(_context, door.certificate, door.key, door.clients))


def _tokens_of(door: Door) -> Callable[[], Collection[bytes]] | None:
    """Return what reads the token file anew for each request, so that a token is changed without a pause."""
    if door.token is None:
        return None
    path = door.token
    read_tokens(path)
    return lambda: read_tokens(path)


def read_tokens(path: Path) -> tuple[bytes, ...]:
    """Return the tokens of a file, one in each line.

    Raises:
        BadInput: It cannot be read, others can read it, it is empty, or one of them can be guessed.
    """
    try:
        found = tuple(line.strip() for line in read_own(path, secret=True).splitlines() if line.strip())
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
