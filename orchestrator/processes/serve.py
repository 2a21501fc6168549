"""The embedded default: an engine of one's own under supervision, and the worker beside it.

For one person on one machine. The engine's state is one SQLite file; two servers on one file
would damage it, so the file is locked for as long as this runs (temporal.md section 5).
"""

import asyncio
import fcntl
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

from orchestrator.engine import development as development_engine
from orchestrator.engine.client import connect
from orchestrator.processes.api import answering, listening
from orchestrator.processes.worker import run_beside
from orchestrator.settings import Settings, read_settings, state_folder
from policies.model.errors import BadInput, Conflict, Unavailable

READY_WITHIN = 30.0
AGAIN_AFTER = 0.5
"""Seconds between the death of the engine and its next start."""


class Engine:
    """Temporal's development server as a supervised child: it is started again whenever it dies."""

    def __init__(self, address: str, folder: Path) -> None:
        host, _, port = address.rpartition(":")
        self._host, self._port = host, int(port)
        self._folder = folder
        self._child: asyncio.subprocess.Process | None = None

    async def supervise(self) -> None:
        """Keep it running until cancelled."""
        try:
            while True:
                self._child = await asyncio.create_subprocess_exec(
                    *self._command(), stdout=asyncio.subprocess.DEVNULL, start_new_session=True
                )
                code = await self._child.wait()
                print(f"the engine ended with {code}; it is started again", file=sys.stderr)  # noqa: T201
                await asyncio.sleep(AGAIN_AFTER)
        finally:
            await self._end()

    def refuse_strangers(self) -> None:
        """Return if nobody listens on the engine's port; a stranger's engine must never be taken for ours.

        Raises:
            BadInput: Something does.
        """
        with socket.socket() as caller:
            if caller.connect_ex((self._host, self._port)) == 0:
                raise BadInput(
                    f"port {self._port} of {self._host} is in use: stop what listens there, or set "
                    "PENSTOCK_TEMPORAL_ADDRESS to another port"
                )

    async def _end(self) -> None:
        if self._child is None or self._child.returncode is not None:
            return
        with suppress(ProcessLookupError):
            self._child.terminate()
        try:
            await asyncio.wait_for(self._child.wait(), 5)
        except TimeoutError:
            self._child.kill()
            await self._child.wait()

    def _command(self) -> list[str]:
        return development_engine.command(self._host, self._port, self._folder / "engine.sqlite")


@asynccontextmanager
async def engine(settings: Settings) -> AsyncIterator[None]:
    """Run an engine at the settings' address for the length of the body.

    Raises:
        Conflict: Another one has its state.
        BadInput: Its port is taken.
        Unavailable: It does not come up.
    """
    folder = state_folder() / "engine"
    folder.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as held:
        lock = held.enter_context((folder / "lock").open("w"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(f"{folder} is in use by another penstock serve: stop that one first") from None
        server = Engine(settings.temporal_address, folder)
        server.refuse_strangers()
        supervision = asyncio.create_task(server.supervise())
        held.push_async_callback(_cancelled, supervision)
        await _answers(settings, supervision)
        yield


async def _cancelled(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def _answers(settings: Settings, supervision: "asyncio.Task[None]") -> None:
    deadline = asyncio.get_running_loop().time() + READY_WITHIN
    while True:
        if supervision.done():
            supervision.result()
        try:
            await connect(settings.temporal_address, settings.temporal_namespace)
        except Unavailable:
            if asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(0.1)
        else:
            return


@asynccontextmanager
async def relaying_where_asked(settings: Settings) -> AsyncIterator[None]:
    """Run a relay for the length of the body, where the settings have an address for it."""
    if settings.relay_address is None:
        yield
        return
    from orchestrator.processes.relay import relaying  # noqa: PLC0415 - ten megabytes that most do not need

    async with relaying(settings):
        print(f"relay at {settings.relay_address}", flush=True)  # noqa: T201
        yield


async def main() -> None:
    """Run engine and worker until told to stop."""
    settings = read_settings()
    if not settings.fleet.exists():
        raise BadInput(f"there is no {settings.fleet}: write it as the README shows, or set PENSTOCK_FLEET")
    async with engine(settings):
        print(f"engine at {settings.temporal_address}; Ctrl-C stops it, nothing is lost", flush=True)  # noqa: T201
        async with answering(settings, listening(settings)), relaying_where_asked(settings):
            await run_beside(settings)
