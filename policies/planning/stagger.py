"""Spread the deadlines of a fleet's drains, so that the users whom they end do not all log in at once.

A deadline ends at most its share of the sessions, in batches with pauses. A few gateways at a time
keep the fleet's logins a minute within `drain.logins_per_minute`; the others follow one after the
other. Nobody's deadline is earlier than `drain_deadline`.
"""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from heapq import heapreplace
from math import ceil

from policies.drains import allowance
from policies.model.drain import DrainLimits
from policies.model.fleet import Gateway


def deadlines(
    gateways: Iterable[Gateway],
    sessions: Mapping[str, int | None],
    deadline: timedelta,
    limits: DrainLimits,
) -> dict[str, timedelta]:
    """Return how long after the beginning of the drains each gateway's deadline is.

    Args:
        gateways: Those whose old instances drain, in the order in which their deadlines come.
        sessions: What each drain finds; one that cannot be counted may have all its host can carry.
        deadline: The earliest deadline.
        limits: How each of them ends sessions, and how many logins a minute the fleet may cause.
    """
    free = [deadline] * max(1, limits.logins_per_minute // limits.ended_per_minute)
    found = {}
    for gateway in gateways:
        found[gateway.name] = begins = free[0]
        may_end = allowance(gateway.needs(sessions.get(gateway.name)), limits)
        heapreplace(free, begins + ceil(may_end / limits.batch) * limits.pause)
    return found
