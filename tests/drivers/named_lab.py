"""The scratch gateway whose users dial a name: a PowerDNS at a site of its own answers with an instance."""

import sqlite3
import subprocess
from dataclasses import replace
from pathlib import Path
from shutil import which

from dns.exception import DNSException
from dns.resolver import Resolver

from activities.drivers.steering.hook import HookSteering
from activities.drivers.steering.port import SteeringDriver
from deploy.lab.namespaces import end_inhabitants, inside
from policies.model.fleet import Gateway
from tests.drivers.front_lab import HookLab
from tests.drivers.gateway_client import Client
from tests.patience import wait_until

EXAMPLES = Path(__file__).parents[2] / "deploy/examples"
SCHEMA = Path("/usr/share/pdns-backend-sqlite3/schema/schema.sqlite3.sql")
NAME = "vpn.example.org"
SITE, SERVER = 4, "10.77.0.14"
CONFIG = """
launch=gsqlite3
gsqlite3-database={folder}/zones.db
local-address={server}
enable-lua-records=yes
api=yes
api-key=secret
webserver-address={server}
webserver-allow-from=10.77.0.0/24
socket-dir={folder}
setuid=
setgid=
"""


def why_not_here() -> str | None:
    """Return why no PowerDNS can run here, None when one can."""
    return None if which("pdns_server") and SCHEMA.exists() else "needs pdns-server and pdns-backend-sqlite3"


class NamedLab(HookLab):
    """A gateway with an address for each slot, and a name that leads to one of them."""

    def __init__(self, folder: Path, tag: str) -> None:
        super().__init__(folder, tag, clients=SITE)
        slots = [
            slot.model_copy(update={"users_at": f"10.77.0.{number}"})
            for number, slot in enumerate(self.gateway.slots, 101)
        ]
        changed = {"hook_can": ("share", "lease"), "slots": tuple(slots)}
        self.gateway = Gateway.model_validate(self.gateway.model_copy(update=changed).model_dump())
        self.names = folder / "names"
        self.hook = folder / "steering-hook-powerdns"

    def build(self) -> None:
        program = (EXAMPLES / "steering-hook-powerdns").read_text()
        program = program.replace("127.0.0.1", SERVER).replace("/etc/penstock", str(self.folder))
        self.hook.write_text(program)
        self.hook.chmod(0o700)
        (self.folder / "powerdns-key").write_text("secret\n")
        self.names.mkdir()
        (self.names / "pdns.conf").write_text(CONFIG.format(folder=self.names, server=SERVER))
        super().build()
        for number in (101, 102, 103):
            self._ip(f"address add 10.77.0.{number}/24 dev br0", self.namespace)

    def certify(self, name: str, *, days: int = 2, address: str = "10.77.0.1", kind: str = "--ecc") -> str:
        more = f'ip_address = "{address}"\ndns_name = "{NAME}"\ntls_www_server\nsigning_key\n'
        self._certify(name, f"expiration_days = {days}\n{more}", by="ca", kind=kind)
        return name

    def reset(self) -> None:
        super().reset()
        nft = ["ip", "netns", "exec", self.namespace, "nft", "-f", str(EXAMPLES / "steering-dns.nft")]
        subprocess.run(nft, check=True)
        zones = self.names / "zones.db"
        zones.unlink(missing_ok=True)
        with sqlite3.connect(zones) as database:
            database.executescript(SCHEMA.read_text())
        self._served("pdnsutil", "create-zone", "example.org", "ns.example.org")
        self._served("pdns_server", "--daemon=yes", "--guardian=no")
        wait_until(lambda: self.looked_up(SITE, "example.org", "SOA") is not None)

    def _served(self, *command: str) -> None:
        where = ["ip", "netns", "exec", f"{self.prefix}c{SITE}"]
        given = [command[0], f"--config-dir={self.names}", *command[1:]]
        subprocess.run([*where, *given], check=True, capture_output=True)

    def add_address(self, number: int, address: str) -> None:
        """Give that client's site one more address."""
        self._ip(f"address replace {address}/32 dev eth0", f"{self.prefix}c{number}")

    def written(self, name: str, kind: str, content: str) -> None:
        """Have a person write a record, past the hook."""
        self._served("pdnsutil", "replace-rrset", "example.org", name, kind, "10", content)
        self._served("pdns_control", "purge")

    def end_server(self) -> None:
        """End the name server."""
        end_inhabitants([f"{self.prefix}c{SITE}"])

    def looked_up(
        self, number: int, name: str = NAME, kind: str = "A", source: str | None = None
    ) -> str | None:
        """Return what the name server answers to whoever asks from that client's site."""
        resolver = Resolver(configure=False)
        resolver.nameservers, resolver.lifetime = [SERVER], 1
        with inside(f"{self.prefix}c{number}"):
            try:
                return next(str(answer) for answer in resolver.resolve(name, kind, source=source))
            except DNSException:
                return None

    def client(
        self, number: int, *, version: int = 4, url_port: int = 443, more: tuple[str, ...] = ()
    ) -> Client:
        """Return a client that dials the name, at the address that it is answered."""
        found = f"--resolve={NAME}:{self.looked_up(number)}"
        site = f"{self.prefix}c{number}"
        client = Client(site, self.folder, number, url_port=url_port, more=(found, *more), host=NAME)
        self.people.append(client)
        return client

    def _made_steering(self) -> SteeringDriver:
        return HookSteering(self.orders, replace(self.means, hook=self.hook))
