"""Addresses that a configuration sends users to: one that lies in a pool ends with the pool's instance."""

from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import NamedTuple

from policies.model.adoption import OwnLine
from policies.model.fleet import Slot

Network = IPv4Network | IPv6Network


class Pushed(NamedTuple):
    """One address or network that users are sent: a DNS server, a gateway, a route."""

    number: int
    """Of its line; 0 where lines have none."""
    key: str
    what: str
    """Which option of that key it is, such as `dhcp-option DNS` of `push`; may be empty."""
    network: Network

    @property
    def is_host(self) -> bool:
        """Whether it is a single address."""
        return self.network.prefixlen == self.network.max_prefixlen

    def __str__(self) -> str:
        """Return it as texts name it: its line, its option and the address."""
        line = f"line {self.number}, " if self.number else ""
        return f"{line}{self.key} {self.said}"

    @property
    def said(self) -> str:
        """The option and its address; a single one has no length behind it."""
        address = str(self.network.network_address if self.is_host else self.network)
        return f"{self.what} {address}".lstrip()

    def pool_in(self, pools: Iterable[Network]) -> Network | None:
        """Return the pool in which it lies, None where it lies in none."""
        found = self.network
        return next((pool for pool in pools if pool.version == found.version and _within(found, pool)), None)

    def mend(self, pool: Network) -> str:
        """Return what a template says in its place, where it lies in this pool."""
        version = pool.version
        if not self.is_host:
            return "`$pool6`" if isinstance(pool, IPv6Network) else "`$pool4` and `$netmask4`"
        if self.network.network_address == pool[1]:
            return f"`$own{version}`"
        return f"`$own{version}` or an address outside of every pool"


def in_own_pools(pushed: Iterable[Pushed], pools: Iterable[Network | None]) -> Iterator[OwnLine]:
    """Yield the lines of a daemon's own configuration whose addresses end with it, and what mends them."""
    own = [pool for pool in pools if pool is not None]
    for one in pushed:
        if (pool := one.pool_in(own)) is not None:
            reason = f"{one.said} is in its own pool {pool}, which ends with it"
            reason += f"; a template says {one.mend(pool)}"
            yield OwnLine(number=one.number, key=one.key, reason=reason)


def pushed_elsewhere(
    template: Sequence[Pushed],
    config: Sequence[Pushed],
    slot: Slot,
    slots: Sequence[Slot],
    adopted: Slot | None = None,
) -> tuple[str, ...]:
    """Return a sentence for each address that users are sent and that only one instance has.

    Routes to the pools of all slots are deliberate: users of every slot can then reach each other.

    Args:
        template: What the release's template has without a placeholder, which is the same in every slot.
        config: What the instance's own configuration has, with the fleet's settings.
        slot: The instance's slot.
        slots: Every slot of the gateway.
        adopted: The slot of the daemon that was adopted, while it runs.
    """
    routed = [one.network for one in config if not one.is_host]
    pools = [pool for one in slots for pool in one.pools]
    apart = {pool.version for pool in pools if not any(_within(pool, to) for to in routed)}
    owners = [(f"slot {one.name}", one.pools) for one in slots]
    owners += [("the daemon that was adopted", adopted.pools)] if adopted is not None else []
    named = {one.network for one in template}
    settings = [one for one in config if one.network not in named and not one.pool_in(slot.pools)]
    found = [one for one in (*template, *settings) if one.is_host or one.network.version in apart]
    return tuple(
        f"{one} is in the pool {pool} of {owner}, and no other instance has it; write {one.mend(pool)}"
        for one in found
        for owner, theirs in owners
        if (pool := one.pool_in(theirs)) is not None
    )


def _within(inner: Network, outer: Network) -> bool:
    if isinstance(inner, IPv4Network):
        return isinstance(outer, IPv4Network) and inner.subnet_of(outer)
    return isinstance(outer, IPv6Network) and inner.subnet_of(outer)
