"""Decide how long a wave takes: switching, observing and the way back; drains never count.

A drain goes on after the closing, as it may always; a wave that begins too late would be judged after it.
"""

from datetime import timedelta

from policies.model.plan import Plan
from policies.planning.summary import SWITCH_LONGEST, switching_expected

BACK = timedelta(minutes=5)
"""What the way back of a wave takes: seconds where gateways answer, and some that are tried again."""


def needed_for(plan: Plan, wave: int) -> timedelta:
    """Return how long before a closing that wave has to begin, beside the fleet's `min_tail`.

    Switching counts as usual, with one gateway that takes its longest; observing as long as it lasts before
    a person is asked. A wave where several gateways take their longest goes over the closing, and
    `on_window_close` says what becomes of it.
    """
    found = next((one for one in plan.waves if one.number == wave), None)
    if found is None:
        return timedelta(0)  # a plan that changes nothing
    return switching_expected(plan, found) + SWITCH_LONGEST + plan.window.cap + BACK
