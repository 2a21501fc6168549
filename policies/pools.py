"""Whether a gateway's host has other uses for the addresses that its slots give to users."""

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network
from itertools import islice

from policies.model.fleet import Gateway
from policies.model.value import Value

Network = IPv4Network | IPv6Network


class Route(Value):
    """A route of a host: where packets to these addresses go.

    `connected` says that the network is right behind the device, `answers` that the host answers there
    for addresses that are elsewhere (proxy ARP), as gateways do whose pool is a part of their own network.
    """

    network: Network
    device: str
    connected: bool = False
    answers: bool = False


def pools_in_use(gateway: Gateway, routes: Iterable[Route]) -> tuple[str, ...]:
    """Return one sentence for each slot whose pool the host has another use for.

    Users' own routes lead to the slots' devices and are no other use. A wider route through another router
    is none either: the tunnels' routes are narrower and win. A default route is the widest of these.
    """
    routes = tuple(routes)
    ours = tuple(slot.device for slot in gateway.slots)
    return tuple(
        f"the pool {pool} of slot {slot.name} of {gateway.name} overlaps the host's route to "
        f"{route.network} on {route.device}; give the slot a pool of its own, or remove the route"
        for slot in gateway.slots
        for pool in (slot.pool4, slot.pool6)
        if pool is not None
        for route in islice((r for r in routes if _takes(r, pool) and not r.device.startswith(ours)), 1)
    )


def in_use(pool: Network, routes: Iterable[Route]) -> bool:
    """Whether any of these routes has another use for the pool's addresses."""
    return any(_takes(route, pool) for route in routes)


def _takes(route: Route, pool: Network) -> bool:
    """Whether packets to users of the pool could go along the route, or its addresses be somebody else's."""
    if route.network.version != pool.version:
        return False
    inside = route.network.prefixlen >= pool.prefixlen and route.network.overlaps(pool)
    return inside or (route.connected and not route.answers and route.network.overlaps(pool))
