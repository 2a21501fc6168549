"""A gateway that nobody prepared: Debian's ocserv on 443, its own file, its own unit, its own accounts."""

import re

from deploy.lab.credentials import Credentials
from tests.hosts.host import Host

FILE = "/etc/ocserv/ocserv.conf"
UNIT = "ocserv.service"
_SET_BY_HAND = {
    "max-clients": "128",
    "ipv4-network": "192.168.{number}.0",
    "dns": "10.99.0.53",
    "dpd": "10",
    "log-level": "3",
    "server-cert": "/etc/ssl/certs/gateway.pem",
    "server-key": "/etc/ssl/private/gateway.key",
}
"""What an administrator changes in the file that Debian ships, or adds to it; all else is left."""


def set_up(host: Host, given: Credentials, number: int) -> None:
    """Put on the host's disk what its administrator would have typed; the number makes its pool its own."""
    text = (host.disk / FILE.lstrip("/")).read_text()
    for key, value in _SET_BY_HAND.items():
        line = f"{key} = {value.format(number=number)}"
        text, found = re.subn(rf"^{key} = .*$", line, text, flags=re.MULTILINE)
        text += "" if found else f"{line}\n"
    host.put(FILE, text)
    host.put(_SET_BY_HAND["server-cert"], given.certificate.read_bytes())
    host.put(_SET_BY_HAND["server-key"], given.key.read_bytes(), 0o600)
    host.put("/etc/ocserv/passwd", given.users.read_bytes(), 0o600)
    wanted = host.disk / "etc/systemd/system/multi-user.target.wants" / UNIT
    wanted.symlink_to(f"/lib/systemd/system/{UNIT}")
    host.put("/etc/sysctl.d/60-gateway.conf", "net.ipv4.ip_forward=1\n")


def sessions(host: Host) -> list[str]:
    """Return who has a session there, as its own tool says."""
    told = host.run("occtl", "--no-pager", "show", "users").out.splitlines()
    return sorted(line.split()[1] for line in told[1:] if line.strip())
