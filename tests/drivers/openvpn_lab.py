"""The scratch gateway with OpenVPN on it, and its users: real clients with certificates."""

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from activities.drivers.daemon.login import ProbeLogin
from activities.drivers.daemon.openvpn.daemon import OpenVpn
from activities.drivers.daemon.port import Daemon
from orchestrator.publishing.tree import collect
from tests.drivers.gateway_client import Client
from tests.drivers.gateway_lab import GatewayLab, TreeAdmission

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

    def __init__(self, site: str, folder: Path, number: int, *more: str, transport: str = "udp") -> None:
        self.name, self.number = site, number
        self.log = folder / f"client-{number}.log"
        self.answers = folder / f"pings-{number}.log"
        self.pings: subprocess.Popen[bytes] | None = None
        notify = [] if transport == "tcp-client" else ["--explicit-exit-notify", "1"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", self.name, "openvpn", "--client", "--dev", "tun0",
                 "--remote", "10.77.0.1", str(USERS_PORT), transport, "--ca", f"{folder}/ca.pem",
                 "--cert", f"{folder}/user{number}.pem", "--key", f"{folder}/user{number}.key",
                 "--remote-cert-tls", "server", "--connect-retry", "1", "1", "--verb", "3",
                 "--route", "10.90.0.0", "255.255.0.0", *notify, *(more or ["--nobind"])],
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    async def up(self) -> "OpenVpnClient":
        await self.until(self.logged_in, within=20)
        return self


class OpenVpnLab(GatewayLab):
    """The namespaces, files and parts of one gateway that runs OpenVPN."""

    credentials = {"authority": "ca.pem", "certificate": "gw.pem", "key": "gw.key"}
    options: tuple[str, ...] = ()
    files: Mapping[str, Path] = MappingProxyType({})
    """How the probe's client is set up, and what client profiles name."""

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
