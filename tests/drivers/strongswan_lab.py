"""The scratch gateway with strongSwan on it, and its users: real charons with certificates."""

import shutil
import subprocess
import sys
from ipaddress import ip_address, ip_network
from pathlib import Path

from activities.drivers.daemon.port import Daemon
from activities.drivers.daemon.strongswan.daemon import StrongSwan
from deploy.lab.daemons.strongswan import collected
from deploy.lab.namespaces import end_rooted
from policies.model.fleet import Gateway, Slot
from tests.drivers.gateway_client import Client
from tests.drivers.gateway_lab import GatewayLab, TreeAdmission

TEMPLATE = Path(__file__).parents[2] / "deploy/lab/strongswan.conf.template"
PROGRAM = "usr/lib/ipsec/charon"

# charon writes its pid to /run, which is each client's own. A client comes back by itself, as a user's does.
ALONE = 'mount -t tmpfs run /run; STRONGSWAN_CONF="$1" exec /usr/lib/ipsec/charon'
SITES = """
connections {
  sites {
    version = 2
    dpd_delay = 30s
    local {
      auth = pubkey
      id = $gateway4
      certs = $credential_certificate
    }
    remote {
      auth = pubkey
      id = "CN=user2"
      cacerts = $credential_authority
    }
    children {
      sites {
        local_ts = 0.0.0.0/0
        remote_ts = 10.60.0.0/24
        dpd_action = clear
      }
    }
  }
}
"""
"""What a template says of a site that brings a network of its own: the second user's."""
CONFIG = """
charon {{
  load = random nonce openssl kdf pem pubkey pkcs1 pkcs8 x509 constraints kernel-libipsec kernel-netlink \
socket-default vici
  retransmit_tries = 3
  retransmit_timeout = 1.0
  plugins {{
    vici {{
      socket = unix://{folder}/charon.vici
    }}
  }}
  filelog {{
    stderr {{
      default = 1
    }}
  }}
  start-scripts {{
    load = /usr/sbin/swanctl --load-all --noprompt --file {folder}/strongswan.conf --uri \
unix://{folder}/charon.vici
  }}
}}
swanctl {{
  load = random nonce openssl pem pubkey pkcs1 pkcs8 x509
}}
connections {{
  home {{
    version = 2
    remote_addrs = 10.77.0.1
    {vips}
    dpd_delay = 5s
    keyingtries = 0
    local {{
      auth = pubkey
      certs = {certificate}
    }}
    remote {{
      auth = pubkey
      id = 10.77.0.1
      cacerts = {authority}
    }}
    children {{
      home {{
        {local_ts}
        remote_ts = 10.90.0.0/16
        start_action = start
        close_action = {close_action}
        dpd_action = restart
      }}
    }}
  }}
}}
"""


def why_not_here() -> str | None:
    """Return why no strongSwan can run here, None when one can."""
    return None if Path("/", PROGRAM).is_file() and shutil.which("swanctl") else "needs strongswan-charon"


def ike_gateway(name: str = "gw-1", inside: str | None = None) -> Gateway:
    """Return a gateway whose instances have networks of their own."""
    return Gateway(
        name=name,
        inside=inside,
        daemon="strongswan",
        addresses=(ip_address("10.77.0.1"),),
        port=500,
        capacity=100,
        slots=tuple(
            Slot(
                name=slot,
                port=500,
                address=ip_address(f"10.88.0.{2 * number + 1}"),
                device=f"vpn{slot}",
                pool4=ip_network(f"10.90.{number}.0/24"),
            )
            for number, slot in enumerate("abc")
        ),
    )


class StrongSwanAdmission(TreeAdmission):
    """Admits releases made of the strongSwan of this machine, as if they had been signed."""

    product, executable, made_of = "strongswan", PROGRAM, TEMPLATE

    def collect(self) -> None:
        collected(Path("/"), self.tree)


