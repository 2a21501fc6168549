"""Pods of the slots as the kubelets report them: which one, of which image, whether ready, and why not."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from activities.drivers.runtime.kubernetes.api import Api, Call
from activities.drivers.runtime.kubernetes.nodes import Extent
from activities.drivers.runtime.kubernetes.rights import LIST_PODS
from activities.drivers.runtime.kubernetes.words import FLEET, IMAGE, SLOT, Share
from policies.model.value import sentence


@dataclass(frozen=True)
class Pod:
    """One pod in one slot of one node."""

    name: str
    uid: str
    node: str
    slot: str
    owner: str
    """The DaemonSet that made it; empty for what else bears our labels, as a mirror pod may."""
    asked: str
    """The image that it is to run, as its template had it when it was made."""
    given: str
    """The digest that we had given its template then; empty where it had none of ours."""
    beside: tuple[str, ...]
    """Containers that it has beside the daemon's, of whatever kind."""
    runs: str
    """The digest of the image that the kubelet says it runs; empty while it says none."""
    ready: bool
    ending: bool
    """Whether it was told to end."""
    ends_by: str
    """When its grace is over, as the API server writes it."""
    why: str
    """What the cluster says of a pod that is not ready."""
    started_at: datetime | None

    @classmethod
    def of(cls, found: Mapping[str, Any], container: str) -> "Pod":
        """Return what the API server's object says of the pod and of this container of it."""
        metadata, spec = found.get("metadata") or {}, found.get("spec") or {}
        status = found.get("status") or {}
        labels = metadata.get("labels") or {}
        own = named(spec.get("containers"), container)
        state = named(status.get("containerStatuses"), container)
        ready = [one for one in mappings(status.get("conditions")) if one.get("type") == "Ready"]
        return cls(
            name=str(metadata.get("name") or ""),
            uid=str(metadata.get("uid") or ""),
            node=str(spec.get("nodeName") or _meant_for(spec)),
            slot=str(labels.get(SLOT) or ""),
            owner=_owner(metadata.get("ownerReferences")),
            asked=str(own.get("image") or ""),
            given=str((metadata.get("annotations") or {}).get(IMAGE) or ""),
            beside=beside(spec, container),
            runs=digest_in(str(state.get("imageID") or "")),
            ready=any(one.get("status") == "True" for one in ready),
            ending=bool(metadata.get("deletionTimestamp")),
            ends_by=str(metadata.get("deletionTimestamp") or ""),
            why=_why(status, state),
            started_at=_moment(((state.get("state") or {}).get("running") or {}).get("startedAt")),
        )


async def read_pods(
    api: Api, share: Share, asked: Iterable[tuple[str, str]], extent: Extent, *, can_wait: bool = False
) -> dict[tuple[str, str], tuple[Pod, ...]]:
    """Return the pods of each node and slot; an empty slot is asked for to mean every one.

    Only those count that a slot's own DaemonSet has made: whoever may make pods can give them any label.
    A few nodes are asked for by name, more by one list of the slots: a pod is 5 kB, of thousands in a fleet.

    Raises:
        As `Api.call` does.
    """
    wanted = set(asked)
    nodes, slots = {node for node, _ in wanted}, {slot for _, slot in wanted}
    selector = f"{FLEET}={share.fleet}"
    if "" not in slots:
        selector += f",{SLOT} in ({','.join(sorted(slots))})"
    found: list[Pod] = []
    if len(nodes) > extent.few:
        found = await _list(api, share, {"labelSelector": selector}, "", can_wait=can_wait)
        if "" in slots:  # of one slot there are few pods while it fills, however large the fleet is
            extent.was(len(found))
    else:
        for node in sorted(nodes):
            query = {"labelSelector": selector, "fieldSelector": f"spec.nodeName={node}"}
            found += await _list(api, share, query, f"of {node}", can_wait=can_wait)
    of_node: dict[str, list[Pod]] = defaultdict(list)
    for pod in found:
        of_node[pod.node].append(pod)
    return {
        (node, slot): tuple(pod for pod in of_node[node] if slot in ("", pod.slot)) for node, slot in wanted
    }


