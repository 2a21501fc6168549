"""The sessions of a charon, as `list-sas` tells them: each established IKE_SA is one."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address

from activities.drivers.daemon.strongswan.control import SecurityAssociation

LIVE = ("ESTABLISHED", "REKEYING")
"""States in which a peer has been let in; one that was rekeyed has a successor, which is listed, too."""
ASKS = ("CREATED", "CONNECTING")
_COMMON_NAME = re.compile(r"(?:^|, )CN=(.+?)(?=, [A-Za-z0-9][A-Za-z0-9.]*=|$)", re.DOTALL)
"""It may have commas of its own, which charon prints as they are: `CN=Maier, Anna`."""

LOST = "?"
"""What charon prints in place of each byte of a name that isprint(3) does not know: all beyond ASCII."""

ESP_SPI, IKE_SPI = "esp_spi", "ike_spi"
"""What packets carry: 32 bits of a tunnel's, or 64 of a login's."""


@dataclass(frozen=True)
class Peer:
    """A user, or another site, that has been let in."""

    id: str
    name: str
    address: IPv4Address | IPv6Address
    port: int
    vpn_address: str
    """Its address in the tunnel; empty for a site, which brings networks of its own."""
    since: datetime
    numbers: tuple[tuple[str, int], ...] = ()
    """The SPIs in what it sends: of IKE, and of each of its tunnels."""

    @property
    def has_tunnel(self) -> bool:
        """Whether it has a tunnel; charon keeps a login to which it refused one."""
        return any(name == ESP_SPI for name, _ in self.numbers)


def peers_in(listed: Iterable[SecurityAssociation], now: datetime | None = None) -> tuple[Peer, ...]:
    """Return who has been let in.

    Raises:
        ValueError: It is not what strongSwan 5.9 says.
        KeyError: Something is missing.
    """
    at = now or datetime.now(UTC)
    return tuple(
        Peer(
            id=one["uniqueid"].decode(),
            name=name_of(one.get("remote-eap-id", one["remote-id"]).decode()),
            address=ip_address(one["remote-host"].decode()),
            port=int(one["remote-port"]),
            vpn_address=next((address.decode() for address in one.get("remote-vips", ())), ""),
            since=at - timedelta(seconds=int(one["established"])),
            numbers=(
                (IKE_SPI, int(one["initiator-spi"], 16)),
                *(
                    (ESP_SPI, int(child["spi-in"], 16))
                    for child in one["child-sas"].values()
                    if "spi-in" in child
                ),
            ),
        )
        for one in listed
        if one["state"].decode() in LIVE
    )


def logging_in(listed: Iterable[SecurityAssociation]) -> frozenset[IPv4Address | IPv6Address]:
    """Return from where somebody asks to be let in.

    Raises:
        ValueError: It is not what strongSwan 5.9 says.
        KeyError: Something is missing.
    """
    asks = [one["remote-host"] for one in listed if one["state"].decode() in ASKS]
    return frozenset(ip_address(address.decode()) for address in asks)


def name_of(identity: str) -> str:
    """Return the user's name of an IKE identity: the common name of a certificate, else all of it.

    A directory's subject has more of them, such as `CN=Users`; the user's is the farthest from the root.
    """
    found = list(_COMMON_NAME.finditer(identity))
    if not found:
        return identity
    root_is_last = ", DC=" in identity[found[-1].end() :]
    return found[0 if root_is_last else -1][1]
