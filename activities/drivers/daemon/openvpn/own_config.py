"""An OpenVPN configuration as somebody wrote it for a gateway of their own: what it says, what would be lost.

openvpn(8) has the options. Most of them a release's template may say word for word; one that leads to a
program, a folder or a network of this host is named, since a release runs in a root of its own.
"""

from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network
from itertools import islice

from activities.drivers.daemon.openvpn.template import OURS, numbered_options_of
from activities.drivers.daemon.port import OwnConfig
from policies.model.adoption import MOST_LINES, OwnLine
from policies.model.errors import BadInput
from policies.model.fleet import SMALLEST_POOL

USUAL_PORT = "1194"
LAST_PORT = 65535
LONGEST_DEVICE = 8
"""Characters of a slot's device."""
_LOOPBACK = ("127.0.0.1", "localhost")

_OF_A_SLOT = frozenset(
    """
    port lport proto dev dev-type dev-node server server-ipv6 management multihome float bind user group
    status status-version suppress-timestamps verb mute writepid persist-tun persist-key explicit-exit-notify
    """.split()  # noqa: SIM905 - words, not a table
).union(OURS)
"""What slots and penstock say anew for each instance, or a template says as it likes."""
_CREDENTIALS = frozenset(
    "ca capath cert key dh pkcs12 extra-certs tls-auth tls-crypt tls-crypt-v2 crl-verify secret".split()  # noqa: SIM905
)
"""Files that a template names as credentials."""
_PROGRAMS = frozenset(
    """
    up down ipchange route-up route-pre-down client-connect client-disconnect client-crresponse learn-address
    tls-verify auth-user-pass-verify plugin
    """.split()  # noqa: SIM905 - words, not a table
)
_OF_THIS_HOST = {
    "local": "its instances listen on every address of the gateway",
    "port-share": "nothing of a release is beside it to share the port with",
    "client-config-dir": "a folder of this host, and a release has its own root",
    "ifconfig-pool-persist": "a file of this host; a template may name one as a credential",
    "server-bridge": "an instance bridges to nothing",
}


def read_own_config(text: str) -> OwnConfig:
    """Return what the configuration says.

    Raises:
        BadInput: It does not say what an instance needs, or says it elsewhere; the sentence names the line.
    """
    lines = list(numbered_options_of(text))
    said = {option: (number, value) for number, option, value in lines}  # the last one counts
    if "config" in said:
        raise BadInput(
            f"line {said['config'][0]}: config brings lines that are not read here; write them out"
        )
    control = _control(said)
    return OwnConfig(
        port=_port(said),
        device=_device(said),
        pool4=_pool4(said),
        pool6=_pool6(said),
        control=control,
        answers=control is not None,
        left_behind=tuple(islice(_left_behind(lines), MOST_LINES)),
        user=said.get("user", (0, ""))[1],
    )


def _left_behind(lines: list[tuple[int, str, str]]) -> Iterator[OwnLine]:
    for number, option, value in lines:
        if reason := _why_not(option, value):
            yield OwnLine(number=number, key=option, reason=reason)


def _why_not(option: str, value: str) -> str | None:
    """Return why a template cannot say the same, None when it can or need not."""
    if option in _OF_THIS_HOST:
        return _OF_THIS_HOST[option]
    if option in _PROGRAMS:
        program = value.partition(" ")[0] or "it"
        return f"{program} is a program of this host, and a release has its own root"
    if option in _OF_A_SLOT or option in _CREDENTIALS:
        return None
    if any(word.startswith("/") for word in value.replace('"', " ").split()):
        return f"{value} is a file of this host, and a release has its own root"
    return None


Said = dict[str, tuple[int, str]]


def _control(said: Said) -> str | None:
    """Return the management socket that it names, `HOST:PORT` for one of TCP; None for none we can ask."""
    number, value = said.get("management", (0, ""))
    match value.split():
        case []:
            return None
        case [path, "unix"]:
            return path
        case [host, port] if host in _LOOPBACK and port.isdecimal():
            return f"127.0.0.1:{port}"
    raise BadInput(
        f"line {number}: management {value} is none that is asked: write `management PATH unix`, without a "
        "file of a password"
    )


def _port(said: Said) -> int:
    number, value = said.get("lport", said.get("port", (0, USUAL_PORT)))
    if not value.isdecimal() or not 0 < int(value) <= LAST_PORT:
        raise BadInput(f"line {number}: port is {value}, which is no port")
    return int(value)


def _device(said: Said) -> str:
    number, device = said.get("dev", (0, ""))
    kind = said.get("dev-type", (0, "tun" if device.startswith("tun") else device[:3]))[1]
    if kind != "tun":
        raise BadInput(f"line {number}: dev is {device or 'missing'}: only devices of type tun are adopted")
    if len(device) > LONGEST_DEVICE:
        raise BadInput(f"line {number}: {device} is longer than the {LONGEST_DEVICE} of a slot's")
    return device


def _pool4(said: Said) -> IPv4Network:
    number, value = said.get("server", (0, ""))
    words = value.split()
    if len(words) not in (2, 3):
        raise BadInput("it has no `server NETWORK NETMASK`, from which users have their addresses")
    try:
        pool = IPv4Network("/".join(words[:2]), strict=False)
    except ValueError as error:
        raise BadInput(f"line {number}: server: {error}") from error
    if pool.prefixlen > SMALLEST_POOL:
        raise BadInput(f"line {number}: {pool} has no addresses for users")
    return pool


def _pool6(said: Said) -> IPv6Network | None:
    if "server-ipv6" not in said:
        return None
    number, network = said["server-ipv6"]
    try:
        return IPv6Network(network, strict=False)
    except ValueError as error:
        raise BadInput(f"line {number}: server-ipv6: {error}") from error
