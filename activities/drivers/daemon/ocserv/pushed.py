"""What ocserv sends its users: DNS and NBNS servers, and routes (ocserv(8))."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from ipaddress import ip_address, ip_network

from activities.drivers.daemon.ocserv.config import Line, lines_of
from policies.model.errors import BadInput
from policies.pushed import Pushed

SERVERS = ("dns", "ipv4-dns", "ipv6-dns", "nbns", "ipv4-nbns", "ipv6-nbns")


def pushed_in(text: str) -> Sequence[Pushed]:
    """Return every address and network that users are sent, of a configuration or a template.

    A value that is a placeholder or a word is left out. Nothing is returned of a text that ocserv refuses.
    """
    with suppress(BadInput):
        return tuple(_pushed(lines_of(text)))
    return ()


def _pushed(lines: Sequence[Line]) -> Iterator[Pushed]:
    for line in lines:
        with suppress(ValueError):
            if line.key in SERVERS:
                yield Pushed(line.number, line.key, "", ip_network(ip_address(line.value)))
            elif line.key == "route":
                yield Pushed(line.number, line.key, "", ip_network(line.value, strict=False))
