"""Decide whether a group's living gateways can carry everybody's sessions while a change is under way.

Old and new instances run side by side on a gateway, so a gateway that is being upgraded
goes on carrying its users. Capacity is lost only where nothing serves: the instance is
dead, or the gateway is silent. A gateway that is compared with itself (blue-green, shares)
cannot lean on the others: either instance may have to take all of its users.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from math import ceil

from policies.model.fleet import Fleet, Gateway
from policies.model.instance import GatewayState, InstanceState
from policies.model.plan import Plan, Progress
from policies.planning.naming import named

ROUNDING = 1e-9
"""Headroom times sessions may exceed a whole number by less than this without needing one session more."""


def sessions_on(state: GatewayState | None) -> int | None:
    """Return the sessions on a gateway over all its running instances; None when any cannot be counted."""
    if state is None:
        return None
    total = 0
    for instance in state.instances:
        if instance.state is InstanceState.RUNNING:
            if instance.sessions is None:
                return None
            total += instance.sessions
    return total


def takes_users(state: GatewayState | None) -> bool:
    """Whether the instance that gets new sessions is known to run."""
    serving = state.serving if state else None
    return serving is not None and serving.state is InstanceState.RUNNING


def observed(progress: Progress, states: Mapping[str, GatewayState | None]) -> Progress:
    """Return the progress with what has just been read from these gateways; None is one that was silent."""
    out = {*progress.out} - states.keys() | {name for name, state in states.items() if not takes_users(state)}
    counts = {name: sessions_on(state) for name, state in states.items()}
    return progress.model_copy(
        update={"out": tuple(sorted(out)), "sessions": progress.sessions | counts},
    )


def shortages(fleet: Fleet, sessions: Mapping[str, int | None], out: Collection[str]) -> dict[str, str]:
    """Return a sentence about each group that is short of capacity, by group.

    A group has enough when the capacity of its gateways that take users is at least
    `limits.headroom` times its sessions. A gateway whose sessions cannot be counted needs as much
    as it can carry.

    Args:
        fleet: Its groups, complete.
        sessions: Live sessions by gateway; a missing entry is as unknown as None.
        out: Gateways that take no users now: dead or silent.
    """
    found = {}
    for group, members in fleet.groups.items():
        have = sum(gateway.capacity for gateway in members if gateway.name not in out)
        carried = sum(gateway.needs(sessions.get(gateway.name)) for gateway in members)
        if short := _short(group, have, carried, fleet.limits.headroom):
            found[group] = short + _because(members, sessions, out)
    return found


def waits_for_capacity(plan: Plan, progress: Progress, group: str) -> str | None:
    """Return why nobody more in this group may start, or None when its living gateways carry everybody.

    Takes time for what has changed since the plan only, since it is asked before every batch.
    """
    fleet = plan.fleet
    have, carried = fleet.capacities[group], plan.needs[group]
    have -= sum(gateway.capacity for gateway in _members(fleet, group, {*progress.out}))
    for gateway in _members(fleet, group, progress.sessions):
        then, now = plan.sessions.get(gateway.name), progress.sessions[gateway.name]
        carried += gateway.needs(now) - gateway.needs(then)
    short = _short(group, have, carried, fleet.limits.headroom)
    if short is None:
        return None
    return short + _because(fleet.groups[group], plan.sessions | progress.sessions, {*progress.out})


def crowded(gateway: Gateway, sessions: int | None, headroom: float) -> str | None:
    """Return why the gateway has no room for two instances that may each have to take all its users.

    Its host has to carry its sessions with headroom by itself, and every slot's pool to have an
    address for each of them.
    """
    wanted = _wanted(gateway.needs(sessions), headroom)
    room = min(gateway.capacity, *(_addresses(slot.pool4.num_addresses) for slot in gateway.slots))
    if wanted <= room:
        return None
    why = "; its sessions cannot be counted" if sessions is None else ""
    return f"gateway {gateway.name} has room for {room} sessions in each instance and needs {wanted}{why}"


def _addresses(pool: int) -> int:
    """How many users a pool has addresses for: not its network, broadcast and server address."""
    return max(1, pool - 3)


def _members(fleet: Fleet, group: str, names: Iterable[str]) -> list[Gateway]:
    return [gateway for gateway in map(fleet.gateway, names) if gateway.group == group]


def _wanted(carried: int, headroom: float) -> int:
    return ceil(headroom * carried - ROUNDING)


def _short(group: str, have: int, carried: int, headroom: float) -> str | None:
    wanted = _wanted(carried, headroom)
    return None if have >= wanted else f"group {group} can carry {have} sessions and needs {wanted}"


def _because(members: Sequence[Gateway], sessions: Mapping[str, int | None], out: Collection[str]) -> str:
    absent = [gateway.name for gateway in members if gateway.name in out]
    uncounted = [gateway.name for gateway in members if sessions.get(gateway.name) is None]
    reasons = [f"{named(absent)} take no users" if absent else ""]
    reasons += [f"sessions on {named(uncounted)} cannot be counted" if uncounted else ""]
    return "".join(f"; {reason}" for reason in reasons if reason)
