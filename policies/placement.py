"""Placement: what is wrong with a gateway's node, by its cluster's word; no release is at fault for it."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from policies.model.instance import GatewayState
from policies.model.placement import NodeLook, Placement

TOLD = 3
"""Gateways whose nodes the reason of a change has room for."""


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


def trouble_of(look: NodeLook, place: Placement, state: GatewayState | None = None) -> Trouble:
    """Return what is wrong with the node that is a gateway; its agent's state says what was proven there."""
    lost = _lost(look, place, state) if state is not None and look.there else ()
    strange = "; ".join([*look.strange, *lost])
    if not look.there:
        return Trouble(f"cluster {place.cluster} has no node {place.node}", strange)
    if not look.ready:
        return Trouble(f"node {place.node} does not report to cluster {place.cluster}", strange)
    if look.cordoned:
        return Trouble(f"{place} is cordoned", strange)
    return Trouble("", strange)


def befallen(
    look: NodeLook, place: Placement, state: GatewayState | None = None, boot: str = ""
) -> tuple[str, ...]:
    """Return what has happened to the node by no order of ours, nothing where its cluster knows of nothing.

    `boot` is the node's boot at an earlier look. A node that is only cordoned has come to no harm.
    """
    unfit, strange = trouble_of(look, place, state)
    cordoned = look.there and look.ready
    anew = f"{place} was started anew" if boot and look.boot not in ("", boot) else ""
    return tuple(said for said in ("" if cordoned else unfit, anew, *strange.split("; ")) if said)


def with_befallen(reason: str, nodes: Mapping[str, str]) -> str:
    """Return the reason of a change with what has happened to its nodes, as far as it does not say so yet."""
    fresh = {name: _unsaid(reason, said) for name, said in sorted(nodes.items())}
    told = [f"{name}: {said}" for name, said in fresh.items() if said]
    more = f"; and to {len(told) - TOLD} more nodes" if len(told) > TOLD else ""
    return f"{reason}; by no order of ours: {'; '.join(told[:TOLD])}{more}" if told else reason


def _unsaid(reason: str, said: str) -> str:
    return "; ".join(one for one in said.split("; ") if one not in reason)


def _lost(look: NodeLook, place: Placement, state: GatewayState) -> Iterator[str]:
    """Yield each proven instance that was taken away; one that crashes stays the same in its cluster.

    A node that was registered anew bears no label that could say that there was one before.
    """
    for instance in state.instances:
        slot, now = instance.slot, look.instances.get(instance.slot, "")
        if not instance.placed:
            continue
        if slot not in look.slots and not look.strange:
            yield f"{place} is not given slot {slot} now: it was registered anew, or its labels were taken"
        elif slot in look.slots and now not in ("", instance.placed):
            yield (
                f"somebody deleted {instance.placed}, which was placed in slot {slot} of "
                f"{look.gateway}: {now} is there instead"
            )
