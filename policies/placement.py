"""Placement: what is wrong with a gateway's node, by its cluster's word; no release is at fault for it."""

from typing import NamedTuple

from policies.model.placement import NodeLook, Placement


class Trouble(NamedTuple):
    """What a cluster says of a node that no order of ours asked for; empty sentences where nothing is."""

    unfit: str = ""
    """Why nothing can be started there now."""
    strange: str = ""
    """What is there without an order, or is missing in spite of one."""

    def __bool__(self) -> bool:
        return any(self)

    def with_reason(self, reason: str) -> str:
        """Return the reason why something failed there, and what is wrong with the node beside it."""
        return "; ".join(said for said in (reason, *self) if said)


def trouble_of(look: NodeLook, place: Placement) -> Trouble:
    """Return what is wrong with the node that is a gateway."""
    strange = "; ".join(look.strange)
    if not look.there:
        return Trouble(f"cluster {place.cluster} has no node {place.node}", strange)
    if not look.ready:
        return Trouble(f"node {place.node} does not report to cluster {place.cluster}", strange)
    if look.cordoned:
        return Trouble(f"{place} is cordoned", strange)
    return Trouble("", strange)
