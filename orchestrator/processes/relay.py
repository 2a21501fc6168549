"""The relay's process: agents on one port, by their certificates; hosts that want one on another."""

import asyncio
import logging
import os
import shutil
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from activities.drivers.private_files import read_private
from activities.drivers.rights import read_own
from orchestrator.engine.client import enter_network_namespace
from orchestrator.engine.keys import MasterKeys, read_keys
from orchestrator.enrolment.authority import CERTIFICATE, SLACK, Authority, fingerprint_of
from orchestrator.enrolment.desk import Desk, PayloadKeys, no_keys
from orchestrator.enrolment.listener import enrolment_application
from orchestrator.enrolment.names import RENEW, Certified
from orchestrator.processes.beside import begun_again
from orchestrator.processes.composition import shown_to_the_engine_now
from orchestrator.processes.leaving import leave
from orchestrator.processes.listening import allow_descriptors, answering_at, port_at
from orchestrator.processes.monitored import ledger_look, looking, monitored
from orchestrator.processes.read_again import ReadAgain
from orchestrator.processes.stopping import told_to_stop
from orchestrator.processes.supervisor import say_ready
from orchestrator.refusals import WRITE_SECONDS, Refusals
from orchestrator.relay.calls import Calls
from orchestrator.relay.engine import EngineSide
from orchestrator.relay.front import Front, Proof, fronted
from orchestrator.relay.metrics import ShownRelay
from orchestrator.relay.revocations import Revocations
from orchestrator.relay.server import Relay, server_of
from orchestrator.relay.task_tokens import TaskTokens, read_token_keys
from orchestrator.settings import Settings, read_settings
from orchestrator.store.ledger import Ledger
from orchestrator.umask import keep_to_itself
from policies.model.errors import BadInput, PenstockError

MOST_ENROLLING = 100
"""Hosts that enrol at once."""

STOP_SECONDS = 3.0
"""How long calls that are under way may take to end; polls end at once, and agents go to another relay."""

BACKLOG = 1_024
"""Connections that wait to be taken, as when a fleet comes back after an outage."""


_log = logging.getLogger(__name__)


@asynccontextmanager
async def relaying(settings: Settings) -> AsyncIterator[Relay]:
    """Answer agents, and hosts that enrol, for the length of the body.

    Raises:
        BadInput: A setting is missing or wrong, or nobody can listen there.
    """
    if settings.relay_address is None:
        raise BadInput("no address for agents is set: set PENSTOCK_RELAY_ADDRESS to HOST:PORT")
    others = _read(settings.relay_authorities)
    ledger = Ledger.open(settings.ledger_url)
    authority = _authority(settings.authority, ledger)
    lives = timedelta(days=settings.gateway_certificate_days)
    refusals = Refusals(ledger)
    desk = Desk(authority, ledger, lives, refusals, others, _payload_keys(settings.payload_keys))
    shown = shown_to_the_engine_now(settings)
    engine = EngineSide(settings.temporal_address, settings.temporal_namespace, shown)
    revocations = Revocations(ledger.admitted_certificates)

    async def note(caller: Certified, method: str, peer: str, why: str) -> None:
        body = {"method": method, "from": peer, "why": why, "serial": caller.serial}
        same = f"{caller}/{method}"
        try:
            await asyncio.to_thread(
                ledger.note_refusal, str(caller), caller.fleet, "call refused", body, same
            )
        except PenstockError as error:
            _log.warning("the refusal of %s for %s is not in the audit record: %s", method, caller, error)

    async def renew(caller: Certified, certificate: x509.Certificate, body: bytes, peer: str) -> bytes:
        return await desk.renew(caller, certificate, body, peer)

    calls = Calls(settings.temporal_namespace, TaskTokens(read_token_keys(settings.relay_key)))
    relay = Relay(calls, engine, revocations, note, {RENEW: renew})
    proof = Proof(_pair(settings, authority), authority.pem + others)
    await revocations.refresh()
    async with AsyncExitStack() as held:
        held.push_async_callback(engine.close)
        port = held.enter_context(port_at(settings.relay_address, "PENSTOCK_RELAY_ADDRESS"))
        folder = held.enter_context(_private_folder(settings.relay_key.absolute().parent, port))
        port.listen(BACKLOG)
        if settings.enrolment_address is not None:
            at = port_at(settings.enrolment_address, "PENSTOCK_ENROLMENT_ADDRESS")
            tls = _server_only(authority)
            held.push_async_callback(_write, refusals)
            writing = asyncio.create_task(_keep_writing(refusals))
            held.callback(writing.cancel)
            await held.enter_async_context(
                answering_at(enrolment_application(desk), at, tls=tls, most=MOST_ENROLLING)
            )
        reading = begun_again("reading revocations", partial(revocations.keep, relay.end_revoked))
        keeping = asyncio.create_task(reading)
        held.callback(keeping.cancel)
        server = server_of(relay, folder / "relay.sock", settings.relay_connections)
        front = await held.enter_async_context(fronted(port, folder, proof, settings.relay_connections))
        await server.start()
        held.push_async_callback(server.stop, STOP_SECONDS)
        held.callback(relay.end_polls)
        held.callback(front.close_port)
        standing = asyncio.create_task(begun_again("HAProxy before the relay", front.keep))
        held.callback(standing.cancel)
        if settings.relay_metrics_address is not None:
            await held.enter_async_context(_watched(settings, relay, front, engine, ledger))
        yield relay


