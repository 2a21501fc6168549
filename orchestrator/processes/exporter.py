"""The exporter of one gateway: `penstock exporter CONFIG`, a process of its own.

It reads the same file as the gateway's agent, runs in the gateway's network namespace, outlives the
agent, changes nothing there, and holds no connection to the engine. On a node it does not see the
processes of pods: what they use of processor, memory and files is left out, and a connection counts
until its end is logged.
"""

import asyncio
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from prometheus_client import CollectorRegistry

from activities.drivers.daemon.client import sources_of_clients
from activities.drivers.daemon.port import Answer, Session
from activities.drivers.daemon.products import daemon_of
from activities.drivers.metrics.certificates import CertificateLives
from activities.drivers.metrics.exporter import GatewayExporter, Hears, Running, nobody_hears
from activities.drivers.metrics.interfaces import Interfaces
from activities.drivers.metrics.journal import Journal
from activities.drivers.metrics.login_times import LoginTimes
from activities.drivers.metrics.tunnel_probes import Tunnel, TunnelProbes, require_pings
from activities.drivers.runtime.host.process import Alive
from activities.drivers.steering.homes import home_of
from activities.drivers.steering.products import READERS
from activities.files import load_own
from orchestrator.processes.agent_file import AgentSettings, tell_of_unread_variables
from orchestrator.processes.gateway_folders import folders_of
from orchestrator.processes.scraping import scraped
from orchestrator.processes.stopping import told_to_stop
from orchestrator.processes.supervisor import say_ready
from policies.model.adoption import ADOPTED
from policies.model.errors import BadInput, PenstockError
from policies.model.fleet import Gateway

FOLLOW = timedelta(milliseconds=25)
"""How often logs are read: the resolution of the handshake seconds."""
LOOK = timedelta(milliseconds=500)
STEERING = timedelta(seconds=1)
ASK = timedelta(seconds=3)
PATIENCE = timedelta(seconds=2)
MISSED = 2
"""Answers without sessions in a row after which the journal names the daemon."""
MEMORY = "exporter.json"
THREADS = 2
"""One reads for Prometheus, one is for the loop's own questions."""

_log = logging.getLogger(__name__)


class Host:
    """What the exporter can find out about its gateway."""

    def __init__(self, gateway: Gateway, root: Path) -> None:
        self.gateway = gateway
        self.folders = folders_of(gateway, root, daemon_of(gateway.daemon))
        self._read = READERS[gateway.steering]
        self._seen: dict[str, tuple[Alive, tuple[int, int]]] = {}
        self._digests: dict[tuple[Alive, tuple[int, int]], str | None] = {}
        self._serving: tuple[float, str | None] = (float("-inf"), None)

    def find(self) -> Iterator[Running]:
        """Yield the running instances, each once it was seen twice as the same program.

        A daemon is launched through a shell and chroot, which must not be mistaken for it.
        """
        for folder in self.folders:
            process = folder.process()
            file = process.file if process is not None else None
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

    def process(self, slot: str) -> Alive | None:
        """Return what runs in the slot, None where nothing does or the gateway has no such slot."""
        with suppress(BadInput):
            return self.folders.of(slot).process()
        return None

    def networks(self) -> dict[str, tuple[str, Path]]:
        """Return by slot which process has a network of its own: its name, and its folder in `/proc`."""
        running = ((folder.slot, folder.process()) for folder in self.folders)
        return {
            slot.name: (process.name, Path(f"/proc/{process.pid}"))
            for slot, process in running
            if slot.address is not None and process is not None and process.pid is not None
        }

    def serving(self) -> str | None:
        """Return the slot that got new sessions when last read, None when that is too long ago."""
        at, slot = self._serving
        return slot if time.monotonic() - at < 5 * STEERING.total_seconds() else None

    async def read_steering(self) -> None:
        """Read who gets new sessions now: the trial slot while its lease lasts."""
        slots = {home_of(folder.slot): folder.slot.name for folder in self.folders}
        found = await self._read(self.gateway, self.folders.root, slots)
        if found.primed:
            self._serving = (time.monotonic(), found.trial or found.serving)

    async def answer(self, slot: str) -> Answer:
        """Return what the slot's own port says to somebody who does not log in."""
        return await self.folders.daemon.answer(self.folders.of(slot).chroot, PATIENCE)

    async def silence(self, slot: str) -> str:
        """Return in one line why the slot's instance does not report its sessions."""
        return await self.folders.daemon.silence(self.folders.of(slot).chroot)

    async def sessions(self, slot: str) -> tuple[Session, ...] | None:
        """Return the slot's connected sessions; None when the instance does not say."""
        folder = self.folders.of(slot)
        if folder.process() is None:
            return ()
        found = await self.folders.daemon.sessions(folder.chroot)
        return None if found is None else tuple(session for session in found if session.connected)


@dataclass(frozen=True)
class Shows:
    """Everything that one exporter shows to Prometheus."""

    gateway: GatewayExporter
    interfaces: Interfaces
    certificates: CertificateLives
    tunnels: TunnelProbes | None = None
    """Asked only where the agent's file says `probe_tunnels`."""
    journal: Journal | None = None
    """Told only where it says `journal`."""

    @property
    def registry(self) -> CollectorRegistry:
        """All of it."""
        registry = CollectorRegistry(auto_describe=False)
        for one in (self.gateway, self.interfaces, self.certificates, self.tunnels, self.journal):
            if one is not None:
                registry.register(one)
        return registry


