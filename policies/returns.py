"""Returns: how often penstock has brought a gateway back lately, and when it does so again.

What is remembered outlives the quarantine that each return ends: a gateway that leaves its known-good again
as soon as it is back would keep the fleet's lock from every operator.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

from policies.history import pause_after
from policies.model.change import PENSTOCK, Quarantine, Returns
from policies.model.value import Name

REMEMBERED = timedelta(hours=6)
"""How long after the last of them the returns of a gateway count."""

MOST_RELAPSES = 3
"""Returns after which a gateway that leaves its known-good once more is left out of changes.

The pauses that follow are longer than gateways may be off their known-good before operators are paged.
"""


def waits(quarantine: Quarantine | None, returns: Returns | None, at: datetime) -> bool:
    """Return whether reconcile leaves a gateway alone at that time.

    A person's quarantine lasts until a person ends it. Any other gateway is brought back at once, and again
    after pauses of 1, 2, 4 … minutes and then of an hour, whatever became of it in between: one gateway never
    keeps the fleet's lock from the others. Its turn lasts until a change has tried it, however long scans
    take.

    Args:
        quarantine: Of the gateway, None where it takes part in changes.
        returns: What is remembered of it, None where that is nothing.
        at: Now.
    """
    if quarantine is not None and quarantine.person != PENSTOCK:
        return True
    tries = returns.tries if returns is not None else 0
    if quarantine is None and not tries:
        return False
    return at < next_try(quarantine, returns)


def next_try(quarantine: Quarantine | None, returns: Returns | None) -> datetime:
    """Return when penstock may bring back a gateway again that it left out, or brought back before."""
    since = [quarantine.since] if quarantine is not None else []
    since += [returns.last] if returns is not None else []
    return max(since) + pause_after(max(returns.tries if returns is not None else 0, 1))


def relapses_too_often(returns: Returns | None, at: datetime) -> bool:
    """Return whether a gateway has left its known-good so often that it stays left out of changes.

    That lasts until an operator returns it, or it has kept its known-good for hours.
    """
    return returns is not None and returns.relapses > MOST_RELAPSES and at - returns.last < REMEMBERED


def why_left_out(fleet: Name, returns: Returns) -> str:
    """Return that a gateway does not keep its known-good, and what to do about it."""
    return (
        f"it left its known-good again after each of {returns.relapses - 1} returns; penstock brings it back "
        f"at most once an hour and leaves it out of changes until it has stayed there for "
        f"{REMEMBERED // timedelta(hours=1)} hours. Find out on its host what takes it away, then return it: "
        f"penstock gateway return {fleet} {returns.gateway} --reason TEXT"
    )


def not_paged(by_hand: Mapping[Name, str], returns: Mapping[Name, Returns], at: datetime) -> dict[Name, str]:
    """Return those of the gateways steered by hand about which operators were not paged in the last hours."""
    return {name: why for name, why in by_hand.items() if _is_page_due(returns.get(name), at)}


def _is_page_due(returns: Returns | None, at: datetime) -> bool:
    return returns is None or returns.paged is None or at - returns.paged >= REMEMBERED


def is_known(quarantine: Quarantine, returns: Returns | None, began: datetime) -> bool:
    """Return whether it was known before a change began that penstock cannot bring the gateway back.

    Of one that an operator has returned since, the first try in vain is news.

    Args:
        quarantine: Of the gateway.
        returns: What is remembered of it, None where that is nothing.
        began: When the change began that tried it in vain.
    """
    was_tried = not quarantine.handed_over or (returns is not None and returns.tries > 1)
    return quarantine.person == PENSTOCK and quarantine.since < began and was_tried


def noted(
    before: Returns | None, gateway: Name, at: datetime, change: Name | None, *, took_part: bool
) -> Returns:
    """Return what is remembered once a change begins to bring a gateway back, or an operator has steered it.

    A gateway that was not back after the last try has not left its known-good again.

    Args:
        before: What was remembered, None where that was nothing.
        gateway: Its name.
        at: Now.
        change: The change that begins to bring it back, None where it is left to the operator on its host.
        took_part: Whether the gateway took part in changes until now, and left its known-good by itself.
    """
    known = before if before is not None and at - before.last < REMEMBERED else None
    known = known or Returns(gateway=gateway, last=at)
    return known.model_copy(
        update={
            "tries": known.tries + (change is not None),
            "relapses": known.relapses + (took_part and known.came_back),
            "came_back": known.came_back if change is None else False,
            "last": at,
            "change": change or known.change,
            "paged": at if change is None and _is_page_due(known, at) else known.paged,
        }
    )
