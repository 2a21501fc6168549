"""The scratch gateway with Envoy in front of its slots, as a service mesh has it."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from activities.drivers.steering.hook import HookSteering
from activities.drivers.steering.port import SteeringDriver
from policies.model.fleet import Gateway
from tests.drivers.front_lab import HookLab
from tests.patience import wait_until

EXAMPLES = Path(__file__).parents[2] / "deploy/examples"
ENVOY = Path(sys.executable).parent / "envoy"
PARTS = ("trial", "serving")


class Mesh:
    """One Envoy, with the files of the example in a folder of its own."""

    def __init__(self, folder: Path, namespace: str) -> None:
        self.folder, self.namespace = folder / "envoy", namespace
        self.hook = folder / "steering-hook-envoy"
        self.process: subprocess.Popen[bytes] | None = None

    def furnish(self) -> None:
        """Lay the files of the example, and nothing that is in force."""
        self.hook.write_text(self._here("steering-hook-envoy"))
        self.hook.chmod(0o700)
        self.folder.mkdir(exist_ok=True)
        (self.folder / "envoy.yaml").write_text(self._here("steering-envoy.yml"))
        for part in PARTS:
            (self.folder / f"penstock/gw-1.{part}").mkdir(parents=True, exist_ok=True)
            (self.folder / f"penstock/gw-1.{part}/endpoints.json").write_text("{}")

    def _here(self, name: str) -> str:
        text = (EXAMPLES / name).read_text()
        return text.replace("/etc/envoy", str(self.folder)).replace("/run/envoy", str(self.folder))

    def start(self) -> None:
        """Start Envoy, and wait until it listens.

        Raises:
            TimeoutError: It does not.
        """
        command = ["ip", "netns", "exec", self.namespace, str(ENVOY), "--disable-hot-restart"]
        command += ["-c", str(self.folder / "envoy.yaml"), "--concurrency", "1", "-l", "warn"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        listens = ["ip", "netns", "exec", self.namespace, "ss", "-Hltn", "sport = :15006"]
        wait_until(
            lambda: bool(subprocess.run(listens, check=True, capture_output=True).stdout),
            found=lambda: (self.folder / "log").read_text()[-2000:],
        )

    def end(self) -> None:
        """End Envoy."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


class MeshLab(HookLab):
    """A gateway whose users' connections Envoy carries, as the example of a hook says."""

    def __init__(self, folder: Path, tag: str, clients: int = 3) -> None:
        super().__init__(folder, tag, clients)
        skills = {"hook_can": ("share", "lease")}
        self.gateway = Gateway.model_validate(self.gateway.model_dump() | skills)
        self.mesh = Mesh(folder, self.namespace)

    def reset(self) -> None:
        self.mesh.end()
        super().reset()
        self.mesh.furnish()
        table = ["ip", "netns", "exec", self.namespace, "nft", "-f", str(EXAMPLES / "steering-envoy.nft")]
        subprocess.run(table, check=True)
        self.mesh.start()

    def clear(self) -> None:
        self.mesh.end()
        super().clear()

    async def home_of(self, number: int) -> str:
        """Return the slot that has given the client its address: instances see Envoy's, and no user's."""
        command = ["ip", "-4", "-brief", "-n", f"{self.prefix}c{number}", "address", "show", "tun0"]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: ASYNC221
        return "abc"[int(said.split()[2].split(".")[2])]

    def _made_steering(self) -> SteeringDriver:
        return HookSteering(self.orders, replace(self.means, hook=self.mesh.hook))
