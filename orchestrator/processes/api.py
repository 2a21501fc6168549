"""The API's process: the local socket, and a port where the settings name one."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import uvicorn

from orchestrator.api.app import application
from orchestrator.api.peer import PeerProtocol
from orchestrator.engine.client import enter_network_namespace
from orchestrator.processes.composition import compose
from orchestrator.processes.process import leave
from orchestrator.service.service import Service
from orchestrator.settings import Settings
from policies.model.errors import BadInput, Conflict

EVERYBODY = 0o666
"""Whoever is on this host may knock: the kernel says who it is, and people.yaml what they may do."""

MOST_CONNECTIONS = 400
KEPT_ALIVE_SECONDS = 20


class _Server(uvicorn.Server):
    """A server that leaves signals to the process it is part of."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


@asynccontextmanager
async def serving(service: Service, *sockets: socket.socket) -> AsyncIterator[None]:
    """Answer at these sockets for the length of the body; they are closed at its end."""
    config = uvicorn.Config(
        application(service),
        http=PeerProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=KEPT_ALIVE_SECONDS,
        timeout_graceful_shutdown=2,
    )
    server = _Server(config)
    answering = asyncio.create_task(server.serve([*sockets]))
    try:
        while not (server.started or answering.done()):  # noqa: ASYNC110 - uvicorn tells it by a flag
            await asyncio.sleep(0.01)
        yield
    finally:
        server.should_exit = True
        await answering


def socket_at(path: Path) -> socket.socket:
    """Return a socket at this path, where everybody on this host may knock.

    Raises:
        Conflict: Another process answers there.
        BadInput: Nobody can listen there.
    """
    bound = socket.socket(socket.AF_UNIX)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_socket():
            _refuse_another(path)
            path.unlink()
        bound.bind(os.fspath(path))
        path.chmod(EVERYBODY)
    except OSError as error:
        bound.close()
        wrong = (
            f"nobody can listen at {path} ({error.strerror or error}); set PENSTOCK_SOCKET to another path"
        )
        raise BadInput(wrong) from error
    return bound


def _refuse_another(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as caller:
        try:
            caller.connect(os.fspath(path))
        except OSError:
            return  # its process has ended
    raise Conflict(f"another process answers at {path}: stop that one first")


async def main() -> None:
    """Answer at the socket until told to stop."""
    settings = Settings()
    enter_network_namespace(settings.network_namespace)
    told = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, told.set)
    async with serving((await compose(settings)).service, socket_at(settings.socket)):
        print(f"ready: {settings.socket}", flush=True)  # noqa: T201 - the supervisor waits for this line
        await told.wait()


if __name__ == "__main__":
    asyncio.run(main())
    leave(0)
