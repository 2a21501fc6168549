"""What is true of one gateway's node, and what of it nobody ordered, in sentences."""

from collections.abc import Iterator, Sequence

from activities.drivers.runtime.kubernetes.nodes import Node
from activities.drivers.runtime.kubernetes.pods import Pod, digest_in
from activities.drivers.runtime.kubernetes.words import Share
from policies.model.placement import NodeLook

MOST_TOLD = 16
"""Sentences about one node."""


def look_of(share: Share, gateway: str, name: str, node: Node | None, pods: Sequence[Pod]) -> NodeLook:
    """Return what a cluster says of a gateway's node; None is a node that it does not have."""
    if node is None:
        left = [f"{pod.name} is left of {name}, which the cluster does not have any more" for pod in pods]
        return NodeLook(gateway=gateway, there=False, ready=False, strange=tuple(left[:MOST_TOLD]))
    return NodeLook(
        gateway=gateway,
        ready=node.ready,
        cordoned=node.cordoned,
        slots=tuple(sorted(node.slots(share))),
        instances=_instances(share, pods),
        strange=tuple(_strange(share, gateway, node, pods))[:MOST_TOLD],
        boot=node.boot,
    )


def _instances(share: Share, pods: Sequence[Pod]) -> dict[str, str]:
    """Return the pod in each slot; one that is to stay counts for more than one that ends."""
    ending_first = sorted(pods, key=lambda pod: not pod.ending)
    return {pod.slot: pod.uid for pod in ending_first if pod.slot in share.slots}


def _strange(share: Share, gateway: str, node: Node, pods: Sequence[Pod]) -> Iterator[str]:
    """Yield what nobody ordered, and what is missing although somebody did."""
    if foreign := node.lacks(share, gateway):
        yield foreign
    if not node.epoch(share) and pods:
        yield f"{node.name} bears no label of ours and has instances: it was registered anew, or cleared"
    yield from _changed_by_others(share, node)
    for pod in pods:
        yield from _unordered(share, node, pod)
    for slot in sorted(node.slots(share) - {pod.slot for pod in pods}):
        yield f"{node.name} is given slot {slot} and has no instance of it"


def _changed_by_others(share: Share, node: Node) -> Iterator[str]:
    given, ordered = node.slots(share), node.ordered(share)
    for slot in sorted(ordered - given):
        yield f"somebody took slot {slot} from {node.name}: label {share.given(slot)} is gone"
    for slot in sorted(given - ordered):
        yield f"somebody gave slot {slot} to {node.name}: nobody ordered label {share.given(slot)}"


def _unordered(share: Share, node: Node, pod: Pod) -> Iterator[str]:
    given = pod.slot in node.slots(share)
    if given and pod.ending:
        yield f"{pod.name} was told to end in slot {pod.slot} of {node.name}, and not by us"
    if pod.given and pod.asked != share.image(pod.given):
        yield f"{pod.name} of {node.name} is to run {pod.asked}, and its slot was given {pod.given}"
    if pod.runs and (asked := digest_in(pod.asked)) and pod.runs != asked:
        yield f"{pod.name} of {node.name} runs {pod.runs} by its node's word, and is to run {asked}"
    if pod.beside:
        more = " and ".join(pod.beside)
        yield f"{pod.name} of {node.name} has {more} beside its daemon, which nobody has signed"
    if not given and not pod.ending:
        yield f"{pod.name} runs in slot {pod.slot} of {node.name}, which is not given it"
