"""The exporter of one gateway: `python -m orchestrator.processes.exporter`, a process of its own.

It runs in the gateway's network namespace, outlives the agent, changes nothing there, and
holds no connection to the engine.
"""

import argparse
import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from prometheus_client import CollectorRegistry, start_http_server

from activities.drivers.daemon.ocserv.daemon import Ocserv
from activities.drivers.daemon.ocserv.log import LoginLog, process_age
from activities.drivers.metrics.exporter import GatewayExporter, Running
from activities.drivers.programs import run
from activities.drivers.runtime.host.process import PROC, Process
from activities.drivers.runtime.host.slot_folders import SlotFolders
from activities.drivers.steering.nftables import TABLE
from activities.drivers.steering.nftables_ruleset import parse
from activities.files import load
from policies.model.errors import BadInput, PenstockError
from policies.model.fleet import Gateway

FOLLOW = timedelta(milliseconds=25)
"""How often logs are read: the resolution of the handshake seconds."""
LOOK = timedelta(milliseconds=500)
STEERING = timedelta(seconds=1)
ASK = timedelta(seconds=3)
PATIENCE = timedelta(seconds=2)
MEMORY = "exporter.json"


class Host:
    """What the exporter can find out about its gateway."""

    def __init__(self, gateway: Gateway, root: Path) -> None:
        self.gateway = gateway
        self.folders = SlotFolders(gateway, root, Ocserv())
        self._seen: dict[str, tuple[Process, tuple[int, int]]] = {}
        self._digests: dict[tuple[Process, tuple[int, int]], str | None] = {}
        self._serving: tuple[float, str | None] = (float("-inf"), None)

    def find(self) -> Iterator[Running]:
        """Yield the running instances, each once it was seen twice as the same program.

        A daemon is launched through a shell and chroot, which must not be mistaken for it.
        """
        for folder in self.folders:
            process = folder.process()
            file = _executable(process)
            if process is None or file is None:
                self._seen.pop(folder.slot.name, None)
                continue
            before = self._seen.get(folder.slot.name)
            self._seen[folder.slot.name] = (process, file)
            if before != (process, file):
                continue
            if before not in self._digests:
                self._digests[before] = process.executable
            digest, release = self._digests[before], folder.release
            if digest:
                yield Running(folder.slot.name, process, digest, release.version if release else "")

    def serving(self) -> str | None:
        """Return the slot that got new sessions when last read, None when that is too long ago."""
        at, slot = self._serving
        return slot if time.monotonic() - at < 5 * STEERING.total_seconds() else None

    async def read_steering(self) -> None:
        """Read from the kernel who gets new sessions now: the trial slot while its lease lasts."""
        result = await run(["nft", "-j", "list", "table", *TABLE.split()], within=PATIENCE)
        if result.status == 0:
            rules = parse(result.out, self.gateway)
            slots = {slot.port: slot.name for slot in self.gateway.slots}
            self._serving = (time.monotonic(), slots.get(rules.trial or rules.steer or 0))

    async def answers(self, slot: str) -> bool:
        """Return whether the slot's own port completes a TLS handshake in time."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        address, port = str(self.gateway.addresses[0]), self.folders.of(slot).slot.port
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(PATIENCE.total_seconds()):
                _, writer = await asyncio.open_connection(address, port, ssl=context)
                writer.close()
                return True
        return False


def _executable(process: Process | None) -> tuple[int, int] | None:
    """Return which file the process runs, by device and inode."""
    if process is None:
        return None
    try:
        found = (PROC / str(process.pid) / "exe").stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


async def watch(host: Host, exporter: GatewayExporter) -> None:
    """Keep the exporter's numbers up to date until cancelled."""

    async def follow() -> None:
        exporter.follow()

    async def look() -> None:
        exporter.refresh()

    async def ask() -> None:
        for running in exporter.running:
            probe = await host.answers(running.slot)
            exporter.learn(running, sessions=await host.folders.count(running.slot), probe=probe)

    async with asyncio.TaskGroup() as tasks:
        for step, every in ((look, LOOK), (follow, FOLLOW), (host.read_steering, STEERING), (ask, ASK)):
            tasks.create_task(_again_and_again(step, every))


async def _again_and_again(step: Callable[[], Awaitable[None]], every: timedelta) -> None:
    """Do the step over and over; what cannot be read now is missing from the answers, nothing more."""
    while True:
        with suppress(PenstockError, OSError, ValueError):
            await step()
        await asyncio.sleep(every.total_seconds())


def read_gateway(path: Path) -> Gateway:
    """Return the gateway a YAML or JSON file describes; BadInput names what is wrong with it."""
    return load(path, Gateway)


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve the gateway's metrics until the process is ended."""
    parser = argparse.ArgumentParser(prog="python -m orchestrator.processes.exporter", description=__doc__)
    parser.add_argument("--gateway", type=Path, required=True, help="YAML or JSON file of the gateway")
    parser.add_argument("--root", type=Path, required=True, help="the gateway's folder on its host")
    parser.add_argument("--address", required=True, help="address to listen on")
    parser.add_argument("--port", type=int, help="port to listen on, else the gateway's metrics_port")
    given = parser.parse_args(arguments)
    try:
        gateway = read_gateway(given.gateway)
    except BadInput as error:
        parser.exit(error.exit_code, f"{error}\n")
    host = Host(gateway, given.root)
    own = frozenset(str(address) for address in gateway.addresses)
    exporter = GatewayExporter(
        logs={folder.slot.name: folder.log for folder in host.folders},
        find=host.find,
        reader=lambda: LoginLog(ignored=own, age=process_age),
        serving=host.serving,
        memory=given.root / MEMORY,
    )
    registry = CollectorRegistry(auto_describe=False)
    registry.register(exporter)
    start_http_server(given.port or gateway.metrics_port, given.address, registry)
    with suppress(KeyboardInterrupt):
        asyncio.run(watch(host, exporter))


if __name__ == "__main__":
    main()
