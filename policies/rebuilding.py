"""Read from gateways what a ledger has lost: what they serve for good, and which changes they know of."""

import re
from collections.abc import Iterable

from policies.model.instance import GatewayState, InstanceState
from policies.model.value import Digest

GAP = 100
"""Numbers are taken up at the next multiple: a host may know of a change that no table names any more."""


def served_for_good(state: GatewayState) -> Digest | None:
    """Return the release that a gateway falls back to when a trial ends; None when nothing runs there."""
    if state.steering.serving is None:
        return None
    instance = state.instance(state.steering.serving)
    return instance.release if instance.state is InstanceState.RUNNING else None


def numbers_from(fleet: str, states: Iterable[GatewayState]) -> int:
    """Return a number that no change of the fleet has had, as far as its gateways know."""
    named = re.compile(rf"{re.escape(fleet)}-([0-9]{{1,9}})/")
    found = (named.match(state.steering.generation) for state in states)
    highest = max((int(one[1]) for one in found if one is not None), default=0)
    return (highest // GAP + 1) * GAP
