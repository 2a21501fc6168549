"""A router that hides one site of a scratch gateway behind an address of its own, as a NAT does."""

import subprocess

from tests.drivers.gateway_lab import GatewayLab

INSIDE = "192.168.77"
"""The site's own network, behind the router."""
MASQUERADE = """
table ip nat {
  chain out {
    type nat hook postrouting priority srcnat
    oifname wan masquerade fully-random
  }
}
"""


class NatRouter:
    """A site's way to the gateway from now on; gone with the lab's namespaces."""

    def __init__(self, lab: GatewayLab, number: int) -> None:
        """Move the site from the gateway's own network to one behind the router; no client may live there."""
        self.site, self.namespace = f"{lab.prefix}c{number}", f"{lab.prefix}r{number}"
        self._seen = 100 + number
        self._ip(f"netns add {self.namespace}")
        self._ip(
            f"link set port{number} nomaster\nlink set port{number} netns {self.namespace} name lan\n"
            f"link add wan{number} master br0 up type veth peer name wan netns {self.namespace}",
            lab.namespace,
        )
        self._ip(
            f"link set lan up\nlink set wan up\naddress add {INSIDE}.1/24 dev lan\n"
            f"address add {self.address}/24 dev wan",
            self.namespace,
        )
        self._ip(
            f"address flush dev eth0\naddress add {INSIDE}.2/24 dev eth0\nroute add default via {INSIDE}.1",
            self.site,
        )
        self._run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        self._run("nft", "-f", "-", given=MASQUERADE)

    @property
    def address(self) -> str:
        """What the gateway sees the site's packets come from."""
        return f"10.77.0.{self._seen}"

    def rebind(self) -> None:
        """Forget every flow and use another address, as a router that was given one anew."""
        before, self._seen = self.address, self._seen + 50
        self._ip(f"address add {self.address}/24 dev wan\naddress del {before}/24 dev wan", self.namespace)
        self._ip(f"address replace {self.address}/24 dev wan", self.namespace)
        self.forget()

    def forget(self) -> None:
        """Forget every flow, so that each has another port, as a router does that was restarted."""
        self._run("conntrack", "-F")

    def _run(self, *command: str, given: str = "") -> None:
        whole = ["ip", "netns", "exec", self.namespace, *command]
        subprocess.run(whole, input=given, text=True, check=True, capture_output=True)

    def _ip(self, lines: str, namespace: str | None = None) -> None:
        inside = ["-n", namespace] if namespace else []
        subprocess.run(["ip", *inside, "-batch", "-"], input=lines, text=True, check=True)
