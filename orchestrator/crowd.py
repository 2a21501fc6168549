"""Whose an address is, as far as can be told: who has a network of IPv6 has all of its addresses."""

from ipaddress import IPv6Address, ip_address, ip_network

_NEIGHBOURS = 64
"""Bits of an IPv6 address that a host cannot choose by itself."""


def is_this_host(host: str) -> bool:
    """Return whether this is an address of this host; a name leads anywhere, also `127.example.org`."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def crowd_of(address: str) -> str:
    """Return the address, or the network that a host fills alone; what is no address stays as it is."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, IPv6Address) and found.ipv4_mapped is None:
        return str(ip_network((found, _NEIGHBOURS), strict=False))
    return address
