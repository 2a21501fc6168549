"""Pools of what runs that are others than the fleet's file says, and which of them a reload brings."""

from collections.abc import Iterable, Iterator, Mapping

from policies.drift import disagreements
from policies.model.fleet import Fleet, Gateway
from policies.model.instance import GatewayState, InstanceState
from policies.model.value import Value
from policies.pools import Network, has_grown

FOUR, SIX = 4, 6
"""Versions of IP."""
POOLS = frozenset({"pool4", "pool6"})
"""How the fleet's file calls them."""
WITH_A_LARGER_POOL = (
    "sessions of now go on in the larger pool, but one whose connection breaks comes back with another "
    "address, for which openconnect ends it: only an upgrade, to a slot with such a pool, spares them that"
)
"""What a plan says of it."""


class OtherPool(Value):
    """A pool that an instance has, and the one that the fleet's file gives its slot; None for none."""

    slot: str
    version: int
    before: Network | None
    after: Network | None

    @property
    def key(self) -> str:
        """How the fleet's file calls it."""
        return f"pool{self.version}"

    @property
    def has_grown(self) -> bool:
        """Whether an instance takes it while it runs."""
        if self.before is None or self.after is None or self.version != FOUR:
            return False
        return has_grown(self.before, self.after)


def other_pools(gateway: Gateway, state: GatewayState) -> tuple[OtherPool, ...]:
    """Return the pools that differ, of what runs and tells what it has."""
    has = {one.slot: one.pools for one in state.instances if one.state is InstanceState.RUNNING and one.pools}
    return tuple(
        OtherPool(slot=slot.name, version=version, before=before, after=after)
        for slot in gateway.slots
        if slot.name in has
        for version in (FOUR, SIX)
        if (before := _of(version, has[slot.name])) != (after := _of(version, slot.pools))
    )


def in_the_way(fleet: Fleet, states: Mapping[str, GatewayState], names: Iterable[str]) -> tuple[str, ...]:
    """Return, a sentence each, why these gateways cannot be given by a reload what the fleet's file says."""
    return tuple(sentence for name in names for sentence in _in_the_way(fleet.gateway(name), states[name]))


def _in_the_way(gateway: Gateway, state: GatewayState) -> Iterator[str]:
    """Yield first where the two files differ: the agent's says what its host would do."""
    runs = [one.slot for one in state.instances if one.state is InstanceState.RUNNING]
    differing = [
        said
        for said in disagreements(gateway, state.described)
        if said.startswith(tuple(f"slot {one}:" for one in runs))
    ]
    for said in differing:
        yield f"{gateway.name}: {said}; have both say the same, and restart its agent, which ends no session"
    if differing:
        return
    for one in other_pools(gateway, state):
        if not one.has_grown:
            users = state.instance(one.slot).sessions
            yield (
                f"{gateway.name}: slot {one.slot} has {'unknown' if users is None else users} sessions and "
                f"{one.key} {one.before or 'none'}, and what runs takes a larger pool that begins there, "
                f"not {one.after or 'none'}: give that to a slot in which nothing runs, and bring a release "
                "there with `penstock upgrade start`"
            )


def _of(version: int, pools: Iterable[Network]) -> Network | None:
    return next((pool for pool in pools if pool.version == version), None)
