"""The API's process: the local socket, and a port where the settings name one."""

import asyncio
import gc
import logging
import os
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

from orchestrator.api.limits import Limits
from orchestrator.api.watch import Watch
from orchestrator.crowd import is_this_host
from orchestrator.engine.client import enter_network_namespace
from orchestrator.page.app import whole
from orchestrator.page.runbooks import Runbooks, named_only
from orchestrator.processes.composition import compose
from orchestrator.processes.leaving import leave
from orchestrator.processes.listening import allow_descriptors, answering_at, port_at
from orchestrator.processes.monitored import engine_look, ledger_look, looking, monitored
from orchestrator.processes.recurring import keep_upgrading
from orchestrator.processes.reports import keep_reporting
from orchestrator.processes.scraping import certified
from orchestrator.processes.site_file import SiteFile
from orchestrator.processes.stopping import told_to_stop
from orchestrator.processes.supervisor import say_ready
from orchestrator.refusals import WRITE_SECONDS
from orchestrator.service.service import Service
from orchestrator.settings import Settings, read_settings, state_folder
from orchestrator.umask import keep_to_itself
from policies.model.errors import BadInput, Conflict, PenstockError

EVERYBODY = 0o666
"""Whoever is on this host may knock: the kernel says who it is, and people.yaml what they may do."""
PASSAGE = 0o711
"""The socket is reached through the state folder, and nothing else is seen there."""

MOST_CONNECTIONS = 400
"""Connections at once at each socket, and over TLS as many more before their handshake is done."""

THREADS = 32
"""In which the ledger and files are asked: a few that wait leave the others to everybody else."""

SWITCH_SECONDS = 0.001
"""How long a thread that computes keeps others waiting: a hold passes from thread to thread ten times."""

_log = logging.getLogger(__name__)


@asynccontextmanager
async def serving(
    service: Service,
    *sockets: socket.socket,
    tls: ssl.SSLContext | None = None,
    limits: Limits | None = None,
    watch: Watch | None = None,
    runbooks: Runbooks = named_only,
) -> AsyncIterator[None]:
    """Answer at these sockets for the length of the body; they are closed at its end."""
    app = whole(service, limits, watch, runbooks)
    known = service.people.is_known
    async with answering_at(app, *sockets, tls=tls, most=MOST_CONNECTIONS, is_known=known):
        yield


def socket_at(path: Path) -> socket.socket:
    """Return a socket at this path, where everybody on this host may knock.

    Raises:
        Conflict: Another process answers there.
        BadInput: Nobody can listen there.
    """
    bound = socket.socket(socket.AF_UNIX)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.parent == state_folder():
            path.parent.chmod(PASSAGE)
        if path.is_socket():
            _refuse_another(path)
            path.unlink()
        bound.bind(os.fspath(path))
        path.chmod(EVERYBODY)
        bound.listen()  # who knocks from now on waits until it is served, and is not refused
    except OSError as error:
        bound.close()
        wrong = (
            f"nobody can listen at {path} ({error.strerror or error}); set PENSTOCK_SOCKET to another path"
        )
        raise BadInput(wrong) from error
    return bound


def _refuse_another(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as caller:
        caller.setblocking(False)
        try:
            caller.connect(os.fspath(path))
        except BlockingIOError:
            pass  # it is there, and so many wait for it that there is no room for another
        except OSError:
            return  # its process has ended
    raise Conflict(f"another process answers at {path}: stop that one first")


def listening(settings: Settings) -> socket.socket | None:
    """Return a socket at the address of the settings, None where they name none; BadInput if it is taken."""
    if settings.api_address is None:
        return None
    return port_at(settings.api_address, "PENSTOCK_API_ADDRESS")


@asynccontextmanager
async def answering(settings: Settings, network: socket.socket | None) -> AsyncIterator[None]:
    """Answer at the local socket, and on the network where the settings say so.

    Each has a server of its own, so that no crowd of strangers takes the places of those on this host.

    Raises:
        Conflict: Another process answers there.
        BadInput: Nobody can listen there, or the certificate is none.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS, thread_name_prefix="api"))
    made, limits = await compose(settings), Limits()
    service = made.service
    await service.read_files()
    async with AsyncExitStack() as held:
        looks = {"engine": engine_look(made.changes.client), "ledger": ledger_look(made.ledger)}
        watch = Watch(await held.enter_async_context(looking(looks)))
        shown, certificates = [watch.requests], {"api": settings.api_certificate}
        address = settings.api_metrics_address
        await held.enter_async_context(
            monitored(settings, "api", address, watch.readiness, shown, certificates)
        )
        runbooks = SiteFile(settings.site).address_of
        serve = partial(serving, service, limits=limits, watch=watch, runbooks=runbooks)
        if network is not None and settings.api_address is not None:
            tls = _certified(settings, settings.api_address)
            await held.enter_async_context(serve(network, tls=tls))
        await held.enter_async_context(serve(socket_at(settings.socket)))
        held.push_async_callback(_deliver, service)  # refusals that were counted and not written
        delivering = asyncio.create_task(_keep_delivering(service))
        held.callback(delivering.cancel)
        reading = asyncio.create_task(_keep_reading_people(service))
        held.callback(reading.cancel)
        reporting = asyncio.create_task(keep_reporting(service, settings.reports))
        held.callback(reporting.cancel)
        upgrading = asyncio.create_task(keep_upgrading(service))
        held.callback(upgrading.cancel)
        yield


async def _keep_delivering(service: Service) -> None:
    """Write down what the ledger could not take, what was only counted so far, and who is who by now."""
    while True:
        await asyncio.sleep(WRITE_SECONDS)
        await _deliver(service)


async def _keep_reading_people(service: Service) -> None:
    """Know the user numbers of people, however long the host takes to look them up."""
    while True:
        await service.read_people()
        await asyncio.sleep(WRITE_SECONDS)


async def _deliver(service: Service) -> None:
    try:
        await service.deliver_late_entries()
        await service.write_refusals()
        await service.remember_people()
    except (PenstockError, OSError) as error:
        _log.warning("entries of the audit record wait for the ledger: %s", error)


def _certified(settings: Settings, address: str) -> ssl.SSLContext | None:
    """Return how strangers are answered: with a certificate, unless none of them can be on the way."""
    if settings.api_certificate is None or settings.api_key is None:
        if is_this_host(address.rpartition(":")[0].strip("[]")):
            return None
        raise BadInput(
            f"{address} can be reached by others: set PENSTOCK_API_CERTIFICATE and PENSTOCK_API_KEY, "
            "since tokens travel there"
        )
    return certified(settings.api_certificate, settings.api_key)


async def main() -> None:
    """Answer until told to stop."""
    settings = read_settings()
    network = listening(settings)  # where people are, wherever everything else is
    enter_network_namespace(settings.network_namespace)
    allow_descriptors(3 * MOST_CONNECTIONS)  # the local socket, TLS, and handshakes
    told = told_to_stop()
    async with answering(settings, network):
        gc.freeze()  # 10,000 gateways stay: to look through them for cycles halts everybody for 0.3 s
        say_ready(os.fspath(settings.socket))
        await told.wait()


if __name__ == "__main__":
    keep_to_itself()
    asyncio.run(main())
    leave(0)
