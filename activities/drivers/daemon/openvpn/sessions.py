"""The clients of an OpenVPN, as `status 3` tells them: tab-separated rows, whose columns a HEADER names."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address, ip_address

from activities.drivers.daemon.openvpn.prefix import VIA
from activities.drivers.daemon.unread import Unreadable

NO_NUMBER = 2**24 - 1
NOBODY = "UNDEF"
"""What stands in place of a common name, or of a typed name, that there is none of."""
_VIA = re.compile(rf"\A{VIA}")


@dataclass(frozen=True)
class ClientRow:
    """One client that has been let in."""

    id: str
    name: str
    """Its common name; of a client without a certificate the name that it has typed, else `UNDEF`."""
    address: IPv4Address | IPv6Address
    port: int
    vpn_address: str
    since: datetime
    number: int | None
    """Its peer-id, by which the server finds it at another address; a client of 2.3 has none."""


def clients_in(status: Sequence[str]) -> tuple[ClientRow, ...]:
    """Return the clients that were let in; one that logs in has no address in the tunnel yet.

    A client without a certificate has no common name, as long as it is connected.

    Raises:
        ValueError: It is not what OpenVPN 2.4 to 2.7 say.
        KeyError: A column is missing.
    """
    return tuple(
        ClientRow(
            id=row["Client ID"],
            name=row["Username"] if row["Common Name"] == NOBODY else row["Common Name"],
            address=address,
            port=port,
            vpn_address=row["Virtual Address"] or row["Virtual IPv6 Address"],
            since=datetime.fromtimestamp(int(row["Connected Since (time_t)"]), UTC),
            number=number if (number := int(row["Peer ID"])) in range(NO_NUMBER) else None,
        )
        for row in _rows(status)
        if row["Virtual Address"] or row["Virtual IPv6 Address"]
        for address, port in [_real(row["Real Address"])]
    )


def _rows(status: Sequence[str]) -> Iterator[dict[str, str]]:
    columns: Sequence[str] | None = None
    for line in status:
        kind, *fields = line.split("\t")
        if kind == "HEADER" and fields[:1] == ["CLIENT_LIST"]:
            columns = fields[1:]
        elif kind == "CLIENT_LIST":
            if columns is None:
                raise Unreadable("a client before the header of its columns")
            yield dict(zip(columns, fields, strict=True))
    if columns is None:
        raise Unreadable("no list of clients")


def _real(said: str) -> tuple[IPv4Address | IPv6Address, int]:
    """Return address and port of `10.77.0.2:40432`, `fd77::2:40432` or `tcp6-server:[fd77::2]:40432`.

    A mapped IPv4 address is IPv4.
    """
    host, _, port = _VIA.sub("", said).rpartition(":")
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        raise Unreadable("Real Address") from None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address, int(port)
