"""Quarantine: whether the only reason is over for which a gateway is left out of changes."""

from datetime import datetime

from policies.drift import astray
from policies.incomplete_ends import Answer
from policies.model.change import Quarantine
from policies.model.operation import BREAK_GLASS
from policies.model.plan import ReleaseRef


def is_over(quarantine: Quarantine, answer: Answer, known_good: ReleaseRef, began: datetime) -> bool:
    """Return whether the only reason of a quarantine is over.

    Only break-glass leaves out a gateway because it is not on its known-good: that is over once the gateway
    is on it, whether the gateway or its known-good has moved. An operator's quarantine lasts until an
    operator ends it, and what penstock could not bring back is tried again by a change.

    Args:
        quarantine: As it was written down.
        answer: What the gateway answered last, and when it was asked.
        known_good: What the gateway goes back to.
        began: When the change began that moved its known-good last. What the gateway answered before that, or
            before it was left out, is no evidence.
    """
    is_fresh = answer.at > max(quarantine.since, began)
    return quarantine.person == BREAK_GLASS and is_fresh and astray(answer.state, known_good) is None
