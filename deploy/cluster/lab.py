"""The lab whose gateways are pods: two real nodes, the chart's slots and policies, and a fleet's driver.

Users, releases, orchestrator and all that is measured are those of the lab of hosts. Agents and exporters are
processes in their node's namespaces, with what the chart's DaemonSet mounts at its places on the node's disk;
they are no pods.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from activities.files import load
from deploy.cluster import nodes, programs
from deploy.cluster.nodes import DRIVER, RealNodes
from deploy.kubernetes.chart import NAMESPACE, rendered
from deploy.lab import trees
from deploy.lab.daemons.ocserv import LabOcserv
from deploy.lab.daemons.port import LabDaemon
from deploy.lab.ground import Hosts, Tell, Tokens
from deploy.lab.lab import FLEET, SLOTS, Lab, Shape, lab, own_program, ready, write_yaml
from deploy.lab.processes import Process
from deploy.lab.topology import Claim, Host, Topology
from orchestrator.enrolment.host import enrol
from orchestrator.enrolment.token import carried
from orchestrator.processes.cluster import files_of
from orchestrator.processes.cluster_file import ClusterSettings
from orchestrator.publishing.registry import Registry
from orchestrator.settings import Settings
from policies.model.errors import BadInput, Unavailable
from policies.model.fleet import Fleet, Gateway

CLUSTER = "west"
GATES = Path(__file__).with_name("gates.yaml")
NODES = Shape(gateways=2, sites=8, prefix=nodes.PREFIX, folder="lab-nodes", gates=GATES)
"""The usual lab with nodes."""
NAME = f"vpn/{FLEET}"
"""Where in the registry the releases' images are."""
ROOT = Path("/var/lib/penstock")
"""An agent's folder on its node."""
_OWN_PEOPLE = {"users": ["test:controller-manager", "test:scheduler"]}
_NO_IMAGE = f"registry.example/penstock@sha256:{'1' * 64}"


