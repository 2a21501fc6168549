"""Which source addresses have a live session where, so that whoever comes back finds it."""

from collections import Counter
from collections.abc import Collection
from ipaddress import IPv4Address, IPv6Address, ip_address

from activities.drivers.daemon.port import Session
from activities.drivers.steering.orders import Sessions

Address = IPv4Address | IPv6Address


def homes_of(live: Sessions, proxies: Collection[Address] = ()) -> dict[Address, str]:
    """Map each address to the slot where most of its sessions live: neighbours may share it.

    A proxy's address is nobody's: who comes through it next is somebody else. A login that failed pins
    nothing: its user's next one goes where new sessions go.
    """
    found: dict[Address, Counter[str]] = {}
    for name, sessions in live.items():
        for session in sessions or ():
            if session.worked and (address := ip_address(session.remote_address)) not in proxies:
                found.setdefault(address, Counter())[name] += 1
    return {address: slots.most_common(1)[0][0] for address, slots in found.items()}


def refused_at(sessions: Collection[Session]) -> frozenset[Address]:
    """Return the addresses from which logins failed and no session works."""
    failed = {ip_address(session.remote_address) for session in sessions if not session.worked}
    return frozenset(failed - {ip_address(session.remote_address) for session in sessions if session.worked})
