"""Which of ocserv's settings a fleet may have of its own, and how they stand in its configuration.

Measured on 1.1.6 and 1.3.0: whoever logs in after a reload gets the new ones, and live sessions keep what
they have. What is not here belongs to the release: it is signed with it, and comes with a new instance.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from ipaddress import ip_address, ip_network

from activities.drivers.daemon.ocserv.config import lines_of, pool4_in, settings_of, without
from policies.model.errors import BadInput
from policies.model.fleet import Fleet
from policies.model.settings import Setting
from policies.pools import has_grown

Fits = Callable[[str], bool]

_DOMAIN = re.compile(
    r"(?=.{1,253}$)(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)*[A-Za-z0-9-]{1,63}\.?"
)
_DAY = 86_400
_MOST = 2**31 - 1


def _address(value: str) -> bool:
    with suppress(ValueError):
        return bool(ip_address(value))
    return False


def _network(value: str) -> bool:
    """Whether it is a network as ocserv takes it; `default` is every address."""
    with suppress(ValueError):
        return value == "default" or bool(ip_network(value))
    return False


def _between(least: int, most: int) -> Fits:
    return lambda value: value.isascii() and value.isdecimal() and least <= int(value) <= most


def _domain(value: str) -> bool:
    return _DOMAIN.fullmatch(value) is not None


def _text(value: str) -> bool:
    return not set(value) & set("\"'\\")


def _switch(value: str) -> bool:
    return value in ("true", "false")


SEVERAL: dict[str, tuple[Fits, str]] = {
    "dns": (_address, "an address"),
    "nbns": (_address, "an address"),
    "route": (_network, "a network like 10.1.0.0/16, or default"),
    "no-route": (_network, "a network like 10.1.0.0/16"),
    "split-dns": (_domain, "a domain"),
}
"""Keys that may have several values, what fits each, and how that is called."""

_SECONDS = "seconds, as a whole number"
ONE: dict[str, tuple[Fits, str]] = {
    "default-domain": (_domain, "a domain"),
    "banner": (_text, "a text without quotation marks and backslashes"),
    "tunnel-all-dns": (_switch, "true or false"),
    "mtu": (_between(576, 9000), "576 to 9000 bytes"),
    "keepalive": (_between(0, _DAY), _SECONDS),
    "dpd": (_between(1, _DAY), _SECONDS),
    "mobile-dpd": (_between(1, _DAY), _SECONDS),
    "rekey-time": (_between(60, _MOST), f"{_SECONDS}, 60 at least"),
    "idle-timeout": (_between(60, _MOST), f"{_SECONDS}, 60 at least"),
    "mobile-idle-timeout": (_between(60, _MOST), f"{_SECONDS}, 60 at least"),
    "session-timeout": (_between(60, _MOST), f"{_SECONDS}, 60 at least"),
    "max-same-clients": (_between(0, _MOST), "a number; 0 is no limit"),
    "rx-data-per-sec": (_between(0, _MOST), "bytes a second"),
    "tx-data-per-sec": (_between(0, _MOST), "bytes a second"),
}
"""Keys that have one value."""

SETTABLE = SEVERAL | ONE
POOL = frozenset({"ipv4-network", "ipv4-netmask"})
"""Lines of the pool of IPv4 addresses: a larger one is taken by a reload as well, by whoever logs in next.

An address follows from the user's name and the size of the pool (`ip-lease.c`), and is asked for anew when a
session comes back whose worker has ended: then it is another one, and openconnect ends the session.
"""


def require_settings(settings: Iterable[Setting]) -> None:
    """Return if ocserv takes these settings on a reload.

    Raises:
        BadInput: One of them is not a fleet's to say, or has a value that does not fit.
    """
    for setting in settings:
        if setting.key not in SETTABLE:
            raise BadInput(
                f"settings: {setting.key} belongs into the template of a release, which comes with a new "
                f"instance; a fleet may have of its own {', '.join(sorted(SETTABLE))}"
            )
        fits, what = SETTABLE[setting.key]
        if wrong := next((value for value in setting.values if not fits(value)), None):
            raise BadInput(f"settings: {setting.key} {wrong} is not {what}; correct it in the fleet's file")
        if setting.key in ONE and len(setting.values) > 1:
            raise BadInput(
                f"settings: {setting.key} has {len(setting.values)} values, and ocserv takes one of it"
            )


def refused_settings(fleet: Fleet) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield each setting of a fleet's file that ocserv does not take: its keys in the file, and why."""
    own = [(("gateways", number, "settings"), one.settings) for number, one in enumerate(fleet.gateways)]
    for place, said in ((("settings",), fleet.settings), *own):
        for key, values in sorted(said.items()):
            try:
                require_settings([Setting(key=key, values=values)])
            except BadInput as error:
                yield (*place, key), str(error)


def with_settings(config: str, settings: Sequence[Setting]) -> str:
    """Return the configuration with these settings in place of its own; sections keep theirs."""
    before, sections = without(config, frozenset(setting.key for setting in settings))
    said = [_written(setting.key, value) for setting in settings for value in setting.values]
    return "\n".join([*before, *said, *sections]) + "\n"


def _written(key: str, value: str) -> str:
    return f'{key} = "{value}"' if key == "banner" else f"{key} = {value}"


def beyond_a_reload(before: str, after: str) -> tuple[str, ...]:
    """Return the keys that differ and that only a new instance takes; a pool that has grown is none."""
    old, new = settings_of(before), settings_of(after)
    changed = {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)} - SETTABLE.keys()
    if _sections(before) != _sections(after):
        changed.add("a section")
    if changed & POOL and _has_grown(before, after):
        changed -= POOL
    return tuple(sorted(changed))


def _sections(config: str) -> list[tuple[str, str, str]]:
    return [line[1:4] for line in lines_of(config) if line.section]


def _has_grown(before: str, after: str) -> bool:
    with suppress(BadInput):
        old, new = (pool4_in(lines_of(config)) for config in (before, after))
        return old is not None and new is not None and has_grown(old, new)
    return False
