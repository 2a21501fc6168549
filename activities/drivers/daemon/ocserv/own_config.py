"""ocserv.conf as somebody wrote it for a gateway of their own: what it says, and what no slot can take over.

ocserv(8) has the keys. A line is carried over when a release's template may say the same; one that leads
to a program or folder of this host is not, since a release runs in a root of its own.
"""

import re
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network

from activities.drivers.daemon.ocserv.config import Line, is_true, lines_of, number_in, pool4_in, pool6_in
from activities.drivers.daemon.ocserv.pushed import pushed_in
from activities.drivers.daemon.ocserv.user_files import networks_in_sections, user_files_in
from activities.drivers.daemon.port import OwnConfig
from policies.model.adoption import MOST_LINES, OwnLine
from policies.model.errors import BadInput
from policies.model.fleet import SMALLEST_POOL
from policies.pushed import in_own_pools
from policies.redaction import without_secrets

LAST_PORT = 65535
LONGEST_DEVICE = 8
"""Characters: instances add numbers to them, and the kernel takes 15 (netdevice(7))."""

_PASSWORDS = re.compile(r"(?i:plain)\[\s*(?:(?i:passwd)\s*=[^,\]]+|[/.][^,\]]*)\]")
"""A list of users alone; `plain[/path]` is how ocserv 0.8 wrote it, and is read by today's."""
_OF_A_SLOT = frozenset(
    """
    tcp-port udp-port device ipv4-network ipv4-netmask ipv6-network ipv6-prefix ipv6-subnet-prefix
    socket-file occtl-socket-file use-occtl use-dbus pid-file run-as-user run-as-group
    isolate-workers chroot-dir listen-host-is-dyndns server-cert server-key ca-cert crl log-level
    camouflage_secret
    """.split()  # noqa: SIM905 - words, not a table
)
"""What slots, credentials and templates say anew for each instance."""

_PLAIN = frozenset(
    """
    always-require-cert append-routes auth-timeout auto-select-group ban-points-connection
    ban-points-kkdcp ban-points-wrong-password ban-reset-time banner camouflage camouflage_realm
    cert-group-oid cert-user-oid cisco-client-compat client-bypass-protocol compression
    cookie-timeout cookie-validity custom-header debug-no-secmod-stats default-domain default-select-group
    deny-roaming dns dpd dtls-legacy dtls-psk expose-iroutes idle-timeout ipv4-dns ipv4-nbns
    ipv6-dns ipv6-nbns keepalive key-pin match-tls-dtls-ciphers max-ban-score max-clients
    max-same-clients min-reauth-time mobile-dpd mobile-idle-timeout mtu nbns net-priority
    no-compress-limit no-route output-buffer persistent-cookies ping-leases pre-login-banner
    predictable-ips rate-limit-ms rekey-method rekey-time resolve-hostnames restrict-user-to-ports
    restrict-user-to-routes route rx-data-per-sec sec-mod-scale select-group server-drain-ms
    server-stats-reset-time session-control session-timeout split-dns stats-report-time switch-to-tcp-timeout
    tls-priorities try-mtu-discovery tunnel-all-dns tx-data-per-sec use-seccomp use-utmp
    """.split()  # noqa: SIM905 - words, not a table
)
"""What a template may say word for word."""

_OF_THIS_HOST = {
    "listen-host": "its instances listen on every address of the gateway",
    "udp-listen-host": "its instances listen on every address of the gateway",
    "listen-proxy-proto": "nothing that would speak the proxy protocol is before its instances",
}


def read_own_config(text: str) -> OwnConfig:
    """Return what the configuration says.

    Raises:
        BadInput: It does not say what an instance needs, or cannot be read; the sentence names the line.
    """
    lines = lines_of(text)
    said = {line.key: line for line in lines if not line.section}  # the last one counts
    pool4, pool6 = _pools(lines)
    left = [*_left_behind(lines), *in_own_pools(pushed_in(text), (pool4, pool6))]
    return OwnConfig(
        port=_port(said),
        device=_device(said),
        pool4=pool4,
        pool6=pool6,
        control=said["occtl-socket-file"].value if "occtl-socket-file" in said else None,
        answers=_answers(lines),
        left_behind=tuple(sorted(left, key=lambda line: line.number)[:MOST_LINES]),
        user_files=user_files_in(text),
        more_pools=networks_in_sections(text),
    )


def pools_of(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """Return the pools that the configuration names, the one of IPv4 first; BadInput when it has none."""
    pool4, pool6 = _pools(lines_of(text))
    return (pool4,) if pool6 is None else (pool4, pool6)


def _pools(lines: list[Line]) -> tuple[IPv4Network, IPv6Network | None]:
    pool4 = pool4_in(lines)
    if pool4 is None:
        raise BadInput("it has no ipv4-network")
    if pool4.prefixlen > SMALLEST_POOL:
        number = next(line.number for line in reversed(lines) if line.key == "ipv4-network")
        raise BadInput(f"line {number}: {pool4} has no addresses for users")
    return pool4, pool6_in(lines)


def _answers(lines: list[Line]) -> bool:
    """Return whether occtl gets answers; `use-dbus` is what the key was called before, and only says yes."""
    answers = False
    for line in lines:
        if not line.section and line.key == "use-occtl":
            answers = is_true(line.value)
        elif not line.section and line.key == "use-dbus":
            answers = answers or is_true(line.value)
    return answers


def _left_behind(lines: list[Line]) -> Iterator[OwnLine]:
    for line in lines:
        if line.section:
            reason = "a section for some names or users has no slot"
            yield OwnLine(number=line.number, key=f"[{line.section}]", reason=reason)
            return  # what follows belongs to it, or to the next one
        if (why := _why_not(line.key, line.value)) is not None:
            yield OwnLine(number=line.number, key=line.key, reason=why)


def _why_not(key: str, value: str) -> str | None:
    """Return why a template cannot say the same, None when it can or need not."""
    if key in ("auth", "enable-auth", "acct"):
        asks = value.partition("[")[0]
        alone = _PASSWORDS.fullmatch(value) or value.lower() == "certificate"
        return None if alone else f"{asks} asks something of this host or its network"
    if key in _OF_A_SLOT or key in _PLAIN:
        return None
    if key in _OF_THIS_HOST:
        return _OF_THIS_HOST[key]
    if "/" in value:
        shown = without_secrets(f"{key} = {value}").partition(" = ")[2].strip()
        return f"{shown} is a file of this host, and a release has its own root"
    return "a template is not known to take it over"


def _value(said: dict[str, Line], key: str) -> str:
    if key not in said or not said[key].value:
        raise BadInput(f"it has no {key}")
    return said[key].value


def _device(said: dict[str, Line]) -> str:
    device = _value(said, "device")
    if len(device) > LONGEST_DEVICE:
        raise BadInput(
            f"line {said['device'].number}: {device} is longer than the {LONGEST_DEVICE} of a slot's"
        )
    return device


def _port(said: dict[str, Line]) -> int:
    value = _value(said, "tcp-port")
    if not 0 < (port := number_in(value)) <= LAST_PORT:
        raise BadInput(f"line {said['tcp-port'].number}: tcp-port is {value}, which is no port")
    return port
