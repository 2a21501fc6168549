"""Nodes as the cluster has them, and the patch that gives one a slot or takes it away."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from activities.drivers.runtime.kubernetes.api import MERGE, PAGE, Api, Call
from activities.drivers.runtime.kubernetes.rights import LIST_NODES, PATCH_NODE
from activities.drivers.runtime.kubernetes.words import BETWEEN, FIELD_MANAGER, Share

FEW = 4
"""So many nodes of a large fleet are asked for by name: one list of all of them is megabytes."""


class Extent:
    """How long one list of all of a fleet's nodes or pods was the last time: a page, or many."""

    def __init__(self) -> None:
        self._pages = False

    @property
    def is_long(self) -> bool:
        """Whether it was more than a page."""
        return self._pages

    @property
    def few(self) -> int:
        """How many are asked for by name rather than by one list of all."""
        return FEW if self._pages else 1

    def was(self, length: int) -> None:
        """Note the length of such a list."""
        self._pages = length > PAGE


@dataclass(frozen=True)
class Node:
    """A node as it was read, with the version that a change of it has to name."""

    name: str
    version: str
    labels: Mapping[str, str]
    cordoned: bool
    ready: bool
    boot: str

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> "Node":
        """Return what the API server's object says; what it leaves out is not so."""
        metadata, status = found.get("metadata") or {}, found.get("status") or {}
        conditions = [one for one in status.get("conditions") or () if isinstance(one, dict)]
        ready = any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)
        return cls(
            name=str(metadata.get("name") or ""),
            version=str(metadata.get("resourceVersion") or ""),
            labels={str(key): str(value) for key, value in (metadata.get("labels") or {}).items()},
            cordoned=bool((found.get("spec") or {}).get("unschedulable")),
            ready=ready,
            boot=str((status.get("nodeInfo") or {}).get("bootID") or ""),
        )

    def epoch(self, share: Share) -> int:
        """Return which change owns it; 0 where none does, or where somebody wrote no number there."""
        said = self.labels.get(share.epoch, "")
        return int(said) if said.isascii() and said.isdigit() else 0

    def slots(self, share: Share) -> frozenset[str]:
        """Return which slots it is given."""
        return frozenset(slot for slot in share.slots if self.labels.get(share.given(slot)) == "true")

    def ordered(self, share: Share) -> frozenset[str]:
        """Return which slots we have given it, whatever became of them."""
        said = self.labels.get(share.record, "").split(BETWEEN)
        return frozenset(said) & share.slots.keys()

    def lacks(self, share: Share, gateway: str) -> str:
        """Return in words why it is not this gateway of the fleet, empty where it is."""
        missing = [f"{key}={value}" for key, value in share.bears.items() if self.labels.get(key) != value]
        if missing:
            return f"{self.name} does not bear {' and '.join(missing)}, so it is none of {share.fleet}'s"
        whose = self.labels.get(share.gateway, gateway)
        return "" if whose == gateway else f"{self.name} is gateway {whose} by its label, not {gateway}"


async def read_nodes(api: Api, share: Share, names: Iterable[str], extent: Extent) -> dict[str, Node]:
    """Return those of these nodes that there are, by one list where they are more than a few.

    A stranger has no label of the fleet, and neither has a node that was registered anew: where many are
    missing, one list of the whole cluster says what became of them.

    Raises:
        As `Api.call` does.
    """
    wanted = set(names)
    found = await _fleets(api, share, extent) if len(wanted) > extent.few else {}
    missing = sorted(wanted - found.keys())
    if len(missing) > FEW:
        found |= _by_name(await api.listed(_list({}, ""), Node.of))
    else:
        for name in missing:
            by_name = _list({"fieldSelector": f"metadata.name={name}"}, name)
            found |= _by_name(await api.listed(by_name, Node.of))
    return {name: node for name, node in found.items() if name in wanted}


async def anybody_given(api: Api, share: Share, slot: str) -> tuple[str, ...]:
    """Return the names of three nodes at most that are given this slot; as `read_nodes` raises."""
    query = {"labelSelector": share.given(slot)}
    page = await api.call(_list(query | {"limit": "3"}, f"with {share.given(slot)}"))
    return tuple(sorted(Node.of(one).name for one in page.get("items") or ()))


async def give(api: Api, share: Share, node: Node, slot: str, epoch: int) -> Node:
    """Have the node run the slot, for the change of that epoch; as `_patch` raises."""
    ordered = node.ordered(share) | {slot}
    return await _patch(api, share, node, {share.given(slot): "true"}, ordered, epoch, can_wait=False)


async def take(api: Api, share: Share, node: Node, slot: str, epoch: int) -> Node:
    """Have the node end the slot, for the change of that epoch; as `_patch` raises."""
    ordered = node.ordered(share) - {slot}
    return await _patch(api, share, node, {share.given(slot): None}, ordered, epoch, can_wait=True)


async def _patch(
    api: Api,
    share: Share,
    node: Node,
    change: dict[str, str | None],
    ordered: frozenset[str],
    epoch: int,
    *,
    can_wait: bool,
) -> Node:
    """Change labels of exactly this version of the node, and return what it is then.

    Raises:
        Stale: It has changed since it was read.
        Absent: It is not there any more.
        As `Api.call` does.
    """
    labels = change | {share.epoch: str(epoch), share.record: share.ordered(ordered) or None}
    call = Call(
        PATCH_NODE,
        f"/api/v1/nodes/{node.name}",
        "PATCH",
        query={"fieldManager": FIELD_MANAGER},
        body={"metadata": {"resourceVersion": node.version, "labels": labels}},
        kind=MERGE,
        about=node.name,
        can_wait=can_wait,
    )
    return Node.of(await api.call(call))


async def _fleets(api: Api, share: Share, extent: Extent) -> dict[str, Node]:
    selector = ",".join(f"{key}={value}" for key, value in share.bears.items())
    found = await api.listed(_list({"labelSelector": selector} if selector else {}, ""), Node.of)
    extent.was(len(found))
    return _by_name(found)


def _by_name(found: Iterable[Node]) -> dict[str, Node]:
    return {node.name: node for node in found}


def _list(query: dict[str, str], about: str) -> Call:
    return Call(LIST_NODES, "/api/v1/nodes", query=query, about=about)
