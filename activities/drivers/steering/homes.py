"""Where users of a slot are sent."""

from ipaddress import IPv4Address

from policies.model.fleet import Slot

Home = int | IPv4Address
"""A port of this host, or the address of an instance in a network of its own."""


def home_of(slot: Slot) -> Home:
    """Return where users of the slot are sent."""
    return slot.address or slot.port
