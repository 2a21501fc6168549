"""Files that ocserv reads for single users and groups, and what of them gives out addresses.

ocserv(8) has their options under `config-per-user`; they are written like its own configuration.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from ipaddress import IPv4Network, IPv6Network, ip_network

from activities.drivers.daemon.ocserv.config import Line, lines_of, pool4_in, pool6_in
from activities.drivers.daemon.port import UserFile
from policies.model.errors import BadInput

NAMED_BY = ("config-per-user", "config-per-group", "default-user-config", "default-group-config")
"""Options that name such a file, or a folder of them."""
EXPLICIT = ("explicit-ipv4", "explicit-ipv6")
GIVING = ("ipv4-network", "ipv4-netmask", "ipv6-network", "ipv6-prefix", *EXPLICIT)
"""Options by which such a file gives its users a pool, or an address, of their own."""


def user_files_in(text: str) -> tuple[UserFile, ...]:
    """Return the files for users and groups that a configuration names, sections included."""
    return tuple(
        UserFile(line.number, line.key, line.value) for line in lines_of(text) if line.key in NAMED_BY
    )


def addresses_in(text: str) -> Sequence[str]:
    """Return what such a file says of addresses: they are the same in every slot, and no slot's own.

    Two users of two instances would get one address. What stands in a section is nothing to ocserv.
    """
    try:
        lines = lines_of(text)
    except BadInput as error:
        return (f"{error}; write it so",)
    return tuple(
        f"line {line.number}: {line.key} gives the same addresses in every slot; leave it out, and users get "
        "one of the slot's pool"
        for line in lines
        if line.key in GIVING and not line.section
    )


def networks_in(text: str) -> Sequence[IPv4Network | IPv6Network]:
    """Return of which networks such a file gives addresses, as far as it can be read."""
    with suppress(BadInput):
        return tuple(_networks([line for line in lines_of(text) if not line.section]))
    return ()


def networks_in_sections(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """Return the pools of virtual hosts; BadInput as `lines_of`."""
    sections = dict[str, list[Line]]()
    for line in lines_of(text):
        if line.section:
            sections.setdefault(line.section, []).append(line._replace(section=""))
    return tuple(network for lines in sections.values() for network in _networks(lines))


def _networks(lines: list[Line]) -> Iterator[IPv4Network | IPv6Network]:
    for pool_in in (pool4_in, pool6_in):
        with suppress(BadInput):
            pool = pool_in(lines)
            if pool is not None:
                yield pool
    for line in lines:
        if line.key in EXPLICIT:
            with suppress(ValueError):
                yield ip_network(line.value)
