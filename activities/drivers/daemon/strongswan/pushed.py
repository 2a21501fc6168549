"""What charon sends its users, by a pool's section or its plugin `attr`: servers of names, and networks."""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from ipaddress import ip_address, ip_network

from activities.drivers.daemon.strongswan.settings import options_of
from activities.drivers.daemon.template import lines_of
from policies.pushed import Pushed

_SERVERS = re.compile(
    r"pools\.[^.]+\.(?:dns|nbns|dhcp|server)|charon\.(?:dns|nbns)[12]|charon\.plugins\.attr\.(?:dns|nbns|dhcp)"
)
_NETWORKS = re.compile(r"(?:pools\.[^.]+|charon\.plugins\.attr)\.(?:subnet|split-include)")


def pushed_in(text: str) -> Sequence[Pushed]:
    """Return every address and network that users are sent, of a configuration or a template.

    A value that is a placeholder is left out.
    """
    return tuple(_pushed("\n".join(lines_of(text))))


def _pushed(text: str) -> Iterator[Pushed]:
    for option, value in options_of(text):
        for word in (one.strip() for one in value.split(",")):
            with suppress(ValueError):
                if _SERVERS.fullmatch(option):
                    yield Pushed(0, option, "", ip_network(ip_address(word)))
                elif _NETWORKS.fullmatch(option):
                    yield Pushed(0, option, "", ip_network(word, strict=False))
