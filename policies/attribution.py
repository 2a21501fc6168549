"""Whose flow it is: the user, the address that the user really came from, and the instance, of each session.

A gateway behind a proxy sees the proxy's address and one of its ports. The proxy alone knows who came, and
the instance alone knows the user: what both know is the flow between them, by address and port.
"""

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

Address = IPv4Address | IPv6Address
CLOCKS = timedelta(seconds=5)
"""Between two records of the same flow; a proxy gives a port again long after that."""


class End(NamedTuple):
    """One end of a flow."""

    address: Address
    port: int

    def __str__(self) -> str:
        """Return it as logs write it."""
        bare = isinstance(self.address, IPv4Address)
        return f"{self.address}:{self.port}" if bare else f"[{self.address}]:{self.port}"


class Carried(NamedTuple):
    """One flow of a user as a proxy carries it: from whom, and as whom the gateway sees it."""

    client: End
    source: End
    began: datetime
    ended: datetime | None = None
    """None while it lives, and where the proxy was ended in its middle."""


class Held(NamedTuple):
    """One session for as long as it came from one place, as its instance logs it."""

    slot: str
    user: str
    source: End
    vpn_address: str
    began: datetime
    ended: datetime | None = None


class Attributed(NamedTuple):
    """A session and where it really came from; None where no record of a proxy has its flow."""

    held: Held
    client: End | None


def attributed(
    held: Iterable[Held], carried: Iterable[Carried], proxies: Collection[Address]
) -> list[Attributed]:
    """Return each session with the user's own end, which is known of whoever comes through no proxy."""
    by_source: dict[End, list[Carried]] = {}
    for flow in carried:
        by_source.setdefault(flow.source, []).append(flow)
    found = []
    for one in sorted(held, key=lambda session: session.began):
        direct = one.source.address not in proxies
        found.append(Attributed(one, one.source if direct else _client(one, by_source.get(one.source, []))))
    return found


def _client(held: Held, flows: Iterable[Carried]) -> End | None:
    """Return who began the newest of these flows that lived when the session came from there."""
    lived = [
        flow
        for flow in flows
        if flow.began <= held.began + CLOCKS and (flow.ended is None or flow.ended >= held.began - CLOCKS)
    ]
    return max(lived, key=lambda flow: flow.began).client if lived else None
