"""One real ocserv in a lab's gateway, without penstock: for tests of the lab itself."""

import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.lab import namespaces
from deploy.lab.credentials import Credentials
from deploy.lab.processes import Process
from deploy.lab.topology import Host
from tests.patience import wait_until

_CONFIG = """
auth = "plain[passwd={given.users}]"
server-cert = {given.certificate}
server-key = {given.key}
tcp-port = 443
udp-port = 443
socket-file = {folder}/socket
occtl-socket-file = {folder}/occtl
use-occtl = true
pid-file = {folder}/pid
run-as-user = nobody
run-as-group = nogroup
device = vpn
ipv4-network = 10.90.0.0/16
predictable-ips = true
isolate-workers = false
max-clients = 0
max-same-clients = 0
max-ban-score = 0
rate-limit-ms = 0
dpd = 10
cookie-timeout = 300
route = 10.99.0.1/32
cisco-client-compat = true
"""


@contextmanager
def plain_gateway(host: Host, given: Credentials) -> Iterator[Path]:
    """Run this Debian's ocserv on port 443 of the host; yields its folder, where `occtl` is its socket.

    The folder is not under pytest's: its workers run as nobody and must be able to enter.
    """
    with tempfile.TemporaryDirectory(prefix="penstock-gateway-") as made:
        folder = Path(made)
        folder.chmod(0o711)
        config = folder / "ocserv.conf"
        config.write_text(_CONFIG.format(given=given, folder=folder))
        daemon = Process(
            host.name, ["ocserv", "-f", "-c", config], log=folder / "log", namespace=host.namespace
        )
        daemon.start()
        try:
            _wait_for_port(host)
            yield folder
        finally:
            daemon.stop()


def _wait_for_port(host: Host) -> None:
    def listens() -> bool:
        with namespaces.inside(host.namespace), socket.socket() as caller:
            return caller.connect_ex((host.address4, 443)) == 0

    wait_until(listens)
