"""Read from gateways what a ledger has lost: what they serve for good, and which changes they know of.

A gateway that was last steered by a change that the ledger does not know is left alone: what the ledger
calls its known-good is no reason to move it. When so many say so that no thief of a few hosts could, the
ledger is an older copy, or another installation's, and what it says of silent ones counts for nothing either.
"""

import re
from collections.abc import Collection, Iterable, Mapping

from policies.model.instance import GatewayState, InstanceState
from policies.model.value import Digest

GAP = 100
"""Numbers are taken up at the next multiple: a host may know of a change that no table names any more."""


FEW = 10
"""Fewer than one in so many gateways, and one in any case, may be lying hosts."""

MOST_LOST = 1_000_000
"""Changes that a ledger which knows some may have lost; a host that speaks of a later one is not believed."""

LARGEST = 10**9 - 1
"""The last number that a ledger which knows none takes from a host; the table has room for twice as many."""


_NUMBERED = r"(.+)-([0-9]{1,10})"


def served_for_good(state: GatewayState) -> Digest | None:
    """Return the release that a gateway falls back to when a trial ends; None where nothing known runs."""
    if state.steering.serving is None:
        return None
    instance = state.instance(state.steering.serving)
    known = instance.state is InstanceState.RUNNING and instance.executable is not None
    return instance.release if known else None


def highest_heard(fleet: str, states: Iterable[GatewayState], newest: int) -> int:
    """Return the number of the newest change that a gateway of the fleet was steered by; 0 without any.

    `newest` is that of the ledger's newest change: numbers that are too far from it are a liar's.
    """
    last = newest + MOST_LOST if newest else LARGEST
    heard = (steered_by(fleet, state) for state in states)
    return max((number for number in heard if number is not None and number <= last), default=0)


def number_above(heard: int) -> int:
    """Return a number that no change has had, when this is the newest that gateways have heard of."""
    return (heard // GAP + 1) * GAP


def knows_all(newest: int, heard: int) -> bool:
    """Return whether a ledger whose newest change has this number knows every one that gateways heard of."""
    return 0 < newest >= heard


def steered_by(fleet: str, state: GatewayState) -> int | None:
    """Return the number of the change that wrote the gateway's steering table last."""
    found = re.fullmatch(rf"{re.escape(fleet)}-([0-9]{{1,10}})/.*", state.steering.generation)
    return int(found[1]) if found is not None else None


def ahead(fleet: str, states: Mapping[str, GatewayState], newest: int) -> dict[str, str]:
    """Return which gateways were steered by changes after the newest of the ledger, each with by which."""
    found = {name: steered_by(fleet, state) for name, state in states.items()}
    later = {name: number for name, number in found.items() if number is not None and number > newest}
    return unknown_to_ledger(fleet, later)


def unknown_to_ledger(fleet: str, numbers: Mapping[str, int]) -> dict[str, str]:
    """Return what is said of each gateway that the change of this number steered, which the ledger lacks."""
    return {
        name: f"was last steered by {fleet}-{number}, of which the ledger knows nothing"
        for name, number in numbers.items()
    }


def is_older(unknown: Collection[str], answered: int) -> bool:
    """Return whether so many of those that answered are ahead that it is the ledger which is behind."""
    return bool(unknown) and len(unknown) >= min(answered, max(2, answered // FEW))


def older_than_gateways(unknown: Mapping[str, str]) -> str:
    """Return the sentence for what `ahead` has found; it names the first gateway and counts the others."""
    name, why = min(unknown.items())
    more = f", and {len(unknown) - 1} more were" if len(unknown) > 1 else ""
    return f"the ledger is older than its gateways: {name} {why}{more}"


def is_newer(change: str, than: str) -> bool:
    """Return whether the change began after that other one of its fleet; False where that cannot be told."""
    later, earlier = re.fullmatch(_NUMBERED, change), re.fullmatch(_NUMBERED, than)
    if later is None or earlier is None or later[1] != earlier[1]:
        return False
    return int(later[2]) > int(earlier[2])
