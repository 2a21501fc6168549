"""The cluster's own registry of images, in the hub: anybody of the lab pushes, every node pulls by digest."""

import json
from pathlib import Path

from deploy.cluster import programs
from deploy.lab.services import Service
from deploy.lab.topology import Topology

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
