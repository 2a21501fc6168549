"""Real nodes on this machine: a control plane, a registry and the nodes, in a network of a lab's shape.

The hub of the network is where the control plane, the registry and whoever drives them live; each gateway is
a node, each site a client. Nothing of it is in the machine's own network. Nothing is left by its end, and
what a killed one left is removed by the next, or by `python -m deploy.cluster.nodes remove`.
"""

import argparse
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.cluster import cgroups, programs
from deploy.cluster.api import Json
from deploy.cluster.control_plane import Choices, ControlPlane
from deploy.cluster.identities import Person
from deploy.cluster.node import Node
from deploy.cluster.node_files import NodeIdentity
from deploy.cluster.registry import ImageRegistry, image_of
from deploy.lab import preflight
from deploy.lab.topology import Claim, Topology
from orchestrator.settings import state_folder
from policies.model.errors import BadInput, PenstockError, Unavailable

PREFIX = "pstk-"
"""How namespaces and control groups of real nodes begin; the lab of hosts has another."""
DRIVER = Person("driver", "penstock-driver")
"""Whose token a fleet's driver may have; what it may do is said by the chart."""
READY_WITHIN = 60.0
NODE_PATIENCE = "40s"
"""How long a node may say nothing until it is not ready, as where nobody chose."""
_POLL = 0.05

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Size:
    """How many nodes and clients, and what tells them apart from those of others."""

    nodes: int = 2
    clients: int = 4
    prefix: str = PREFIX


class RealNodes:
    """A cluster whose nodes run containers, while it is up."""

    def __init__(self, topology: Topology, folder: Path, *, seen: Sequence[Path] = ()) -> None:
        """Take where all files are; nodes see these other folders of this machine, too, and write to none."""
        self.topology = topology
        self.folder = folder
        self.plane = ControlPlane(folder / "plane", _choices(topology))
        self.registry = ImageRegistry(topology, folder / "registry")
        self.nodes = {host.name: Node(host, folder / host.name, seen) for host in topology.gateways}

    def start(self, tell: Tell) -> None:
        """Start all of it, and return when every node is ready.

        Raises:
            Unavailable: a part of it does not come up; the sentence says which, and its last words.
        """
        begun = time.monotonic()
        self.plane.start()
        self.registry.start()
        tell(f"control plane and registry answer after {time.monotonic() - begun:.1f} s")
        sandbox = image_of(programs.program("pause"), self.folder / "images")
        pause = self.registry.push("pause", sandbox)
        for number, node in enumerate(self.nodes.values(), start=1):
            node.prepare(self._identity(node, number), self.registry.address, pause)
            node.start()
        self.wait_ready(*self.nodes)
        tell(f"{len(self.nodes)} nodes are ready after {time.monotonic() - begun:.1f} s")

    def wait_ready(self, *names: str, within: float = READY_WITHIN) -> None:
        """Return when these nodes are ready.

        Raises:
            Unavailable: one is not in that time; its kubelet's last words are quoted.
        """
        deadline = time.monotonic() + within
        for name in names:
            while not is_ready(self.plane.admin.find(f"/api/v1/nodes/{name}")):
                if time.monotonic() > deadline:
                    said = " / ".join(self.nodes[name].last_lines("kubelet", 2)) or "nothing"
                    raise Unavailable(f"node {name} is not ready after {within:g} s; it said: {said}")
                time.sleep(_POLL)

    def stop(self) -> None:
        """End all of it; its folder stays."""
        for node in self.nodes.values():
            node.lose_power()
        self.registry.kill()
        for part in reversed(self.plane.parts.values()):
            part.kill()
        self.plane.admin.close()

    def _identity(self, node: Node, number: int) -> NodeIdentity:
        people, host = self.plane.identities, node.host
        return NodeIdentity(
            name=node.name,
            address=host.address4,
            pod_network=f"10.244.{number}.0/24",
            server=self.plane.server,
            authority=people.authority,
            serving=people.leaf(node.name, names=[host.address4, node.name]),
            kubelet=people.leaf(f"system:node:{node.name}", groups=["system:nodes"]),
            proxy=people.leaf("system:kube-proxy"),
        )


def is_ready(seen: Json | None) -> bool:
    """Say whether a node or a pod has the condition Ready; one that is not there has not."""
    conditions = seen["status"].get("conditions", []) if seen else []
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _choices(topology: Topology) -> Choices:
    """Return a control plane to which each node is somebody, and a node that says nothing is not ready."""
    return Choices(
        address=topology.hub.address4,
        namespace=topology.hub.namespace,
        authorization="Node,RBAC",
        api_flags=("--enable-admission-plugins=NodeRestriction",),
        node_patience=NODE_PATIENCE,
        people=(DRIVER,),
        simulated=False,
    )


@contextmanager
def real_nodes(tell: Tell, size: Size = Size()) -> Iterator[RealNodes]:
    """Keep real nodes up for the length of the body; nothing of them is left after it.

    Raises:
        BadInput: this machine cannot have them; nothing was changed.
        Conflict: others of the same prefix are up.
        Unavailable: a part does not come up.
    """
    require()
    topology = Topology(gateways=size.nodes, sites=size.clients, prefix=size.prefix)
    with Claim(size.prefix):
        remove(topology)
        try:
            topology.build()
            made = RealNodes(topology, folder_of(size.prefix))
            try:
                made.start(tell)
                yield made
            finally:
                made.stop()
        finally:
            remove(topology)


def folder_of(prefix: str) -> Path:
    """Return where real nodes of that prefix have all their files while they are up."""
    return state_folder().absolute() / f"lab-{prefix}nodes"


def require() -> None:
    """Refuse a machine that cannot have real nodes.

    Raises:
        BadInput: with a sentence for everything that is missing, and how it comes.
    """
    preflight.examine()
    cgroups.hierarchies()
    if shutil.which("runc") is None:
        raise BadInput("programs are missing: `apt-get install --no-install-recommends runc`")
    if why := programs.why_not_here(*programs.NODES):
        raise BadInput(why)


def remove(topology: Topology) -> tuple[int, int]:
    """Remove what is left of this prefix; return how many namespaces and processes that were.

    Raises:
        Unavailable: a process does not die, and what it holds is left.
    """
    left = topology.leftovers()
    ended = topology.tear_down()
    cgroups.remove(f"{topology.prefix}gw-*")
    if (folder := folder_of(topology.prefix)).exists():
        shutil.rmtree(folder)
    return len(left), ended


def _main(arguments: list[str]) -> int:
    """Remove what real nodes left; refuse while they are up."""
    parser = argparse.ArgumentParser(prog="python -m deploy.cluster.nodes", description=__doc__)
    parser.add_argument("what", choices=["remove"])
    parser.add_argument("--prefix", default=PREFIX, help="of namespaces and control groups")
    prefix: str = parser.parse_args(arguments).prefix
    try:
        with Claim(prefix):
            left, ended = remove(Topology(prefix=prefix))
    except PenstockError as problem:
        print(problem, file=sys.stderr)
        return problem.exit_code
    print(f"removed {left} namespaces and {ended} processes of real nodes")
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
