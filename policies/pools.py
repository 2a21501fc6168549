"""Whether a gateway's host, or another gateway, has other uses for the addresses that it gives to users."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from itertools import chain, islice
from typing import NamedTuple

from policies.model.fleet import Fleet, Gateway, Slot
from policies.model.value import Value

Address = IPv4Address | IPv6Address
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


def has_grown(before: Network, after: Network) -> bool:
    """Whether the pool has all addresses that it had, and more behind them.

    What it begins with is the daemon's own address, which those have as their gateway who are logged in.
    """
    return before.network_address == after.network_address and before.prefixlen > after.prefixlen


def pools_in_use(
    gateway: Gateway, routes: Iterable[Route], slots: Iterable[Slot] | None = None
) -> tuple[str, ...]:
    """Return one sentence for each of these slots, or of all, whose pool the host has another use for.

    Users' own routes lead to the slots' devices and are no other use. A wider route through another router
    is none either: the tunnels' routes are narrower and win. A default route is the widest of these.
    """
    ours = tuple(slot.device for slot in gateway.slots)
    return tuple(
        f"the pool {pool} of slot {slot.name} of {gateway.name} overlaps the host's route to "
        f"{route.network} on {route.device}; give the slot a pool of its own, or remove the route"
        for pool, slot, route in _in_use(gateway.slots if slots is None else slots, ours, routes)
    )


def own_pools_in_use(own: Slot, gateway: Gateway, routes: Iterable[Route]) -> tuple[str, ...]:
    """Return a sentence for each pool of the gateway's own daemon that the host has another use for."""
    ours = tuple(slot.device for slot in (own, *gateway.slots))
    return tuple(
        f"its pool {pool} overlaps the host's route to {route.network} on {route.device} of {gateway.name}; "
        "give the daemon a pool of its own, or remove the route"
        for pool, _, route in _in_use((own,), ours, routes)
    )


def shared_pools(fleet: Fleet, own: Mapping[str, Sequence[Network]]) -> dict[str, str]:
    """Return by gateway with whom the pools of a daemon of its own have addresses in common.

    Others are the slots and addresses of other gateways and the pools of their own daemons. Where gateways
    translate their users' addresses, pools may be the same.
    """
    if fleet.nat or not own:
        return {}
    owned = (_range(pool, name, own=True) for name in own for pool in own[name])
    found: dict[str, str] = {}
    begun: list[_Range] = []
    for one in sorted(chain(_described(fleet), owned), key=lambda one: (one.version, one.first, -one.last)):
        begun = [other for other in begun if other.version == one.version and other.last >= one.first]
        for other in begun:
            for its, another in ((one, other), (other, one)):
                if its.own and its.gateway != another.gateway:
                    found.setdefault(its.gateway, f"{its} overlaps {another}")
        begun.append(one)
    return dict(sorted(found.items()))


class _Range(NamedTuple):
    """Addresses, as numbers, that a gateway has, whether for a daemon of its own, and what they are."""

    version: int
    first: int
    last: int
    gateway: str
    own: bool
    addresses: Network | Address
    slot: str

    def __str__(self) -> str:
        if self.own:
            return f"pool {self.addresses} of the daemon on {self.gateway}"
        slot = f"pool {self.addresses} of slot {self.slot}" if self.slot else f"address {self.addresses}"
        return f"{slot} on {self.gateway}"


def _described(fleet: Fleet) -> Iterator[_Range]:
    for gateway in fleet.gateways:
        for slot in gateway.slots:
            yield from (_range(pool, gateway.name, slot.name) for pool in slot.pools)
        for one in gateway.every_address:
            yield _Range(one.version, int(one), int(one), gateway.name, own=False, addresses=one, slot="")


def _range(pool: Network, gateway: str, slot: str = "", *, own: bool = False) -> _Range:
    first, last = int(pool.network_address), int(pool.broadcast_address)
    return _Range(pool.version, first, last, gateway, own, pool, slot)


def _in_use(
    slots: Iterable[Slot], ours: tuple[str, ...], routes: Iterable[Route]
) -> Iterator[tuple[Network, Slot, Route]]:
    """Yield each pool of the slots with the first route that takes it and leads to none of our devices."""
    foreign = [route for route in routes if not route.device.startswith(ours)]
    for slot in slots:
        for pool in slot.pools:
            yield from ((pool, slot, route) for route in islice((r for r in foreign if _takes(r, pool)), 1))


def in_use(pool: Network, routes: Iterable[Route]) -> bool:
    """Whether any of these routes has another use for the pool's addresses."""
    return any(_takes(route, pool) for route in routes)


def _takes(route: Route, pool: Network) -> bool:
    """Whether packets to users of the pool could go along the route, or its addresses be somebody else's."""
    if route.network.version != pool.version:
        return False
    inside = route.network.prefixlen >= pool.prefixlen and route.network.overlaps(pool)
    return inside or (route.connected and not route.answers and route.network.overlaps(pool))