class Silence:
    """Logs once when a daemon stops reporting its sessions, with the cause, and once when that ends."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._missed: dict[Running, int] = {}

    async def note(self, one: Running, *, reports: bool) -> None:
        """Record whether the instance reported its sessions; a daemon that starts may miss one answer."""
        running = f"{self._host.gateway.daemon} in slot {one.slot}"
        if reports:
            if self._missed.pop(one, 0) >= MISSED:
                _log.warning("%s reports its sessions again", running)
            return
        self._missed[one] = missed = self._missed.get(one, 0) + 1
        if missed == MISSED:
            series = "so vpngw_sessions of that slot is not exported"
            why = await self._host.silence(one.slot)
            _log.warning("%s does not report its sessions, %s: %s", running, series, why)


async def watch(host: Host, shows: Shows) -> None:
    """Keep the numbers up to date until cancelled."""
    exporter = shows.gateway
    users: list[Tunnel] = []
    silence = Silence(host)

    async def follow() -> None:
        exporter.follow()

    async def look() -> None:
        exporter.refresh()

    async def count() -> None:
        await asyncio.to_thread(shows.interfaces.read)

    async def ask() -> None:
        there: list[Tunnel] = []
        for one in exporter.running:
            said, sessions = await host.answer(one.slot), await host.sessions(one.slot)
            if said.certificate is not None:
                shows.certificates.learn(one.slot, said.certificate)
            await silence.note(one, reports=sessions is not None)
            exporter.learn(
                one,
                sessions=None if sessions is None else len(sessions),
                probe=said.answers,
            )
            there += [(one.slot, one.digest, user.vpn_address) for user in sessions or () if user.vpn_address]
        users[:] = there

    async def ping() -> None:
        if shows.tunnels is not None:
            await shows.tunnels.ask([(one.slot, one.digest) for one in exporter.running], users)

    async with asyncio.TaskGroup() as tasks:
        often = ((look, LOOK), (follow, FOLLOW), (host.read_steering, STEERING))
        for step, every in (*often, (ask, ASK), (count, ASK), (ping, ASK)):
            tasks.create_task(_again_and_again(step, every))


async def _again_and_again(step: Callable[[], Awaitable[None]], every: timedelta) -> None:
    """Do the step over and over; what cannot be read now is missing from the answers, nothing more."""
    while True:
        with suppress(PenstockError, OSError, ValueError):
            await step()
        await asyncio.sleep(every.total_seconds())


def exporter_of(gateway: Gateway, host: Host, memory: Path, hears: Hears = nobody_hears) -> GatewayExporter:
    """Return what the gateway shows; how far logs were read is kept in the file `memory`.

    `hears` takes each line of them.
    """
    own = frozenset(str(address) for address in gateway.addresses) | sources_of_clients()
    sees = host.folders.sees_processes
    return GatewayExporter(
        # a daemon that is adopted later has its sessions and processes counted, and no log of ours
        logs={folder.slot.name: folder.log for folder in host.folders} | {ADOPTED: memory.parent / "none"},
        find=host.find,
        process=host.process,
        reader=lambda: host.folders.daemon.logins(own, sees_processes=sees),
        serving=host.serving,
        memory=memory,
        hears=hears,
        notes=LoginTimes(memory.parent).note,
    )


def shown_of(settings: AgentSettings, host: Host) -> Shows:
    """Return everything that the exporter with this file shows.

    Raises:
        BadInput: It is told to ask tunnels, and may not ping.
    """
    if settings.exporter.probe_tunnels and not settings.gateway.has_own_networks:
        require_pings()
    journal = Journal(settings.gateway.name, settings.product) if settings.exporter.journal else None
    hears = journal.say if journal is not None else nobody_hears
    return Shows(
        gateway=exporter_of(settings.gateway, host, settings.root / MEMORY, hears),
        journal=journal,
        interfaces=Interfaces(settings.gateway, networks=host.networks),
        certificates=CertificateLives(
            "vpngw",
            {
                "agent": settings.certificate,
                "authority": settings.authority,
                "renewed": settings.certificate_folder / "current" / "chain.pem",
                "exporter": settings.exporter.certificate,
            },
        ),
        tunnels=TunnelProbes(host.networks) if settings.exporter.probe_tunnels else None,
    )


async def main(config: Path) -> None:
    """Serve the gateway's metrics until told to stop.

    Raises:
        BadInput: The file is not as it must be, or nobody can listen where it says.
    """
    tell_of_unread_variables()
    settings = load_own(config, AgentSettings)
    asyncio.get_running_loop().set_default_executor(
        ThreadPoolExecutor(THREADS, thread_name_prefix="exporter")
    )
    told = told_to_stop()
    host = Host(settings.gateway, settings.root)
    shows = shown_of(settings, host)
    async with scraped(settings, shows.registry) as where:
        watching = asyncio.create_task(watch(host, shows))
        say_ready(where)
        await asyncio.wait({watching, asyncio.create_task(told.wait())}, return_when=asyncio.FIRST_COMPLETED)
        if watching.done():
            watching.result()
        watching.cancel()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