async def any_pods(api: Api, share: Share, slot: str) -> tuple[str, ...]:
    """Return the nodes of some pods of this slot, wherever they are; as `read_pods` raises."""
    query = {"labelSelector": f"{FLEET}={share.fleet},{SLOT}={slot}", "limit": "3"}
    call = Call(LIST_PODS, f"/api/v1/namespaces/{share.namespace}/pods", query=query, about=f"of slot {slot}")
    page = await api.call(call)
    some = _made((Pod.of(one, share.container) for one in mappings(page.get("items"))), share)
    if not some and (page.get("metadata") or {}).get("continue"):  # strangers' stand before them
        some = await _list(api, share, {"labelSelector": query["labelSelector"]}, f"of slot {slot}")
    return tuple(sorted({pod.node for pod in some})[:3])


async def _list(
    api: Api, share: Share, query: dict[str, str], about: str, *, can_wait: bool = False
) -> list[Pod]:
    path = f"/api/v1/namespaces/{share.namespace}/pods"
    call = Call(LIST_PODS, path, query=query, about=about, can_wait=can_wait)
    return _made(await api.listed(call, lambda one: Pod.of(one, share.container)), share)


def _made(found: Iterable[Pod], share: Share) -> list[Pod]:
    """Return those pods that DaemonSets of the slots have made."""
    return [pod for pod in found if pod.owner and pod.owner == share.slots.get(pod.slot)]


def mappings(found: Any) -> list[Mapping[str, Any]]:
    """Return the objects of a list in an answer; whatever is none is left out."""
    return [one for one in found or () if isinstance(one, dict)] if isinstance(found, list) else []


def named(found: Any, name: str) -> Mapping[str, Any]:
    """Return the object of that name in a list, an empty one where there is none."""
    return next((one for one in mappings(found) if one.get("name") == name), {})


def beside(spec: Mapping[str, Any], container: str) -> tuple[str, ...]:
    """Return the names of all containers of a pod but this one, of those that run first or later, too."""
    first = [one for one in mappings(spec.get("containers")) if one.get("name") != container]
    others = [*mappings(spec.get("initContainers")), *mappings(spec.get("ephemeralContainers"))]
    return tuple(str(one.get("name") or "one without a name") for one in (*first, *others))


def _meant_for(spec: Mapping[str, Any]) -> str:
    """Return the node that a pod of a DaemonSet is for, before the scheduler has said so."""
    affinity = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    ) or {}
    for term in mappings(affinity.get("nodeSelectorTerms")):
        for field in mappings(term.get("matchFields")):
            if field.get("key") == "metadata.name" and field.get("values"):
                return str(field["values"][0])
    return ""


def _owner(found: Any) -> str:
    """Return the DaemonSet that controls an object with these owners."""
    controlling = [one for one in mappings(found) if one.get("controller") is True]
    (one,) = controlling if len(controlling) == 1 else ({},)
    of_a_set = (one.get("apiVersion"), one.get("kind")) == ("apps/v1", "DaemonSet")
    return str(one.get("name") or "") if of_a_set else ""


def digest_in(image: str) -> str:
    """Return the digest at the end of an image's name, empty where it has none."""
    _, at, digest = image.rpartition("@")
    return digest if at else ""


def _why(status: Mapping[str, Any], state: Mapping[str, Any]) -> str:
    """Return the cluster's own reason for a pod that is not ready: of its container first."""
    now = state.get("state") or {}
    for one in (now.get("waiting"), now.get("terminated")):
        if isinstance(one, dict) and one.get("reason"):
            return _said(one)
    for one in mappings(status.get("conditions")):
        if one.get("status") == "False" and (one.get("reason") or one.get("message")):
            return _said(one)
    return str(status.get("reason") or status.get("phase") or "nothing is reported of it yet")


def _said(one: Mapping[str, Any]) -> str:
    message = sentence(str(one.get("message") or ""), 200)
    return f"{one.get('reason') or one.get('type')}{f': {message}' if message else ''}"


def _moment(said: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(str(said)).astimezone(UTC)
    except ValueError:
        return None
