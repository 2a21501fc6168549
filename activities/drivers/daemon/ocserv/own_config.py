"""ocserv.conf as somebody wrote it for a gateway of their own: what it says, and what no slot can take over.

ocserv(8) has the keys. A line is carried over when a release's template may say the same; one that leads
to a program or folder of this host is not, since a release runs in a root of its own.
"""

import re
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network
from itertools import islice

from activities.drivers.daemon.port import OwnConfig
from policies.model.adoption import MOST_LINES, OwnLine
from policies.model.errors import BadInput
from policies.model.fleet import SMALLEST_POOL

LAST_PORT = 65535
LONGEST_DEVICE = 8
"""Characters: instances add numbers to them, and the kernel takes 15 (netdevice(7))."""

_PASSWORDS = re.compile(r"plain\[(?:passwd=[^,\]]+)\]")
_OF_A_SLOT = frozenset(
    """
    tcp-port udp-port device ipv4-network ipv4-netmask ipv6-network ipv6-subnet-prefix socket-file
    occtl-socket-file use-occtl pid-file run-as-user run-as-group isolate-workers chroot-dir
    server-cert server-key ca-cert crl log-level
    """.split()  # noqa: SIM905 - words, not a table
)
"""What slots, credentials and templates say anew for each instance."""

_PLAIN = frozenset(
    """
    auth-timeout auto-select-group ban-points-connection ban-points-kkdcp ban-points-wrong-password
    ban-reset-time banner cert-group-oid cert-user-oid cisco-client-compat client-bypass-protocol
    compression cookie-timeout custom-header default-domain default-select-group deny-roaming dns
    dpd dtls-legacy dtls-psk expose-iroutes idle-timeout keepalive key-pin match-tls-dtls-ciphers
    max-ban-score max-clients max-same-clients min-reauth-time mobile-dpd mobile-idle-timeout mtu
    nbns net-priority no-compress-limit no-route output-buffer persistent-cookies ping-leases
    pre-login-banner predictable-ips rate-limit-ms rekey-method rekey-time restrict-user-to-ports
    restrict-user-to-routes route rx-data-per-sec sec-mod-scale select-group server-drain-ms
    server-stats-reset-time session-timeout split-dns stats-report-time switch-to-tcp-timeout
    tls-priorities try-mtu-discovery tunnel-all-dns tx-data-per-sec use-utmp
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
    lines = list(_lines(text))
    said = {key: (number, value) for number, key, value in reversed(lines)}  # the first one counts
    return OwnConfig(
        port=_number(said, "tcp-port"),
        device=_device(said),
        pool4=_pool4(said),
        pool6=_pool6(said),
        control=said["occtl-socket-file"][1] if "occtl-socket-file" in said else None,
        answers=said.get("use-occtl", (0, ""))[1].lower() in ("true", "yes"),
        left_behind=tuple(islice(_left_behind(lines), MOST_LINES)),
    )


def pools_of(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """Return the pools that the configuration names, the one of IPv4 first; BadInput when it has none."""
    said = {key: (number, value) for number, key, value in reversed(list(_lines(text)))}
    pool6 = _pool6(said)
    return (_pool4(said),) if pool6 is None else (_pool4(said), pool6)


def values_of(text: str, key: str) -> list[str]:
    """Return all that the configuration says for the key, in its order, sections included."""
    return [value for _, said, value in _lines(text) if said == key]


def _lines(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield number, key and value of each line that says something; sections keep their brackets."""
    for number, line in enumerate(text.splitlines(), start=1):
        written = line.strip()
        if not written or written.startswith("#"):
            continue
        if written.startswith("["):
            yield number, written, ""
            continue
        key, equals, value = (part.strip() for part in written.partition("="))
        if not equals:
            raise BadInput(f"line {number} is no `key = value`: {written[:60]}")
        yield number, key, value.strip("\"'")


def _left_behind(lines: list[tuple[int, str, str]]) -> Iterator[OwnLine]:
    for number, key, value in lines:
        if key.startswith("["):
            yield OwnLine(number=number, key=key, reason="a section for some names or users has no slot")
            return  # what follows belongs to it
        if reason := _why_not(key, value):
            yield OwnLine(number=number, key=key, reason=reason)


def _why_not(key: str, value: str) -> str | None:
    """Return why a template cannot say the same, None when it can or need not."""
    if key in ("auth", "enable-auth", "acct"):
        asks = value.partition("[")[0]
        return None if _PASSWORDS.fullmatch(value) else f"{asks} asks something of this host or its network"
    if key in _OF_A_SLOT or key in _PLAIN:
        return None
    if key in _OF_THIS_HOST:
        return _OF_THIS_HOST[key]
    if "/" in value:
        return f"{value} is a file of this host, and a release has its own root"
    return "a template is not known to take it over"


def _value(said: dict[str, tuple[int, str]], key: str) -> str:
    if key not in said or not said[key][1]:
        raise BadInput(f"it has no {key}")
    return said[key][1]


def _device(said: dict[str, tuple[int, str]]) -> str:
    device = _value(said, "device")
    if len(device) > LONGEST_DEVICE:
        raise BadInput(f"line {said['device'][0]}: {device} is longer than the {LONGEST_DEVICE} of a slot's")
    return device


def _number(said: dict[str, tuple[int, str]], key: str) -> int:
    value = _value(said, key)
    if not value.isdecimal() or not 0 < int(value) <= LAST_PORT:
        raise BadInput(f"line {said[key][0]}: {key} is {value}, which is no port")
    return int(value)


def _pool4(said: dict[str, tuple[int, str]]) -> IPv4Network:
    network = _value(said, "ipv4-network")
    mask = "" if "/" in network or "ipv4-netmask" not in said else f"/{said['ipv4-netmask'][1]}"
    try:
        pool = IPv4Network(f"{network}{mask}", strict=False)
    except ValueError as error:
        raise BadInput(f"line {said['ipv4-network'][0]}: ipv4-network: {error}") from error
    if pool.prefixlen > SMALLEST_POOL:
        raise BadInput(f"line {said['ipv4-network'][0]}: {pool} has no addresses for users")
    return pool


def _pool6(said: dict[str, tuple[int, str]]) -> IPv6Network | None:
    if "ipv6-network" not in said:
        return None
    number, network = said["ipv6-network"]
    try:
        return IPv6Network(network, strict=False)
    except ValueError as error:
        raise BadInput(f"line {number}: ipv6-network: {error}") from error