class Nodes(Hosts):
    """Gateways are nodes of a cluster: its DaemonSets' pods are their instances."""

    def __init__(self) -> None:
        self._made: RealNodes | None = None
        self._folder = Path()
        self.driver: Process | None = None
        """The process that gives nodes their slots, once the lab is up."""

    @property
    def real(self) -> RealNodes:
        """The nodes, once they are up.

        Raises:
            Unavailable: they are not.
        """
        if self._made is None:
            raise Unavailable("the lab's nodes are not up")
        return self._made

    def begin(self, topology: Topology, daemon: LabDaemon) -> tuple[Claim, str]:
        """Check the machine for nodes, too; see `Hosts.begin`."""
        nodes.require()
        if why := programs.why_not_here("helm"):
            raise BadInput(why)
        claim, cleared = super().begin(topology, daemon)
        nodes.remove(topology)
        return claim, cleared

    def fetch(self, cache: Path, daemon: LabDaemon) -> None:
        """Fetch the shell of the images, too; see `Hosts.fetch`."""
        super().fetch(cache, daemon)
        self.shell = trees.fetch_shell(cache / "busybox", cache / "packages")

    def gateway(self, described: Gateway) -> Gateway:
        """Return the gateway as a node of the cluster, by its own name."""
        placed = {"runtime": "kubernetes", "placement": {"cluster": CLUSTER, "node": described.name}}
        return Gateway.model_validate(described.model_dump() | placed)

    def start(self, topology: Topology, fleet: Fleet, folder: Path, tell: Tell) -> None:
        """Start control plane, registry and nodes, and install the chart.

        Raises:
            Unavailable: a part does not come up.
        """
        self._folder = folder
        seen = [folder / "etc", folder / "releases"]
        for one in seen:
            one.mkdir(parents=True, exist_ok=True)
        self._made = RealNodes(topology, folder / "nodes", seen=seen)
        self.real.start(tell)
        self.registry = Registry(self.real.registry.url, NAME)
        self._install(fleet)
        tell(f"the slots of {FLEET} are installed by the chart, with its policies")

    async def join(self, settings: Settings, trust: Path, tokens: Tokens) -> None:
        """Enrol the fleet's driver and start it.

        Raises:
            Unavailable: it does not become ready.
        """
        file = self._driver_file(settings, trust)
        own = files_of(load(file, ClusterSettings))
        token = carried(await tokens(CLUSTER))
        await asyncio.to_thread(enrol, own, str(settings.enrolment_address), token)
        arguments = ["-m", "orchestrator", "cluster", "run", "--config", str(file)]
        hub = self.real.topology.hub.namespace
        self.driver = own_program(self._folder, "driver", hub, arguments)
        self.driver.start()
        await ready(self.driver)

    def root(self, folder: Path, host: Host) -> Path:  # noqa: ARG002 - it is the node's own
        """Return the agent's own folder on the node's disk, as the node has it."""
        return ROOT

    def under(self, host: Host) -> Sequence[str]:
        """Return what makes a command one of the node's."""
        return self.real.nodes[host.name].entered()

    async def enrol(self, settings: Settings, host: Host, agent: Path, tokens: Tokens) -> None:
        """Enrol the agent on its node, by the command that people type there.

        Raises:
            Unavailable: the command failed; its words are quoted.
        """
        command = [sys.executable, "-m", "orchestrator", "agent", "enrol", "--config", str(agent)]
        at = ["--at", str(settings.enrolment_address)]
        node, token = self.real.nodes[host.name], await tokens(host.name)
        done = await asyncio.to_thread(node.run, *command, *at, stdin=token)
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["nothing"]
            raise Unavailable(f"the agent of {host.name} could not be enrolled; it said: {said[0]}")

    def end(self, topology: Topology) -> None:
        """End the nodes and remove all of it; see `Hosts.end`."""
        if self._made is not None:
            self._made.stop()
        super().end(topology)
        nodes.remove(topology)

    def _install(self, fleet: Fleet) -> None:
        """Name the nodes, then install what the chart says of slots, rights and policies.

        What the chart has for penstock itself as pods is left out.
        """
        api = self.real.plane.admin
        for name in self.real.nodes:
            api.merge(f"/api/v1/nodes/{name}", {"metadata": {"labels": {f"penstock.dev/{FLEET}": "true"}}})
        left_out = {f"{FLEET}-agent"}
        found = [one for one in yaml.safe_load_all(rendered(self.values(fleet))) if one]
        for manifest in sorted(found, key=lambda one: str(one["kind"]) != "Namespace"):
            if manifest["metadata"]["name"] not in left_out:
                api.apply(manifest, manager="installer")

    def values(self, fleet: Fleet) -> dict[str, Any]:
        """Return the chart's values for this cluster; what is of penstock itself runs elsewhere."""
        described = fleet.model_dump(mode="json", include={"name", "product", "gateways"}, exclude_none=True)
        own = {
            "file": described,
            "repository": f"{self.real.registry.address}/{NAME}",
            "agent": {"file": {"probe": {"user": "probe"}}},
            "driver": {"here": False, "users": [DRIVER.user]},
        }
        return {
            "cluster": CLUSTER,
            "image": _NO_IMAGE,
            "fleets": [own],
            "administrators": {"users": ["admin"]},
            "controllers": _OWN_PEOPLE,
            "namespace": {"make": True},
            "orchestrator": {"here": False},
            "network": {"make": False},
        }

    def _driver_file(self, settings: Settings, trust: Path) -> Path:
        root = self._folder / "driver"
        own = root / "identity"
        slots = {name: f"{FLEET}-{name}" for name in SLOTS}
        content = {
            "name": CLUSTER,
            "fleet": FLEET,
            "namespace": NAMESPACE,
            "kubeconfig": str(self.real.plane.kubeconfig(DRIVER.name)),
            "slots": slots,
            "repository": f"{self.real.registry.address}/{NAME}",
            "root": str(root),
            "product": LabOcserv.name,
            "channel": "stable",
            "trust": str(trust),
            "temporal_address": settings.relay_address,
            "certificate": str(own / "agent.pem"),
            "key": str(own / "agent.key"),
            "authority": str(own / "authority.pem"),
            "payload_keys": str(own / "payload.keys"),
        }
        return write_yaml(self._folder / "etc" / "cluster.yaml", content)


@dataclass(frozen=True)
class ClusterLab:
    """A lab whose gateways are nodes, while it is up."""

    lab: Lab
    """Everything that a story may use."""
    ground: Nodes
    """The nodes, their control plane and their registry, which tests break."""

    def give_power(self, name: str) -> None:
        """Start a node that lost its power, and its agent and exporter; call it from the main thread.

        Raises:
            Unavailable: it does not begin, or is not ready in time.
        """
        self.ground.real.nodes[name].start()
        self.ground.real.wait_ready(name)
        for program in (self.lab.agents[name], self.lab.exporters[name]):
            program.kill()
            program.start()


@asynccontextmanager
async def cluster_lab(tell: Tell, shape: Shape = NODES) -> AsyncIterator[ClusterLab]:
    """Keep a lab with nodes up for the length of the body; whatever ends it, nothing of it remains.

    Raises:
        BadInput: this machine cannot have one; nothing was changed.
        Conflict: another one is running.
    """
    ground = Nodes()
    async with lab(tell, shape, ground) as built:
        yield ClusterLab(built, ground)
