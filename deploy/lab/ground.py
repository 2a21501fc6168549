"""What a lab's gateways are made of. Here they are hosts: network namespaces of this machine, and no more.

A lab asks its ground for everything in which one kind of gateway differs from another.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from activities.files import load
from deploy.lab import preflight
from deploy.lab.daemons.port import LabDaemon
from deploy.lab.topology import Claim, Host, Topology
from orchestrator.enrolment.host import enrol
from orchestrator.enrolment.token import carried
from orchestrator.processes.agent import files_of
from orchestrator.processes.agent_file import AgentSettings
from orchestrator.publishing.registry import Registry
from orchestrator.settings import Settings
from policies.model.fleet import Fleet, Gateway

Tell = Callable[[str], None]
Tokens = Callable[[str], Awaitable[str]]
"""Does what `penstock gateway enrol` does, for a gateway or a cluster by its name; returns the token."""


class Hosts:
    """Gateways are hosts: their agents start and end instances themselves."""

    shell: Path | None = None
    """The static shell of the releases' images; without one they have no images."""
    registry: Registry | None = None
    """Where all that is published is pushed, too."""

    def begin(self, topology: Topology, daemon: LabDaemon) -> tuple[Claim, str]:
        """Check the machine, claim the lab and clear away what an earlier one left; see `preflight.begin`."""
        return preflight.begin(topology, daemon)

    def fetch(self, cache: Path, daemon: LabDaemon) -> None:
        """Fetch what comes from outside: later nothing does.

        Raises:
            BadInput: apt or the archive's keyring is not installed.
            Unavailable: the cache has it not, and neither has the archive.
        """
        daemon.fetch(cache / "packages")

    def gateway(self, described: Gateway) -> Gateway:
        """Return the gateway as the fleet's file has it."""
        return described

    def start(self, topology: Topology, fleet: Fleet, folder: Path, tell: Tell) -> None:
        """Start what gateways need before anything of penstock does; the caller is in the hub."""

    async def join(self, settings: Settings, trust: Path, tokens: Tokens) -> None:
        """Start what acts beside the agents, once the relay answers; it trusts whom this file names."""

    def root(self, folder: Path, host: Host) -> Path:
        """Return the agent's own folder, as it sees it."""
        return folder / "gateways" / host.name

    def under(self, host: Host) -> Sequence[str]:  # noqa: ARG002 - of a host its network is enough
        """Return what, before a command in the host's network, has it run where the gateway is."""
        return ()

    async def enrol(self, settings: Settings, host: Host, agent: Path, tokens: Tokens) -> None:
        """Do what `penstock agent enrol` does for the agent of this file."""
        own = files_of(load(agent, AgentSettings))
        token = carried(await tokens(host.name))
        await asyncio.to_thread(enrol, own, str(settings.enrolment_address), token)

    def end(self, topology: Topology) -> None:
        """Remove all of it, whatever has become of it."""
        topology.tear_down()
