"""Say how long the leases of a wave are, so that renewing them never floods the engine.

Everybody on trial renews three times within a lease, and every draining instance beats beside
that. The engine of one small machine does 130 to 300 steps a second in all (research: scale.md),
so the repeating ones of a fleet stay under 40: larger waves have longer leases. A lease is how long
users stay on a release that nobody watches any more, so it has an end too.
"""

from datetime import timedelta
from math import ceil, floor

from policies.model.errors import Refused
from policies.model.fleet import LONGEST_LEASE

REPEATED = 40.0
"""Steps a second which everything that repeats may take together, over the whole fleet."""

OTHERS = 4.0
"""Of those, what judging and reconciling need."""

BEATS = 8.0
"""Of those, what the beats of drains may take at most."""

SHORTEST_BEAT = timedelta(seconds=30)

RENEWALS = 3
"""How often a lease is renewed within its length: two may fail before it ends."""


def lease_of(gateways: int, draining: int, at_least: timedelta) -> timedelta:
    """Return the lease of so many gateways on trial while so many old instances drain.

    Raises:
        Refused: They would need a longer lease than there may be; the sentence says how many fit.
    """
    rate = _renewals(draining)
    needed = timedelta(seconds=ceil(RENEWALS * gateways / rate))
    # As many as fit is the limit itself: the same sum turned round may differ in its last digit.
    fit = floor(rate * LONGEST_LEASE.total_seconds() / RENEWALS)
    if gateways > fit:
        raise Refused(
            f"{gateways} gateways on trial at once need a lease of {needed}, and {LONGEST_LEASE} is the "
            f"longest: at most {fit} fit into one wave; add steps, or lower limits.draining to {fit}"
        )
    return max(at_least, min(needed, LONGEST_LEASE))


def beat_of(draining: int) -> timedelta:
    """Return how long a drain waits between two beats while so many drain over the whole fleet."""
    return max(SHORTEST_BEAT, timedelta(seconds=ceil(draining / BEATS)))


def steps_per_second(gateways: int, lease: timedelta, draining: int) -> float:
    """Return what renewals and beats of the fleet take of the engine, each second."""
    return RENEWALS * gateways / lease.total_seconds() + draining / beat_of(draining).total_seconds()


def _renewals(draining: int) -> float:
    """The renewals a second that are left beside the beats of so many drains."""
    return REPEATED - OTHERS - draining / beat_of(draining).total_seconds()
