"""The cluster's own registry of images, in the hub: anybody of the lab pushes, every node pulls by digest."""

import json
from pathlib import Path

from deploy.cluster import programs
from deploy.lab import namespaces
from deploy.lab.services import Service
from deploy.lab.topology import Topology
from orchestrator.publishing import layers
from orchestrator.publishing.image import BuiltImage, ImageLabels, assemble
from orchestrator.publishing.layers import Entry
from orchestrator.publishing.registry import Registry
from policies.trust.images import parse_image

PORT = 5000


class ImageRegistry(Service):
    """Distribution's registry with its blobs in a folder, without a login, by plain HTTP."""

    def __init__(self, topology: Topology, folder: Path, *, port: int = PORT) -> None:
        self._config = folder / "registry.json"
        command: list[str | Path] = [programs.program("registry"), "serve", self._config]
        super().__init__("registry", topology.hub, port, command, folder)

    @property
    def url(self) -> str:
        """Where it is asked."""
        return f"http://{self.address}"

    def start(self, *, within: float = 30.0) -> None:
        """Ensure that it runs and answers; see `Service.start`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        config = {
            "version": "0.1",
            "log": {"level": "warn"},
            "storage": {"filesystem": {"rootdirectory": str(self.folder / "blobs")}},
            "http": {"addr": self.address},
        }
        self._config.write_text(json.dumps(config, indent=1))  # YAML is a superset of JSON
        super().start(within=within)

    def push(self, name: str, image: BuiltImage) -> str:
        """Push an image under a name; return by what reference a pod asks for exactly it.

        Raises:
            Unavailable: the registry does not answer.
        """
        with namespaces.inside(self.host.namespace):
            there = Registry(self.url, name)
            digest = there.push_image(image.manifest, parse_image(image.manifest), dict(image.blobs))
        return f"{self.address}/{name}@{digest}"


def image_of(program: Path, blobs: Path) -> BuiltImage:
    """Return an image of one program that needs nothing but itself; its blobs are written to the folder."""
    blobs.mkdir(parents=True, exist_ok=True)
    made = layers.write([Entry(program.name, 0o755, program)], blobs)
    return assemble([made], [f"/{program.name}"], ImageLabels(program.name, "1"), blobs)
