"""The scratch gateway with OpenVPN on it, and its users: real clients with certificates."""

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from types import MappingProxyType

from activities.drivers.daemon.login import ProbeLogin
from activities.drivers.daemon.openvpn.daemon import OpenVpn
from activities.drivers.daemon.port import Daemon
from activities.drivers.runtime.host.sessions import SlotSessions
from activities.drivers.runtime.host.snapshots import HostSnapshots
from activities.drivers.steering.nginx_log import FORMAT
from orchestrator.publishing.tree import collect
from tests.drivers.gateway_client import Client
from tests.drivers.gateway_lab import GatewayLab, TreeAdmission
from tests.patience import PATIENCE

TEMPLATE = Path(__file__).parents[2] / "deploy/lab/openvpn.conf.template"
PROGRAM = "usr/sbin/openvpn"
USERS_PORT = 443


def why_not_here() -> str | None:
    """Return why no OpenVPN can run here, None when one can."""
    return None if shutil.which("openvpn") else "needs openvpn"


class OpenVpnAdmission(TreeAdmission):
    """Admits releases made of the OpenVPN of this machine, as if they had been signed."""

    product, executable, made_of = "openvpn", PROGRAM, TEMPLATE

    def collect(self) -> None:
        collect(Path("/"), self.tree, [PROGRAM])


class OpenVpnClient(Client):
    """One client at one site, and what it pings; it comes back by itself, as a user's does."""

    logged_in = "Initialization Sequence Completed"

    def __init__(
        self,
        site: str,
        folder: Path,
        number: int,
        *more: str,
        transport: str = "udp",
        to: str = "10.77.0.1",
        device: str = "tun0",
    ) -> None:
        self.name, self.number = site, number
        self.log = folder / f"client-{number}.log"
        self.answers = folder / f"pings-{number}.log"
        self.pings: subprocess.Popen[bytes] | None = None
        notify = [] if transport == "tcp-client" else ["--explicit-exit-notify", "1"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", self.name, "openvpn", "--client", "--dev", device,
                 "--remote", to, str(USERS_PORT), transport, "--ca", f"{folder}/ca.pem",
                 "--cert", f"{folder}/user{number}.pem", "--key", f"{folder}/user{number}.key",
                 "--remote-cert-tls", "server", "--connect-retry", "1", "1", "--verb", "3",
                 "--route", "10.90.0.0", "255.255.0.0", *notify, *(more or ["--nobind"])],
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    async def up(self) -> "OpenVpnClient":
        await self.until(self.logged_in)
        return self


class OpenVpnLab(GatewayLab):
    """The namespaces, files and parts of one gateway that runs OpenVPN."""

    credentials = {"authority": "ca.pem", "certificate": "gw.pem", "key": "gw.key"}
    options: tuple[str, ...] = ()
    files: Mapping[str, Path] = MappingProxyType({})
    """How the probe's client is set up, and what client profiles name."""

    def __init__(self, folder: Path, tag: str, clients: int = 6) -> None:
        super().__init__(folder, tag, clients)
        self.gateway = self.gateway.model_copy(update={"daemon": "openvpn"})

    def client(self, number: int, *more: str, **_: object) -> OpenVpnClient:
        site = f"{self.prefix}c{number}"
        client = OpenVpnClient(site, self.folder, number, *more)
        self.people.append(client)
        return client

    def furnish(self) -> None:
        super().furnish()
        for user in ("probe", *(f"user{number}" for number in range(1, self.clients + 1))):
            self._certify(user, "expiration_days = 2\ntls_www_client\nsigning_key\n", by="ca")

    def forge(self, user: str) -> None:
        """Make that user's certificate anew, signed by nobody whom the gateway knows."""
        self._certify(user, "expiration_days = 2\ntls_www_client\nsigning_key\n")

    def _made_admission(self) -> TreeAdmission:
        return OpenVpnAdmission(self.folder)

    def _made_login(self) -> ProbeLogin:
        return replace(super()._made_login(), options=self.options, files=self.files)

    def _made_daemon(self) -> Daemon:
        return OpenVpn(self.login)


class ProxiedLab(OpenVpnLab):
    """The same gateway behind an nginx at its last site, which carries users by `stream`."""

    @property
    def proxy(self) -> str:
        """The address that users dial, and from which nginx carries them to the gateway."""
        return f"10.77.0.{10 + self.clients}"

    @property
    def logs(self) -> tuple[Path, Path]:
        """What nginx writes when a session begins, and when it has ended."""
        return self.folder / "nginx-info.log", self.folder / "nginx-access.log"

    def compose(self, **more: str) -> None:
        super().compose(**more)
        self.means = replace(self.means, proxies=(ip_address(self.proxy),))
        self.table = self._made_steering()
        self._compose_slots(self.means.credentials)
        self.sessions = SlotSessions(self.folders, self.journal, self.table)
        self.snapshots = HostSnapshots(self.folders, self.slots.observe, self.table.words, fronts=self.logs)

    def through(self, number: int, site: int, transport: str, device: str = "tun0") -> OpenVpnClient:
        """Have a user at that site dial nginx."""
        client = OpenVpnClient(
            f"{self.prefix}c{site}", self.folder, number, "--nobind",
            transport=transport, to=self.proxy, device=device,
        )  # fmt: skip
        self.people.append(client)
        return client

    @contextmanager
    def nginx(self, keeps: str) -> Iterator["subprocess.Popen[bytes]"]:
        """Run nginx, which keeps a silent UDP session for so long."""
        for log in self.logs:
            log.write_text("")
        info, access = self.logs
        listening = "".join(
            f"  server {{ listen {self.proxy}:{USERS_PORT}{how}; proxy_pass 10.77.0.1:{USERS_PORT};"
            f" proxy_timeout {keeps}; }}\n"
            for how in (" udp reuseport", "")
        )
        config = self.folder / "nginx.conf"
        config.write_text(
            "load_module modules/ngx_stream_module.so;\nuser root;\nworker_processes 2;\n"
            f"pid {self.folder}/nginx.pid;\nerror_log {info} info;\nevents {{}}\nstream {{\n"
            f"  log_format penstock '{FORMAT}';\n  access_log {access} penstock;\n{listening}}}\n"
        )
        site = f"{self.prefix}c{self.clients}"
        command: list[str | Path] = [
            "ip",
            "netns",
            "exec",
            site,
            "nginx",
            "-e",
            info,
            "-c",
            config,
            "-g",
            "daemon off;",
        ]
        process = subprocess.Popen(command, start_new_session=True)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(PATIENCE)
