"""Which source addresses have a live session where, so that whoever comes back finds it."""

from collections import Counter
from ipaddress import IPv4Address, IPv6Address, ip_address

from activities.drivers.steering.orders import Sessions

Address = IPv4Address | IPv6Address


def homes_of(live: Sessions) -> dict[Address, str]:
    """Map each address to the slot where most of its sessions live: neighbours may share it."""
    found: dict[Address, Counter[str]] = {}
    for name, sessions in live.items():
        for session in sessions or ():
            found.setdefault(ip_address(session.remote_address), Counter())[name] += 1
    return {address: slots.most_common(1)[0][0] for address, slots in found.items()}
