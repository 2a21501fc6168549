"""Decide whether a group's living gateways can carry everybody's sessions while a change is under way.

Old and new instances run side by side on a gateway, so a gateway that is being upgraded
goes on carrying its users. Capacity is lost only where nothing serves: the instance is
dead, or the gateway is silent.
"""

from collections.abc import Collection, Mapping, Sequence
from math import ceil

from policies.words.fleet import Gateway
from policies.words.instance import GatewayState, InstanceState

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


def shortage(
    gateways: Sequence[Gateway],
    sessions: Mapping[str, int | None],
    out: Collection[str],
    headroom: float,
) -> str | None:
    """Return a sentence about the first group that is short of capacity, or None when every group has enough.

    A group has enough when the capacity of its gateways that take users is at least `headroom`
    times its sessions. A gateway whose sessions cannot be counted needs as much as it can carry.

    Args:
        gateways: The gateways of one or more groups, complete.
        sessions: Live sessions by gateway; a missing entry is as unknown as None.
        out: Gateways that take no users now: dead or silent.
        headroom: Capacity wanted per session, 1.0 or more.
    """
    for group in sorted({gateway.group for gateway in gateways}):
        members = [gateway for gateway in gateways if gateway.group == group]
        have = sum(gateway.capacity for gateway in members if gateway.name not in out)
        carried = sum(_need(gateway, sessions) for gateway in members)
        wanted = ceil(headroom * carried - ROUNDING)
        if have < wanted:
            why = _because(members, sessions, out)
            return f"group {group} can carry {have} sessions and needs {wanted}{why}"
    return None


def _need(gateway: Gateway, sessions: Mapping[str, int | None]) -> int:
    known = sessions.get(gateway.name)
    return gateway.capacity if known is None else known


def _because(members: Sequence[Gateway], sessions: Mapping[str, int | None], out: Collection[str]) -> str:
    absent = sorted(gateway.name for gateway in members if gateway.name in out)
    uncounted = sorted(gateway.name for gateway in members if sessions.get(gateway.name) is None)
    reasons = [f"{', '.join(absent)} take no users" if absent else ""]
    reasons += [f"sessions on {', '.join(uncounted)} cannot be counted" if uncounted else ""]
    return "".join(f"; {reason}" for reason in reasons if reason)
