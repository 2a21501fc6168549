"""Whether a daemon that serves by itself can be a gateway's first instance, and what slots it would have."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TypeVar

from policies.model.adoption import ADOPTED, MARK, FoundDaemon, FreeSlot
from policies.model.errors import Refused
from policies.model.fleet import Gateway, Slot
from policies.model.plan import ReleaseRef
from policies.model.value import Digest, digest_of
from policies.pools import Route, in_use

N = TypeVar("N", IPv4Network, IPv6Network)

FIRST_PORT = 4431
TRIED = 256
"""Neighbours of a pool that are looked at for a free one."""


def release_of(product: str, version: str, executable: Digest) -> ReleaseRef:
    """Return how plans name what was found running: by its bytes, since no signature says more of it."""
    return ReleaseRef(
        digest=digest_of(f"adopted {product} {version} {executable}".encode()),
        product=product,
        version=f"{version}{MARK}",
        executable=executable,
    )


def is_adopted(release: ReleaseRef) -> bool:
    """Whether the release was found running and verified by nobody."""
    return release.version.endswith(MARK)


def uncounted_logins(known_good: Mapping[str, ReleaseRef]) -> str:
    """Return whose logins are in no metric, empty for no gateway's.

    The exporter reads the logs of slots. A daemon of its own writes to its own place, at its own level.
    """
    found = sorted(name for name, release in known_good.items() if is_adopted(release))
    if not found:
        return ""
    more = f" and {len(found) - 1} more gateways" if len(found) > 1 else ""
    return f"logins to the daemon that was adopted are not counted on {found[0]}{more}"


def is_named_as_found(release: ReleaseRef) -> bool:
    """Whether an agent calls what it found as `release_of` does, and not by the name of a signed release."""
    return release == release_of(release.product, release.version.removesuffix(MARK), release.executable)


def own_daemons(
    gateways: Collection[str], proven: Mapping[str, Sequence[ReleaseRef]]
) -> dict[str, ReleaseRef]:
    """Return what was adopted last on each of these gateways.

    Args:
        gateways: Those that are to be handed back.
        proven: What was known-good on each gateway of the fleet, the newest first.

    Raises:
        Refused: One of them was never adopted.
    """
    own = {name: next(filter(is_adopted, proven.get(name, ())), None) for name in gateways}
    if never := sorted(name for name, release in own.items() if release is None):
        raise Refused(f"{never[0]} was never adopted, so there is no daemon of its own to hand it back to")
    return {name: release for name, release in own.items() if release is not None}


def obstacles_to(own: Slot, gateway: Gateway) -> tuple[str, ...]:
    """Return a sentence for all that the daemon would share with the gateway or with one of its slots."""
    return tuple(_obstacles(own, gateway))


def _obstacles(own: Slot, gateway: Gateway) -> Iterator[str]:
    if own.port != gateway.port:
        yield f"it serves port {own.port}, and the users of {gateway.name} dial {gateway.port}"
    for slot in gateway.slots:
        where = f"slot {slot.name} of {gateway.name}"
        if slot.name == ADOPTED:
            yield f"{where} has the name of what is adopted; give the slot another one"
        if slot.device.startswith(own.device) or own.device.startswith(slot.device):
            yield f"its devices are called {own.device}, those of {where} {slot.device}; rename the slot's"
        for its, pool in ((own.pool4, slot.pool4), (own.pool6, slot.pool6)):
            if its is not None and pool is not None and its.overlaps(pool):
                yield f"its pool {its} overlaps {pool} of {where}; give the slot another pool"


def more_pools_in_use(pools: Iterable[IPv4Network | IPv6Network], gateway: Gateway) -> tuple[str, ...]:
    """Return a sentence for each slot whose pool has addresses that some users of the daemon get.

    Args:
        pools: Networks beside the daemon's own pools.
        gateway: Its gateway.
    """
    return tuple(
        f"some of its users get addresses of {own}, by a file or section of their own, which overlaps {pool} "
        f"of slot {slot.name} of {gateway.name}; give the slot another pool"
        for own in pools
        for slot in gateway.slots
        for pool in slot.pools
        if own.version == pool.version and own.overlaps(pool)
    )


def derived_slots(own: Slot, routes: Iterable[Route]) -> tuple[Slot, ...]:
    """Return two slots beside the daemon's own: with pools as large as its own, next to it, and free."""
    routes = tuple(routes)
    pools4 = _neighbours(own.pool4, routes)
    pools6: Iterable[IPv6Network | None] = _neighbours(own.pool6, routes) if own.pool6 else (None, None)
    names = "ab" if not own.device.startswith("vpna") else "xy"
    return tuple(
        Slot(name=name, port=FIRST_PORT + number, device=f"vpn{name}", pool4=pool4, pool6=pool6)
        for number, (name, pool4, pool6) in enumerate(zip(names, pools4, pools6, strict=False))
    )


def apart(
    found: Sequence[FoundDaemon], taken: Iterable[IPv4Network | IPv6Network]
) -> tuple[FoundDaemon, ...]:
    """Return what hosts found with slots whose pools no other gateway of the fleet has.

    Each host proposes pools next to its own daemon's, and knows of no other gateway: where one of those is
    in use, the next network of its size is taken.

    Args:
        found: What the hosts of a fleet answered.
        taken: The pools of the fleet's other gateways.
    """
    used = [*taken, *(pool for one in found for pool in one.pools)]
    return tuple(
        one.model_copy(update={"slots": tuple(_moved(slot, used) for slot in one.slots)}) for one in found
    )


def _moved(slot: FreeSlot, used: list[IPv4Network | IPv6Network]) -> FreeSlot:
    """Return the slot with pools that are not used yet, which are used from now on."""
    pools = {name: _next(getattr(slot, name), used) for name in ("pool4", "pool6") if getattr(slot, name)}
    return slot.model_copy(update=pools)


def _next(said: str, used: list[IPv4Network | IPv6Network]) -> str:
    pool = ip_network(said)
    for step in range(TRIED):
        address = int(pool.network_address) + step * pool.num_addresses
        if address + pool.num_addresses > 1 << pool.max_prefixlen:
            break
        here = type(pool)((address, pool.prefixlen))
        if not any(here.version == one.version and here.overlaps(one) for one in used):
            used.append(here)
            return str(here)
    used.append(pool)
    return said


def _neighbours(pool: N, routes: tuple[Route, ...]) -> Iterator[N]:
    kind = type(pool)
    room = (1 << pool.max_prefixlen) - int(pool.network_address)
    steps = range(pool.num_addresses, min(TRIED * pool.num_addresses, room), pool.num_addresses)
    found = (kind((int(pool.network_address) + step, pool.prefixlen)) for step in steps)
    return (network for network in found if not in_use(network, routes))
