"""The scratch gateway behind a router: BIRD on both, and clients who reach the gateway as it is announced."""

import re
import shutil
import subprocess
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

from activities.drivers.steering.hook import HookSteering
from activities.drivers.steering.port import SteeringDriver
from policies.model.fleet import Gateway
from tests.drivers.front_lab import HookLab
from tests.patience import PATIENCE, until, wait_until

EXAMPLES = Path(__file__).parents[2] / "deploy/examples"
SLOTS = "abc"
GATEWAY = """
router id 10.78.1.1;
protocol device {{ }}
include "{folder}/penstock-*.conf";
protocol bgp uplink {{
    local 10.78.1.1 as 65001;
    neighbor 10.78.1.254 as 65000;
    connect delay time 1; connect retry time 1; error wait time 1, 1;
    ipv4 {{ import none; export where proto ~ "penstock.*"; next hop keep; }};
}}
"""
ROUTER = """
router id 10.78.1.254;
log "{folder}/router.log" all;
protocol device {{ }}
protocol kernel {{ ipv4 {{ import none; export all; }}; }}
protocol bgp downlink {{
    debug {{ routes }};
    local 10.78.1.254 as 65000;
    neighbor 10.78.1.1 as 65001;
    connect delay time 1; connect retry time 1; error wait time 1, 1;
    ipv4 {{ import all; export none; }};
}}
"""


def why_not_here() -> str | None:
    """Return why no BIRD can run here, None when one can."""
    return None if shutil.which("bird") else "needs bird"


class RoutedLab(HookLab):
    """A gateway with a link for each slot to a router, whose clients are behind that."""

    def __init__(self, folder: Path, tag: str, clients: int = 3) -> None:
        super().__init__(folder, tag, clients)
        slots = [
            slot.model_copy(update={"users_at": f"10.78.{number}.1"})
            for number, slot in enumerate(self.gateway.slots, 1)
        ]
        changed = {"hook_can": ("lease",), "slots": tuple(slots), "addresses": (ip_address("10.77.0.1"),)}
        self.gateway = Gateway.model_validate(self.gateway.model_copy(update=changed).model_dump())
        self.router = f"{self.prefix}rt"
        self.bird = folder / "bird"

    def build(self) -> None:
        self.clear()
        self._ip("\n".join(f"netns add {name}" for name in (self.namespace, self.router)))
        self._ip("link set lo up\naddress add 10.77.0.1/32 dev lo", self.namespace)
        self._ip("link set lo up\nlink add br0 type bridge\nlink set br0 up", self.router)
        self._ip("address add 10.77.0.254/24 dev br0", self.router)
        for number, slot in enumerate(SLOTS, 1):
            link = f"link-{slot}"
            self._ip(f"link add {link} up type veth peer name {link} netns {self.router}", self.namespace)
            self._ip(f"address add 10.78.{number}.1/24 dev {link}", self.namespace)
            self._ip(f"link set {link} up\naddress add 10.78.{number}.254/24 dev {link}", self.router)
        self._ip("route add default via 10.78.1.254", self.namespace)
        for number in range(1, self.clients + 1):
            site = f"{self.prefix}c{number}"
            self._ip(f"netns add {site}")
            self._ip(
                f"link add port{number} master br0 up type veth peer name eth0 netns {site}", self.router
            )
            self._ip(f"link set lo up\nlink set eth0 up\naddress add 10.77.0.{10 + number}/24 dev eth0", site)
        # Clients take the gateway for a neighbour: the router answers for it while it has a route.
        settings = [
            "net.ipv4.ip_forward=1",
            "net.ipv4.conf.br0.proxy_arp=1",
            "net.ipv4.conf.br0.send_redirects=0",
        ]
        settings += ["net.ipv4.neigh.br0.proxy_delay=0"]
        for name in (self.router, self.namespace):
            looks = ["net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0"]
            looks += [f"net.ipv4.conf.link-{slot}.rp_filter=0" for slot in SLOTS]
            self._in(name, "sysctl", "-qw", *looks, *(settings if name == self.router else []))
        self.bird.mkdir()
        for name, text in (("gateway", GATEWAY), ("router", ROUTER)):
            (self.bird / f"{name}.conf").write_text(text.format(folder=self.bird))
        program = (EXAMPLES / "steering-hook-bird").read_text()
        program = program.replace("/etc/bird", str(self.bird)).replace(
            "/run/bird/bird.ctl", str(self.bird / "gateway.ctl")
        )
        self.hook = self.folder / "steering-hook-bird"
        self.hook.write_text(program)
        self.hook.chmod(0o700)
        self.run_bird("router")
        self.furnish()

    def reset(self) -> None:
        super().reset()
        for file in self.bird.glob("penstock-*"):
            file.unlink()
        self._in(self.namespace, "nft", "-f", str(EXAMPLES / "steering-bird.nft"))
        self.run_bird("gateway")

    def run_bird(self, which: str) -> None:
        """Start the BIRD of the gateway or of the router, and wait until they talk."""
        where = {"gateway": self.namespace, "router": self.router}[which]
        config, socket = self.bird / f"{which}.conf", self.bird / f"{which}.ctl"
        socket.unlink(missing_ok=True)
        self._in(where, "bird", "-c", str(config), "-s", str(socket), "-P", str(self.bird / f"{which}.pid"))
        if (self.bird / "gateway.ctl").exists():
            self.until_established()

    def until_established(self) -> None:
        """Wait until the gateway's BIRD and the router's have a session.

        Raises:
            TimeoutError: They have none.
        """
        wait_until(
            lambda: "Established" in self.ask("gateway", "show", "protocols", "uplink"),
            found=lambda: self.ask("gateway", "show", "protocols", "all", "uplink"),
        )

    def part(self) -> None:
        """End the session between the two; a BIRD answers first, and ends it then."""
        self.ask("gateway", "disable", "uplink")
        wait_until(lambda: "Established" not in self.ask("gateway", "show", "protocols", "uplink"))

    def ask(self, which: str, *command: str) -> str:
        """Return what that BIRD answers."""
        asked = ["birdc", "-s", str(self.bird / f"{which}.ctl"), *command]
        return subprocess.run(asked, check=False, capture_output=True, text=True).stdout

    def learnt(self) -> list[str]:
        """Return the slots by whose links the router has learnt to reach the gateway."""
        said = self.ask("router", "show", "route", "10.77.0.1/32", "all")
        return [SLOTS[int(number) - 1] for number in re.findall(r"BGP\.next_hop: 10\.78\.(\d)\.1", said)]

    async def learns(self, *slots: str, within: float = PATIENCE) -> None:
        """Wait until the router has learnt just these.

        Raises:
            TimeoutError: It has not.
        """
        await until(lambda: self.learnt() == [*slots], within, self.learnt)

    def heard(self) -> list[str]:
        """Return the changes of routes that the router was told of, oldest first."""
        lines = (self.bird / "router.log").read_text().splitlines()
        return [line.partition("downlink.ipv4 > ")[2] for line in lines if "downlink.ipv4 >" in line]

    def _made_steering(self) -> SteeringDriver:
        return HookSteering(self.orders, replace(self.means, hook=self.hook))

    def _in(self, namespace: str, *command: str) -> None:
        subprocess.run(["ip", "netns", "exec", namespace, *command], check=True, capture_output=True)
