"""Decide whether a group's living gateways can carry everybody's sessions while a change is under way.

Old and new instances run side by side on a gateway, so a gateway that is being upgraded
goes on carrying its users. Capacity is lost only where nothing serves: the instance is
dead, or the gateway is silent. A gateway that is compared with itself (blue-green, shares)
cannot lean on the others: either instance may have to take all of its users.

Each user gets an address from the pool of one slot. When the old instance has drained, all users of a
gateway have an address of the new instance's slot, so that pool needs one for each of them.
"""

from collections.abc import Collection, Container, Mapping, Sequence
from math import ceil
from typing import NamedTuple

from policies.model.adoption import ADOPTED
from policies.model.fleet import Fleet, Gateway, Slot
from policies.model.instance import GatewayState, InstanceState
from policies.model.plan import Plan
from policies.planning.naming import named

ROUNDING = 1e-9
"""Headroom times sessions may exceed a whole number by less than this without needing one session more."""


class Load(NamedTuple):
    """What counts of a gateway: whether it is known to take users, its sessions, and its next slot.

    `sessions` is None when uncounted, `target` when no slot is known to be free.
    """

    takes_users: bool = False
    sessions: int | None = None
    target: str | None = None


UNKNOWN = Load()


def load_of(state: GatewayState) -> Load:
    """Return whether the instance that gets new sessions runs, and the sessions over all that run."""
    serving = state.serving
    counts = [one.sessions for one in state.instances if one.state is InstanceState.RUNNING]
    counted = [sessions for sessions in counts if sessions is not None]
    return Load(
        takes_users=serving is not None and serving.state is InstanceState.RUNNING,
        sessions=sum(counted) if len(counted) == len(counts) else None,
        target=target_of(state),
    )


def target_of(state: GatewayState) -> str | None:
    """Return the slot in which the host starts the next instance; None when none is free now.

    It is chosen as the host does: the first one without an instance, else the first one without users.
    """
    taken = (state.steering.serving, state.steering.trial, ADOPTED)
    free = [one for one in state.instances if one.slot not in taken]
    idle = [one.slot for one in free if one.state is not InstanceState.RUNNING]
    empty = [one.slot for one in free if one.sessions == 0]
    return next(iter(idle or empty), None)


def shortage(
    fleet: Fleet, group: str, loads: Mapping[str, Load], quarantined: Container[str] = ()
) -> str | None:
    """Return a sentence about a group that is short of capacity, None when its gateways carry everybody.

    They do when the capacity of those that take users is at least `limits.headroom` times the
    group's sessions. A gateway whose sessions cannot be counted needs as much as it can carry, and one
    of which nothing is known takes no users, besides.

    Args:
        fleet: Its groups, complete.
        group: One of them.
        loads: What is known of the gateways now.
        quarantined: Gateways in quarantine, which carry their own users and nobody else's; of one that
            takes none, only those that are known count: the others have gone elsewhere. More than it
            can carry never count: whoever put it there no longer believes it.
    """
    members, have, carried = fleet.groups[group], 0, 0
    for gateway in members:
        load = loads.get(gateway.name, UNKNOWN)
        if gateway.name in quarantined:
            own = min(load.sessions or 0, gateway.capacity)
            carried += min(gateway.needs(load.sessions), gateway.capacity) if load.takes_users else own
            have += own if load.takes_users else 0
            continue
        carried += gateway.needs(load.sessions)
        have += gateway.capacity if load.takes_users else 0
    wanted = _wanted(carried, fleet.limits.headroom)
    if have >= wanted:
        return None
    why = _because(members, loads, quarantined)
    return f"group {group} can carry {have} sessions and needs {wanted}{why}"


def waits_for_capacity(
    plan: Plan,
    names: Collection[str],
    loads: Mapping[str, Load],
    quarantined: Container[str] = (),
) -> dict[str, str]:
    """Return which of these gateways of a plan may not start now, each with why; asked before every start.

    Nobody starts in a group that is short of capacity, and nobody who is compared with itself without
    room for two instances that may each have to take all its users. No gateway starts whose next slot has
    fewer addresses than the gateway has users.
    """
    fleet = plan.fleet
    groups = {fleet.gateway(name).group for name in names}
    short = {group: shortage(fleet, group, loads, quarantined) for group in groups}
    found: dict[str, str] = {}
    for name in names:
        gateway = fleet.gateway(name)
        why = short[gateway.group]
        if why is None and plan.waves[plan.wave_of[name] - 1].compared_with_itself:
            why = crowded(gateway, loads.get(name, UNKNOWN).sessions, fleet.limits.headroom)
        why = why or cramped(gateway, loads.get(name, UNKNOWN))
        if why is not None:
            found[name] = why
    return found


def crowded(gateway: Gateway, sessions: int | None, headroom: float) -> str | None:
    """Return why the gateway has no room for two instances that may each have to take all its users.

    Its host has to carry its sessions with headroom by itself, and every slot's pool to have an
    address for each of them.
    """
    wanted = _wanted(gateway.needs(sessions), headroom)
    room = min(gateway.capacity, *map(addresses_in, gateway.slots))
    if wanted <= room:
        return None
    why = "; its sessions cannot be counted" if sessions is None else ""
    return f"gateway {gateway.name} has room for {room} sessions in each instance and needs {wanted}{why}"


def cramped(gateway: Gateway, load: Load) -> str | None:
    """Return why the next slot has too few addresses for the gateway's users; None when it has enough.

    Where it is not known which slot comes next, the smallest one counts. Of a gateway whose sessions are
    uncounted the plan warns, and its group needs room for all that the gateway can carry.
    """
    slots = [slot for slot in gateway.slots if slot.name == load.target] or gateway.slots
    slot = min(slots, key=addresses_in)
    room = addresses_in(slot)
    if load.sessions is None or load.sessions <= room:
        return None
    return (
        f"slot {slot.name} of {gateway.name} has addresses for {room} users and the gateway has "
        f"{load.sessions} sessions; enlarge the slot's pool"
    )


def addresses_in(slot: Slot) -> int:
    """Return for how many users the slot has addresses, of each family that it gives them.

    Daemons keep a pool's first, second and last address: of the network, of the server, of the broadcast
    (ocserv's `ip-lease.c`, OpenVPN's `topology subnet`, the range that strongSwan's template is given).
    """
    return min(max(1, pool.num_addresses - 3) for pool in slot.pools)


def _wanted(carried: int, headroom: float) -> int:
    return ceil(headroom * carried - ROUNDING)


def _because(members: Sequence[Gateway], loads: Mapping[str, Load], quarantined: Container[str]) -> str:
    found: dict[str, list[str]] = {}
    for gateway in members:
        if why := _in_doubt(gateway, loads.get(gateway.name), gateway.name in quarantined):
            found.setdefault(why, []).append(gateway.name)
    return "".join(f"; {why} {named(names)}" for why, names in found.items())


def _in_doubt(gateway: Gateway, load: Load | None, quarantined: bool) -> str | None:
    """Return why a gateway carries less than it could, or needs more than it has sessions."""
    if load is None:
        return "nothing is known of"
    if not load.takes_users:
        return "nothing serves on"
    if quarantined:
        return "in quarantine:"
    if load.sessions is None:
        return "sessions cannot be counted on"
    return "more sessions than capacity on" if load.sessions > gateway.capacity else None
