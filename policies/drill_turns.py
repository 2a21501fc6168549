"""Whose turn it is: which drill on which spare gateway is due, and whether it may begin now."""

from collections.abc import Mapping
from datetime import datetime

from policies.model.fleet import Fleet
from policies.model.value import Value

Past = Mapping[tuple[str, str], datetime]
"""When each drill last began on each gateway."""


class Turn(Value):
    """The drill that may begin now, or why none does."""

    drill: str | None = None
    gateway: str | None = None
    sentence: str


def place_of(fleet: str, gateway: str) -> str:
    """Return how a drill's record names a gateway of a fleet."""
    return f"{fleet[:31].rstrip('.-')}.{gateway[:31].rstrip('.-')}"


def next_turn(
    fleet: Fleet, past: Past, now: datetime, *, open_until: datetime | None, under_way: str | None
) -> Turn:
    """Return the drill that was rehearsed longest ago, if it is due and nothing is in the way.

    Args:
        fleet: Whose.
        past: When what last began where.
        now: The moment.
        open_until: Until when something may begin now; None when nothing may, or no window is declared.
        under_way: The change that goes on.
    """
    if fleet.drills is None:
        return Turn(sentence=f"{fleet.name} names no spare gateway")
    oldest = min(
        (
            (past.get((drill, name)), drill, name)
            for name in fleet.drills.spare
            for drill in fleet.drills.which
        ),
        key=lambda one: (one[0] is not None, one[0] or now),
    )
    last, drill, gateway = oldest
    if last is not None and now - last < fleet.drills.every:
        return Turn(sentence=f"nothing is due: {drill} on {gateway} was rehearsed at {last.isoformat()}")
    if under_way is not None:
        return Turn(sentence=f"{drill} on {gateway} is due, and waits for the end of {under_way}")
    if open_until is None or open_until <= now:
        return Turn(sentence=f"{drill} on {gateway} is due, and waits for a patch window")
    return Turn(drill=drill, gateway=gateway, sentence=f"{drill} on {gateway}")
