"""Bad days: what goes wrong with a release, with what all gateways share, or with the metrics.

Each is done to the real parts and undone when its `with` ends; what a rollout makes of it is
for the caller to see. Faults of penstock's own processes are in `faults`.
"""

import asyncio
import os
import resource
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path

from deploy.lab.credentials import PROBE
from deploy.lab.faults import no_accounts, overwrite
from deploy.lab.lab import Lab
from policies.model.errors import Unavailable

DOOR_PORT = 9091
"""Where the judge asks for metrics, so that answers can be made to drip on their way."""
STOPPED, RUNNING = 1.2, 0.15
"""Seconds of each, in turn, of a password check that is slow."""
LEAK_PER_SECOND = 25
MOST_LEAKED = 900
DRIP_EVERY = 0.2
RESTART = 4.0
CHUNK = 65536


class Door:
    """A pipe in front of Prometheus; `dripping` lets a byte through now and then."""

    def __init__(self, lab: Lab) -> None:
        self._upstream = lab.prometheus.host.address4, lab.prometheus.port
        self.dripping = False

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Door"]:
        """Listen beside Prometheus; this process lives in the hub (see `lab`)."""
        server = await asyncio.start_server(self._pass_on, self._upstream[0], DOOR_PORT)
        try:
            yield self
        finally:
            server.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answers, questions = await asyncio.open_connection(*self._upstream)
        except OSError:
            writer.transport.abort()
            return
        ways = [
            asyncio.create_task(self._carry(reader, questions, drips=False)),
            asyncio.create_task(self._carry(answers, writer, drips=True)),
        ]
        with suppress(asyncio.CancelledError):  # the lab ends
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        for end in (questions, writer):
            end.transport.abort()

    async def _carry(self, source: asyncio.StreamReader, into: asyncio.StreamWriter, *, drips: bool) -> None:
        with suppress(OSError):
            while chunk := await source.read(CHUNK):
                while chunk and drips and self.dripping:
                    into.write(chunk[:1])
                    chunk = chunk[1:]
                    await asyncio.sleep(DRIP_EVERY)
                into.write(chunk)
                await into.drain()


class BadDays:
    """What can be done to one lab."""

    def __init__(self, lab: Lab, door: Door) -> None:
        self._lab = lab
        self._door = door

    # --- of a release ------------------------------------------------------------

    def forget_people(self, part: float) -> None:
        """Ensure that the list which the faulty release asks lacks this part of the people, evenly spread."""
        everybody = (self._etc / "users").read_text().splitlines(keepends=True)
        kept = [
            line
            for number, line in enumerate(everybody)
            if line.startswith(f"{PROBE}:") or int(number * part) == int((number - 1) * part)
        ]
        overwrite(self._etc / "users-legacy", "".join(kept))

    @asynccontextmanager
    async def crash(self, pid: int) -> AsyncIterator[None]:
        """Kill an instance's main process."""
        os.kill(pid, signal.SIGKILL)
        yield

    @asynccontextmanager
    async def slow_logins(self, pid: int) -> AsyncIterator[None]:
        """Let whoever checks passwords for this instance work only now and then."""
        checking = asyncio.create_task(_stop_and_go(_checkers(pid)))
        try:
            yield
        finally:
            checking.cancel()
            await asyncio.wait([checking])

    @asynccontextmanager
    async def leak(self, gateway: str, slot: str) -> AsyncIterator[None]:
        """Make an instance open more and more files: callers of its control socket that never hang up."""
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (4 * MOST_LEAKED, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        )
        run = self._lab.folder / "gateways" / gateway / "slots" / slot / "run"
        with ExitStack() as held:
            leaking = asyncio.create_task(_call_again_and_again(run, held))
            try:
                yield
            finally:
                leaking.cancel()
                await asyncio.wait([leaking])

    # --- of what all gateways share ----------------------------------------------

    @asynccontextmanager
    async def shared_outage(self) -> AsyncIterator[None]:
        """Let no gateway know anybody: what every instance asks is empty for a while."""
        with no_accounts(self._lab):
            yield

    @asynccontextmanager
    async def nobody_logs_in(self) -> AsyncIterator[None]:
        """Send everybody home who only logs in."""
        await asyncio.to_thread(self._lab.logins.stop)
        try:
            yield
        finally:
            self._lab.logins.start()
            await asyncio.to_thread(self._lab.logins.wait_until_counting)

    # --- of the metrics ----------------------------------------------------------

    @asynccontextmanager
    async def prometheus_killed(self) -> AsyncIterator[None]:
        """Kill it; start it again at the end."""
        self._lab.prometheus.kill()
        try:
            yield
        finally:
            self._lab.prometheus.start()

    @asynccontextmanager
    async def prometheus_frozen(self) -> AsyncIterator[None]:
        """Stop it in its tracks: it accepts connections and never answers."""
        self._lab.prometheus.process.freeze()
        try:
            yield
        finally:
            self._lab.prometheus.process.thaw()

    @asynccontextmanager
    async def prometheus_dripping(self) -> AsyncIterator[None]:
        """Let its answers arrive a byte at a time."""
        self._door.dripping = True
        try:
            yield
        finally:
            self._door.dripping = False

    @asynccontextmanager
    async def prometheus_restarted(self) -> AsyncIterator[None]:
        """Restart it in order; it takes its time, as one with much to read again does."""
        self._lab.prometheus.stop()
        await asyncio.sleep(RESTART)
        self._lab.prometheus.start()
        yield

    @property
    def _etc(self) -> Path:
        return self._lab.folder / "etc" / "credentials"


def _checkers(pid: int) -> list[int]:
    """Return the security modules of an ocserv: children with that name, which check its passwords."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    found = [int(child) for child in children if b"-sm" in Path(f"/proc/{child}/cmdline").read_bytes()]
    if not found:
        raise Unavailable(f"process {pid} has no child that checks passwords")
    return found


async def _stop_and_go(pids: list[int]) -> None:
    try:
        while True:
            _send(pids, signal.SIGSTOP)
            await asyncio.sleep(STOPPED)
            _send(pids, signal.SIGCONT)
            await asyncio.sleep(RUNNING)
    finally:
        _send(pids, signal.SIGCONT)


def _send(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


async def _call_again_and_again(run: Path, held: ExitStack) -> None:
    folder = os.open(run, os.O_PATH | os.O_CLOEXEC)  # a socket's path may have 107 bytes (unix(7))
    held.callback(os.close, folder)
    for _ in range(MOST_LEAKED):
        caller = held.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        caller.setblocking(False)
        with suppress(OSError):
            caller.connect(f"/proc/self/fd/{folder}/occtl.sock")
        await asyncio.sleep(1 / LEAK_PER_SECOND)
