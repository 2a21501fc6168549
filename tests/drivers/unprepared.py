"""A daemon that nobody prepared: ocserv on the users' own port, with a configuration of its own."""

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.drivers.gateway_lab import GatewayLab
from tests.patience import wait_until

PROGRAM = Path("/usr/sbin/ocserv")

CONFIG = """\
auth = "plain[passwd={folder}/users]"
tcp-port = 443
udp-port = 443
run-as-user = root
run-as-group = root
socket-file = {own}/ocserv.sock
occtl-socket-file = {own}/occtl.sock
use-occtl = true
pid-file = {own}/ocserv.pid
server-cert = {folder}/gw.pem
server-key = {folder}/gw.key
isolate-workers = false
device = vpns
ipv4-network = {pool}
ipv6-network = fd90:9::/64
max-ban-score = 0
predictable-ips = true
dpd = 10
route = 10.99.0.0/24
"""


class Unprepared:
    """One such daemon of a scratch gateway, in whose namespace this process is."""

    def __init__(
        self,
        lab: GatewayLab,
        more: str = "",
        within: tuple[str, ...] = (),
        program: Path = PROGRAM,
        pool: str = "10.90.9.0/24",
        own: Mapping[str, str] | None = None,
    ) -> None:
        """Start it; `own` says other things than its configuration by itself, by key."""
        self.folder = lab.root / "unprepared"
        self.folder.mkdir(mode=0o755, exist_ok=True)
        self.config = self.folder / "ocserv.conf"
        said = CONFIG.format(folder=lab.folder, own=self.folder, pool=pool) + more
        for key, value in (own or {}).items():
            said = re.sub(rf"^{key} = .*\n", "", said, flags=re.MULTILINE) + f"{key} = {value}\n"
        self.config.write_text(said)
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [*within, program, "--foreground", "--config", self.config],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._wait()

    def _wait(self) -> None:
        def answers() -> bool:
            assert self.process.poll() is None, self.words()
            return self.occtl("show", "status").returncode == 0

        wait_until(answers, found=self.words)

    def occtl(self, *command: str) -> "subprocess.CompletedProcess[str]":
        socket: Path = self.folder / "occtl.sock"
        return subprocess.run(["occtl", "-s", socket, *command], capture_output=True, text=True, check=False)

    def words(self) -> str:
        """Return what it has logged."""
        return (self.folder / "log").read_text()
