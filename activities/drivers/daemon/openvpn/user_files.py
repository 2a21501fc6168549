"""Files that OpenVPN reads for single users, and every option by which one is given an address of its own.

openvpn(8) has them under `client-config-dir`; they are written like its own configuration.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from ipaddress import IPv4Network, IPv6Network, ip_interface, ip_network

from activities.drivers.daemon.openvpn.config import Option, options_in
from activities.drivers.daemon.port import UserFile
from policies.model.errors import BadInput

NAMED_BY = ("client-config-dir",)
"""Options that name a folder of such files."""
GIVING = ("ifconfig-push", "ifconfig-ipv6-push")
"""Options that give a user an address."""
TAKEN = ("ifconfig", "ifconfig-ipv6")
"""Options by which a client takes an address, when they are pushed to it."""
INSTEAD = (
    "leave it out, and write the user's name and an address of each slot's pool into the file of "
    "`ifconfig-pool-persist $credential_addresses 0`"
)


def user_files_in(text: str) -> tuple[UserFile, ...]:
    """Return the folders of files for users that a configuration names."""
    options = options_in(text)
    return tuple(UserFile(one.number, one.name, one.value) for one in options if one.name in NAMED_BY)


def addresses_in(text: str) -> Sequence[str]:
    """Return what such a file says of addresses, also in files that it includes and nobody reads."""
    try:
        options = options_in(text)
    except BadInput as error:
        return (f"{error}",)
    included = (
        f"line {one.number}: config brings lines that are not read; write them out"
        for one in options
        if one.name == "config"
    )
    return (*given_in(options), *included)


def given_in(options: Iterable[Option]) -> Iterator[str]:
    """Yield each option that gives users an address, which is of one slot's pool at most, and what to do."""
    for option, giving in _giving(options):
        name = giving.name if giving is option else f"push {giving.name}"
        yield f"line {option.number}: {name} gives the same address in every slot; {INSTEAD}"


def networks_in(text: str) -> Sequence[IPv4Network | IPv6Network]:
    """Return the addresses that such a file gives, each as a network, as far as it can be read."""
    found = list[IPv4Network | IPv6Network]()
    with suppress(BadInput):
        for _, giving in _giving(options_in(text)):
            with suppress(ValueError):
                found.append(ip_network(ip_interface(" ".join(giving.words[:1])).ip))
    return found


def _giving(options: Iterable[Option]) -> Iterator[tuple[Option, Option]]:
    """Yield each option that gives an address, with itself, or with the one that it pushes."""
    for option in options:
        sent = pushed(option)
        if option.name in GIVING:
            yield option, option
        elif sent is not None and sent.name in TAKEN:
            yield option, sent


def pushed(option: Option) -> Option | None:
    """Return the option that clients are sent, read as they read it."""
    if option.name != "push" or not option.words:
        return None
    try:
        return next(iter(options_in(option.words[0])), None)
    except BadInput:
        return None
