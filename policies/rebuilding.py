"""Read from gateways what a ledger has lost: what they serve for good, and which changes they know of.

A ledger that knows none of the changes by which its gateways were last steered is an older copy, or
another installation's. What it calls their known-good is no reason to move anybody.
"""

import re
from collections.abc import Iterable, Mapping

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


def highest_heard(fleet: str, states: Iterable[GatewayState]) -> int:
    """Return the number of the newest change that a gateway of the fleet was steered by; 0 without any."""
    return max((number for state in states if (number := _written_by(fleet, state)) is not None), default=0)


def number_above(heard: int) -> int:
    """Return a number that no change has had, when this is the newest that gateways have heard of."""
    return (heard // GAP + 1) * GAP


def knows_all(newest: int, heard: int) -> bool:
    """Return whether a ledger whose newest change has this number knows every one that gateways heard of."""
    return 0 < newest >= heard


def ahead(fleet: str, states: Mapping[str, GatewayState], newest: int) -> dict[str, str]:
    """Return which gateways were steered by changes after the newest of the ledger, each with by which."""
    found = {name: _written_by(fleet, state) for name, state in states.items()}
    return {
        name: f"was last steered by {fleet}-{number}, of which the ledger knows nothing"
        for name, number in found.items()
        if number is not None and number > newest
    }


def older_than_gateways(unknown: Mapping[str, str]) -> str:
    """Return the sentence for what `ahead` has found; it names the first gateway and counts the others."""
    name, why = min(unknown.items())
    more = f", and {len(unknown) - 1} more were" if len(unknown) > 1 else ""
    return f"the ledger is older than its gateways: {name} {why}{more}"


def _written_by(fleet: str, state: GatewayState) -> int | None:
    """Return the number of the change that wrote the gateway's steering table last."""
    found = re.fullmatch(rf"{re.escape(fleet)}-([0-9]{{1,9}})/.*", state.steering.generation)
    return int(found[1]) if found is not None else None
