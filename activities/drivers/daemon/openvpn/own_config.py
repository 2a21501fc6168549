"""An OpenVPN configuration as somebody wrote it for a gateway of their own: what it says, what would be lost.

openvpn(8) has the options. Most of them a release's template may say word for word; one that leads to a
program, a folder or a network of this host is named, since a release runs in a root of its own.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network

from activities.drivers.daemon.openvpn.config import Option, last_of, options_in
from activities.drivers.daemon.openvpn.pushed import pushed_in
from activities.drivers.daemon.openvpn.template import OURS
from activities.drivers.daemon.openvpn.user_files import user_files_in
from activities.drivers.daemon.port import OwnConfig
from policies.model.adoption import MOST_LINES, OwnLine
from policies.model.errors import BadInput
from policies.model.fleet import SMALLEST_POOL
from policies.pushed import in_own_pools
from policies.redaction import PROGRAM_OPTIONS

USUAL_PORT = "1194"
LAST_PORT = 65535
LONGEST_DEVICE = 8
"""Characters of a slot's device."""
_LOOPBACK = ("127.0.0.1", "localhost")

_OF_A_SLOT = frozenset(
    """
    port lport proto dev dev-type dev-node server server-ipv6 ifconfig ifconfig-pool ifconfig-push-constraint
    ifconfig-ipv6 ifconfig-ipv6-pool management multihome float bind user group
    status status-version suppress-timestamps verb mute writepid persist-tun persist-key explicit-exit-notify
    """.split()  # noqa: SIM905 - words, not a table
).union(OURS)
"""What slots and penstock say anew for each instance, or a template says as it likes."""
_POOLS6 = ("server-ipv6", "ifconfig-ipv6-pool", "ifconfig-ipv6")
"""By what users have IPv6 addresses: a pool, or the network of the daemon's own address."""
_CREDENTIALS = frozenset(
    """
    ca capath cert key dh pkcs12 extra-certs tls-auth tls-crypt tls-crypt-v2 crl-verify secret
    auth-gen-token-secret
    """.split()  # noqa: SIM905 - words, not a table
)
"""Files that a template names as credentials."""
_FILES = frozenset(
    """
    askpass auth-user-pass replay-persist http-proxy-user-pass tls-export-cert tmp-dir
    pkcs11-providers
    """.split()  # noqa: SIM905 - words, not a table
)
"""Options whose first word is a file or a folder, also without a `/`."""
_ASKED_FOR = "what answers at its management socket is on this host"
_OF_THIS_HOST = {
    "management-client-auth": _ASKED_FOR,
    "management-query-passwords": _ASKED_FOR,
    "management-external-key": _ASKED_FOR,
    "management-external-cert": _ASKED_FOR,
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
    options = options_in(text)
    said = last_of(options)
    if "config" in said:
        raise BadInput(f"line {said['config'].number}: config brings lines that are not read; write them out")
    control, pool4, pool6 = _control(said), _pool4(said), _pool6(said)
    left = [*_left_behind(options), *in_own_pools(pushed_in(text), (pool4, pool6))]
    return OwnConfig(
        port=_port(options),
        device=_device(said),
        pool4=pool4,
        pool6=pool6,
        control=control,
        answers=control is not None,
        left_behind=tuple(sorted(left, key=lambda line: line.number)[:MOST_LINES]),
        user=said["user"].value if "user" in said else "",
        user_files=user_files_in(text),
    )


def _left_behind(options: list[Option]) -> Iterator[OwnLine]:
    for option in options:
        if reason := _why_not(option.name, option.words, inline=option.inline):
            yield OwnLine(number=option.number, key=option.name, reason=reason)


def _why_not(option: str, words: Sequence[str], *, inline: bool) -> str | None:
    """Return why a template cannot say the same, None when it can or need not."""
    if option in _OF_THIS_HOST:
        return _OF_THIS_HOST[option]
    if option in PROGRAM_OPTIONS:
        program = next(iter(" ".join(words[:1]).split()), "it")
        return f"{program} is a program of this host, and a release has its own root"
    if option in _OF_A_SLOT or option in _CREDENTIALS:
        return None
    if option in _FILES and words and not inline:
        return f"{words[0]} is a file of this host, and a release has its own root"
    paths = [word for said in words for word in said.split() if word.startswith("/")]
    if paths and not inline:
        return f"{paths[0]} is a file of this host, and a release has its own root"
    return None


Said = Mapping[str, Option]


def _control(said: Said) -> str | None:
    """Return the management socket that it names, `HOST:PORT` for one of TCP; None for none we can ask."""
    if (option := said.get("management")) is None:
        return None
    match option.words:
        case [path, "unix"]:
            return path
        case [host, port] if host in _LOOPBACK and port.isdecimal():
            return f"127.0.0.1:{port}"
    raise BadInput(
        f"line {option.number}: management {option.value} is none that is asked: write `management PATH "
        "unix`, without a file of a password"
    )


def _port(options: Iterable[Option]) -> int:
    """Return the port that it listens on; `port` and `lport` are one setting here."""
    port = Option(0, "port", (USUAL_PORT,))
    for option in options:
        if option.name in ("port", "lport"):
            port = option
    value = port.value
    if not value.isdecimal() or not 0 < int(value) <= LAST_PORT:
        raise BadInput(f"line {port.number}: port is {value}, which is no port")
    return int(value)


def _device(said: Said) -> str:
    option = said.get("dev")
    device = option.value if option is not None else ""
    by_name = "tun" if device.startswith("tun") else device[:3]
    kind = said["dev-type"].value if "dev-type" in said else by_name
    where = f"line {option.number}: " if option is not None else ""
    if kind != "tun" or not device:
        raise BadInput(f"{where}dev is {device or 'missing'}: only devices of type tun are adopted")
    if len(device) > LONGEST_DEVICE:
        raise BadInput(f"{where}{device} is longer than the {LONGEST_DEVICE} of a slot's")
    return device


def _pool4(said: Said) -> IPv4Network:
    option = said.get("server")
    if option is None or len(option.words) not in (2, 3):
        raise BadInput("it has no `server NETWORK NETMASK`, from which users have their addresses")
    try:
        pool = IPv4Network("/".join(option.words[:2]), strict=False)
    except ValueError as error:
        raise BadInput(f"line {option.number}: server: {error}") from error
    if pool.prefixlen > SMALLEST_POOL:
        raise BadInput(f"line {option.number}: {pool} has no addresses for users")
    return pool


def _pool6(said: Said) -> IPv6Network | None:
    """Return the pool of `server-ipv6`, or of what that expands to: of two, the one that has the other."""
    pools = [(said[name], _network6(said[name])) for name in _POOLS6 if name in said]
    if not pools:
        return None
    option, widest = min(pools, key=lambda one: one[1].prefixlen)
    if other := next((one for one in pools if not one[1].subnet_of(widest)), None):
        raise BadInput(
            f"line {other[0].number}: {other[0].name} {other[1]} is not within {widest} of {option.name}; "
            "write `server-ipv6 NETWORK` in place of both"
        )
    return widest


def _network6(option: Option) -> IPv6Network:
    try:
        return IPv6Network(" ".join(option.words[:1]), strict=False)
    except ValueError as error:
        raise BadInput(f"line {option.number}: {option.name}: {error}") from error


def pools_of(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """Return the pools that the configuration names, the one of IPv4 first; BadInput when it has none."""
    said = last_of(options_in(text))
    pool6 = _pool6(said)
    return (_pool4(said),) if pool6 is None else (_pool4(said), pool6)


def transport_of(text: str) -> str:
    """Return how clients come to it, `udp` or `tcp`; BadInput when it cannot be read."""
    option = last_of(options_in(text)).get("proto")
    return "tcp" if option is not None and option.value.startswith("tcp") else "udp"