class StrongSwanClient(Client):
    """One charon at one site, and what it pings."""

    logged_in = "] established between"

    def __init__(
        self, site: str, folder: Path, number: int, *, close_action: str = "start", network: str = ""
    ) -> None:
        self.name, self.number = site, number
        self.log = folder / f"client-{number}.log"
        self.answers = folder / f"pings-{number}.log"
        self.pings: subprocess.Popen[bytes] | None = None
        own = folder / f"ike-{number}"
        shutil.rmtree(own, ignore_errors=True)
        (own / "private").mkdir(parents=True)
        (own / "private" / "key").symlink_to(folder / f"user{number}.key")
        (own / "strongswan.conf").write_text(
            CONFIG.format(
                folder=own,
                certificate=folder / f"user{number}.pem",
                authority=folder / "ca.pem",
                close_action=close_action,
                vips="" if network else "vips = 0.0.0.0",
                local_ts=f"local_ts = {network}" if network else "",
            )
        )
        alone = ["unshare", "-m", "--propagation", "private", "sh", "-c", ALONE, "client"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", self.name, *alone, str(own / "strongswan.conf")],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def up(self) -> "StrongSwanClient":
        await self.until("} established with SPIs")
        return self


class StrongSwanLab(GatewayLab):
    """The namespaces, files and parts of one gateway that runs strongSwan."""

    credentials = {
        "authority": "ca.pem",
        "authority_legacy": "ca.pem",
        "certificate": "gw.pem",
        "key": "gw.key",
    }

    def __init__(self, folder: Path, tag: str, clients: int = 6) -> None:
        super().__init__(folder, tag, clients)
        self.gateway = ike_gateway()
        self._moved: list[tuple[str, str, str]] = []

    def client(
        self, number: int, *, close_action: str = "start", network: str = "", **_: object
    ) -> StrongSwanClient:
        """Start a user's charon, or that of a site which brings this network."""
        site = f"{self.prefix}c{number}"
        client = StrongSwanClient(site, self.folder, number, close_action=close_action, network=network)
        self.people.append(client)
        return client

    def move(self, client: Client, address: str) -> None:
        """Give a client's site another address in place of its own, which it has again in the next test."""
        own = f"10.77.0.{10 + client.number}"
        self._ip(f"address del {own}/24 dev eth0\naddress add {address}/24 dev eth0", client.name)
        self._moved.append((client.name, own, address))

    def change(self, namespace: str, line: str) -> None:
        """Have `ip` do one thing in one of the lab's namespaces."""
        self._ip(line, namespace)

    def build(self) -> None:
        super().build()
        forward = ["sysctl", "-qw", "net.ipv4.ip_forward=1"]
        subprocess.run(["ip", "netns", "exec", self.namespace, *forward], check=True)

    def furnish(self) -> None:
        super().furnish()
        for user in ("probe", *(f"user{number}" for number in range(1, self.clients + 1))):
            self.certify_by_authority(user)

    def certify_by_authority(self, user: str) -> None:
        """Make that user's certificate, signed by the one whom the gateway knows."""
        self._certify(user, "expiration_days = 2\ntls_www_client\nsigning_key\n", by="ca")

    def forge(self, user: str) -> None:
        """Make that user's certificate anew, signed by nobody whom the gateway knows."""
        self._certify(user, "expiration_days = 2\ntls_www_client\nsigning_key\n")

    def reset(self) -> None:
        """End instances, which are in networks of their own, and forget where the kernel sent their users."""
        self._end_instances()
        subprocess.run(
            ["ip", "netns", "exec", self.namespace, "conntrack", "-F"], check=True, capture_output=True
        )
        for site, own, address in self._moved:
            self._ip(f"address del {address}/24 dev eth0\naddress add {own}/24 dev eth0", site)
        self._moved.clear()
        super().reset()

    def clear(self) -> None:
        self._end_instances()
        super().clear()

    def _end_instances(self) -> None:
        """Kill instances, which live in namespaces that have no name."""
        end_rooted(self.root)

    def _made_admission(self) -> TreeAdmission:
        return StrongSwanAdmission(self.folder)

    def _made_daemon(self) -> Daemon:
        return StrongSwan(self.login)


class TwoPlanesLab(StrongSwanLab):
    """A gateway between two networks that only its tunnels join, and a user for whom the way to it is long.

    Outside are users and the addresses they dial; inside is one host, behind a network namespace of its own.
    """

    PROTECTED = "10.90.200.10"
    LEFT, LEFT_NETWORK, SITE = "10.60.0.10", "10.60.0.0/24", 2
    """The host of a site that brings a network of its own, that network, and the site's number."""
    FAR = 3
    """Number of the user whose every packet takes 20 ms to the gateway, and as long back."""

    def __init__(self, folder: Path, tag: str) -> None:
        super().__init__(folder, tag, clients=3)
        self.inside, self.protected = f"{self.prefix}in", f"{self.prefix}host"
        self.left = f"{self.prefix}left"
        self.gateway = ike_gateway(inside=self.inside)
        self._relay: subprocess.Popen[bytes] | None = None

    def build(self) -> None:
        super().build()
        self._ip(f"netns add {self.inside}\nnetns add {self.protected}")
        self._ip(
            f"link set lo up\nlink add lan type veth peer name eth0 netns {self.protected}\n"
            "address add 10.90.200.1/24 dev lan\nlink set lan up",
            self.inside,
        )
        self._ip(
            f"link set lo up\naddress add {self.PROTECTED}/24 dev eth0\nlink set eth0 up\n"
            "route add default via 10.90.200.1",
            self.protected,
        )
        self.forward(self.inside, 1)
        self._ip(f"netns add {self.left}")
        site = f"{self.prefix}c{self.SITE}"
        self._ip(
            f"link add lan type veth peer name eth0 netns {self.left}\n"
            "address add 10.60.0.1/24 dev lan\nlink set lan up",
            site,
        )
        self._ip(
            f"link set lo up\naddress add {self.LEFT}/24 dev eth0\nlink set eth0 up\n"
            "route add default via 10.60.0.1",
            self.left,
        )
        self.forward(site, 1)
        self._lengthen()

    def _lengthen(self) -> None:
        """Put something between a user's site and the gateway that hands frames on later."""
        between = f"{self.prefix}long"
        self._ip(f"netns add {between}")
        self._ip(f"link set port{self.FAR} netns {between}", self.namespace)
        self._ip(
            f"link set port{self.FAR} up\n"
            f"link add gateway type veth peer name port{self.FAR} netns {self.namespace}\n"
            "link set gateway up",
            between,
        )
        self._ip(f"link set port{self.FAR} master br0 up", self.namespace)
        relay = [sys.executable, str(Path(__file__).with_name("delayed_path.py"))]
        self._relay = subprocess.Popen(
            ["ip", "netns", "exec", between, *relay, f"port{self.FAR}", "gateway", "20"],
        )

    def forward(self, namespace: str, number: int) -> None:
        """Say whether packets are passed on there."""
        forward = ["sysctl", "-qw", f"net.ipv4.ip_forward={number}"]
        subprocess.run(["ip", "netns", "exec", namespace, *forward], check=True)

    def clear(self) -> None:
        super().clear()
        if self._relay is not None:
            self._relay.wait()
