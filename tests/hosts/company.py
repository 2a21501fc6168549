"""A gateway as companies have it: comments of two owners, groups of users, a script, a banner, own limits."""

import re
from pathlib import Path

from deploy.lab.credentials import Credentials
from tests.hosts import ocserv
from tests.hosts.host import Host
from tests.hosts.install_document import DOCUMENT

RELEASES = DOCUMENT.with_name("releases.md")
GROUP = "staff"
LEFT_BEHIND = ("config-per-group", "default-group-config", "connect-script")
"""Keys of this configuration that name files of the host: the first release has them, as releases.md says."""

CONFIG = """\
######################################################################
# Edge VPN of Example Ltd.    Do not edit on the gateway: ticket to
#   network@  for ports, pools and routes
#   identity@ for logins and groups
######################################################################

## identity@ ---------------------------------------------------------
; RADIUS comes with the new directory
auth = "plain[passwd=/etc/ocserv/passwd]"
#enable-auth = "certificate"
config-per-group = /etc/ocserv/groups
default-group-config = /etc/ocserv/group-default.conf
auto-select-group = false
banner = "Example Ltd. Authorised use only; sessions are logged."
max-same-clients = 0
max-ban-score = 80                # 2024-03: a scanner from AS64500
ban-reset-time = 1200
auth-timeout = 240
min-reauth-time = 300
cookie-timeout = 300
deny-roaming = false

## network@ ----------------------------------------------------------
tcp-port = 443
udp-port = 443
device = vpns
ipv4-network = 192.168.{number}.0  # the printers' old network
ipv4-netmask = 255.255.255.0
dns = 10.99.0.53
split-dns = example.internal
split-dns = corp.example
route = 10.99.0.0/255.255.255.0
no-route = 10.99.0.128/255.255.255.128
default-domain = example.internal
predictable-ips = true
ping-leases = false
keepalive = 300
dpd = 10
mobile-dpd = 300
switch-to-tcp-timeout = 25
try-mtu-discovery = false
rekey-time = 172800
rekey-method = ssl
rate-limit-ms = 10
max-clients = 128
connect-script = /etc/ocserv/connect.sh
cisco-client-compat = true
dtls-legacy = true

## both --------------------------------------------------------------
server-cert = /etc/ssl/certs/gateway.pem
server-key = /etc/ssl/private/gateway.key
tls-priorities = "NORMAL:%SERVER_PRECEDENCE:%COMPAT:-VERS-SSL3.0:-VERS-TLS1.0:-VERS-TLS1.1"
run-as-user = nobody
run-as-group = daemon
socket-file = /run/ocserv-socket
isolate-workers = true
use-occtl = true
occtl-socket-file = /run/occtl.socket
pid-file = /run/ocserv.pid
log-level = 3
"""
"""Of /etc/ocserv/ocserv.conf."""

FILES = {
    f"/etc/ocserv/groups/{GROUP}": (
        "route = 10.99.0.0/255.255.255.0\nno-route = 10.99.0.192/255.255.255.192\n"
    ),
    "/etc/ocserv/group-default.conf": "route = 10.99.0.0/255.255.255.0\n",
}

CONNECT = "/etc/ocserv/connect.sh"
SCRIPT = '#!/bin/sh\n# who, from where\necho "$REASON $USERNAME $IP_REAL" >>/run/penstock/connects\n'

_OWN = {
    "config-per-group": "/etc/ocserv/groups",
    "default-group-config": "/etc/ocserv/group-default.conf",
    "connect-script": "/usr/libexec/connect.sh",
    "max-clients": "0",
}
"""Where the release has these files in its tree, and what penstock counts itself (releases.md)."""

_OF_A_SLOT = {
    "auth": '"plain[passwd=$credential_users]"',
    "server-cert": "$credential_certificate",
    "server-key": "$credential_key",
    "tcp-port": "$port",
    "udp-port": "$port",
    "device": "$device",
    "ipv4-network": "$pool4",
    "ipv4-netmask": "$netmask4",
    "socket-file": "$run/ocserv.sock",
    "occtl-socket-file": "$run/occtl.sock",
    "pid-file": "$run/ocserv.pid",
}
"""The lines of a template that differ from slot to slot (install.md)."""


def set_up(host: Host, given: Credentials, number: int) -> None:
    """Put on the host's disk what its administrators have typed; the number makes its pool its own."""
    ocserv.set_up(host, given, number)
    host.put(ocserv.FILE, CONFIG.replace("{number}", str(number)))
    for path, content in FILES.items():
        host.put(path, content)
    host.put(CONNECT, SCRIPT, 0o755)
    host.put("/etc/tmpfiles.d/connects.conf", "d /run/penstock 0755 root root -\n")
    lines = given.users.read_text().splitlines()
    grouped = [_of_group(line) if nth // 3 % 3 == 0 else line for nth, line in enumerate(lines)]
    host.put("/etc/ocserv/passwd", "".join(f"{line}\n" for line in grouped), 0o600)


def template() -> str:
    """Return the company's configuration as a release brings it: its own lines, and those of a slot."""
    text = CONFIG
    for key, value in (_OF_A_SLOT | _OWN).items():
        text, found = re.subn(rf"^{key} = .*$", f"{key} = {value}", text, flags=re.MULTILINE)
        assert found == 1, key
    return text


def what_the_tree_takes_along() -> list[str]:
    """Return what releases.md has people type for files that an adoption leaves behind."""
    section = RELEASES.read_text().partition("## What an adoption leaves behind")[2].partition("\n## ")[0]
    commands = re.findall(r"^\$ (.+)$", section, flags=re.MULTILINE)
    assert commands[0].startswith("penstock release tree")
    return commands


def _of_group(line: str) -> str:
    name, _, digest = line.split(":", 2)
    return line if name == "probe" else f"{name}:{GROUP}:{digest}"


def copy_files(gateway: Host, control: Host) -> None:
    """Copy the files that the configuration names from a gateway's host to the control host."""
    for path in (*FILES, CONNECT):
        source = gateway.disk / path.lstrip("/")
        control.put(path, source.read_bytes(), source.stat().st_mode & 0o777)


def spoil_group(tree: Path) -> None:
    """Break the group's file in a tree: the password is right, and its users get no session."""
    (tree / f"etc/ocserv/groups/{GROUP}").write_text("route = 10.99.0.0\n")