async def _keep_writing(refusals: Refusals) -> None:
    """Write into the audit record what the enrolment port refused."""
    while True:
        await asyncio.sleep(WRITE_SECONDS)
        await _write(refusals)


async def _write(refusals: Refusals) -> None:
    try:
        await asyncio.to_thread(refusals.write)
    except PenstockError as error:
        _log.warning("refused enrolments wait for the ledger to be in the audit record: %s", error)


@contextmanager
def _private_folder(state: Path, port: socket.socket) -> Iterator[Path]:
    """Make the folder of HAProxy's files and sockets for the length of the body.

    Only this user may enter: a process that reaches the relay's socket names the caller itself. It lies
    beside the relay's key, where the next relay at this port replaces what a killed one left, or among
    temporary files where that folder is read-only. The path leads there by a descriptor of this process,
    since the address of a socket has 107 bytes at most (unix(7)).
    """
    with ExitStack() as held:
        if os.access(state, os.W_OK):
            folder = state / f"haproxy-{port.getsockname()[1]}"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700)
            held.callback(shutil.rmtree, folder, ignore_errors=True)
        else:
            folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="penstock-relay-")))
        descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
        held.callback(os.close, descriptor)
        yield Path(f"/proc/self/fd/{descriptor}")


@asynccontextmanager
async def _watched(
    settings: Settings, relay: Relay, front: Front, engine: EngineSide, ledger: Ledger
) -> AsyncIterator[None]:
    """Tell for the length of the body how the relay is, and how much it hands on."""
    looks = {"engine": engine.look, "ledger": ledger_look(ledger), "haproxy": front.look}
    certificates = {
        "authority": settings.authority / CERTIFICATE,
        "relay": settings.relay_certificate,
        "relay-authorities": settings.relay_authorities,
    }
    shown, address = [ShownRelay(relay)], settings.relay_metrics_address
    async with (
        looking(looks) as readiness,
        monitored(settings, "relay", address, readiness, shown, certificates),
    ):
        yield


def _authority(folder: Path, ledger: Ledger) -> Authority:
    """Return the installation's authority, made only where no gateway has a certificate of another one.

    Raises:
        BadInput: It is not there although it has signed, or it cannot be read or made.
    """
    if folder.exists():
        return Authority.open(folder)
    if ledger.has_enrolled():
        raise BadInput(
            f"there is no authority in {folder}, and gateways have certificates of one: copy its folder "
            "there from the first relay or a backup, or set PENSTOCK_AUTHORITY to where it is"
        )
    made = Authority.open(folder)
    _log.warning(
        "made a new authority in %s, %s: copy the folder to every other relay, and keep a backup",
        folder,
        fingerprint_of(made.certificate),
    )
    return made


def _payload_keys(masters: Path | None) -> PayloadKeys:
    """Return what derives a gateway's keys; the file is read each time, so that new keys need no restart."""
    if masters is None:
        return no_keys
    read_keys(masters)
    return lambda queue: MasterKeys(read_keys(masters)).lines_for(queue)


def _pair(settings: Settings, authority: Authority) -> Callable[[], bytes]:
    """Return what reads the relay's certificate and key, again whenever their files change."""
    files = (settings.relay_certificate, settings.relay_certificate_key)
    if files == (None, None):
        key, certificate = authority.issue_relay(_as_long_as(authority))
        return lambda: certificate + key
    return ReadAgain("the relay's certificate", files, lambda: _shown(*files)).value


def _shown(certificate: Path | None, key: Path | None) -> bytes:
    if certificate is None or key is None:
        raise BadInput(
            "the relay's own certificate goes with its key: set PENSTOCK_RELAY_CERTIFICATE and "
            "PENSTOCK_RELAY_CERTIFICATE_KEY, or neither"
        )
    shown, secret = _read(certificate), read_private(key, "the relay's key")
    try:
        found = x509.load_pem_x509_certificates(shown)[0]
        fits = load_pem_private_key(secret, None).public_key() == found.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadInput(
            f"{certificate} and {key} are no certificate with its key, in PEM ({error})"
        ) from error
    if not fits:
        raise BadInput(f"{key} is not the key of {certificate}; write both")
    if found.not_valid_after_utc <= datetime.now(UTC):
        raise BadInput(f"{certificate} expired at {found.not_valid_after_utc:%Y-%m-%d %H:%M} UTC; renew it")
    return shown + b"\n" + secret


def _server_only(authority: Authority) -> ssl.SSLContext:
    """Return how a relay proves itself to a host that knows only the authority's fingerprint."""
    key, certificate = authority.issue_relay(_as_long_as(authority))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    with tempfile.NamedTemporaryFile() as file:  # readable by its owner only; the library reads files alone
        file.write(key + certificate)
        file.flush()
        context.load_cert_chain(file.name)
    return context


def _as_long_as(authority: Authority) -> timedelta:
    return authority.certificate.not_valid_after_utc - datetime.now(UTC) - SLACK


def _read(path: Path | None) -> bytes:
    if path is None:
        return b""
    try:
        return read_own(path)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}; check the path") from error


async def main() -> None:
    """Relay until told to stop."""
    settings = read_settings()
    enter_network_namespace(settings.network_namespace)
    allow_descriptors(settings.relay_connections)
    told = told_to_stop()
    async with relaying(settings):
        say_ready(str(settings.relay_address))
        await told.wait()


if __name__ == "__main__":
    keep_to_itself()
    asyncio.run(main())
    leave(0)
