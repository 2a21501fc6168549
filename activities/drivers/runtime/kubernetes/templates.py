"""DaemonSets, one for each slot: what their templates hold, who else writes them, how they get an image."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from activities.drivers.runtime.kubernetes.answers import Absent, Unread
from activities.drivers.runtime.kubernetes.api import APPLY, Api, Call
from activities.drivers.runtime.kubernetes.pods import beside, mappings, named
from activities.drivers.runtime.kubernetes.rights import GET_DAEMONSET, PATCH_DAEMONSET
from activities.drivers.runtime.kubernetes.words import (
    FIELD_MANAGER,
    FLEET,
    IMAGE,
    RELEASE,
    ROLLOUT,
    SLOT,
    Share,
)
from policies.model.errors import Refused


@dataclass(frozen=True)
class Template:
    """The DaemonSet of one slot, as it was read."""

    slot: str
    name: str
    uid: str
    version: str
    image: str
    """As its template names it."""
    release: str
    """The digest of the manifest that we took the image from; empty where we never set it."""
    given: str
    """The digest of the image that we gave it."""
    rollout: str
    """For which change we gave it that."""
    waits: bool
    """Whether it leaves running pods alone when its template changes."""
    seen: bool
    """Whether its controller has taken it up: until then it makes pods of what the template was before."""
    wanted: int
    """Instances that it wants or has somewhere."""
    ready: int
    """Instances that are ready, as its controller has counted them."""
    beside: tuple[str, ...]
    """Containers that its pods would have beside the daemon's, of whatever kind."""
    owners: Mapping[str, str]
    """Who else says what its image is, and when they did."""

    @property
    def digest(self) -> str:
        """The digest of its image, empty where it names none."""
        return self.image.rpartition("@")[2] if "@" in self.image else ""

    @property
    def others(self) -> str:
        """Who else has set its image, in words."""
        return " and ".join(f"{who} at {when}" if when else who for who, when in self.owners.items())

    @property
    def taken_over(self) -> str:
        """What somebody else made of the image that we gave it, in words; empty where it is still that."""
        if not self.given or self.digest == self.given:
            return ""
        return f"its image was set to {self.image or 'none'} by {self.others or 'somebody else'}"

    @classmethod
    def of(cls, found: Mapping[str, Any], slot: str, container: str) -> "Template":
        """Return what the API server's object says; what it leaves out is not so."""
        metadata, spec = found.get("metadata") or {}, found.get("spec") or {}
        template, status = spec.get("template") or {}, found.get("status") or {}
        annotations = (template.get("metadata") or {}).get("annotations") or {}
        own = named((template.get("spec") or {}).get("containers"), container)
        counted = ("desiredNumberScheduled", "currentNumberScheduled", "numberMisscheduled")
        return cls(
            slot=slot,
            name=str(metadata.get("name") or ""),
            uid=str(metadata.get("uid") or ""),
            version=str(metadata.get("resourceVersion") or ""),
            image=str(own.get("image") or ""),
            release=str(annotations.get(RELEASE) or ""),
            given=str(annotations.get(IMAGE) or ""),
            rollout=str(annotations.get(ROLLOUT) or ""),
            waits=(spec.get("updateStrategy") or {}).get("type") == "OnDelete",
            seen=int(status.get("observedGeneration") or 0) >= int(metadata.get("generation") or 0),
            wanted=max(int(status.get(count) or 0) for count in counted),
            ready=int(status.get("numberReady") or 0),
            beside=beside(template.get("spec") or {}, container),
            owners=_owners(mappings(metadata.get("managedFields")), container),
        )


async def read_template(api: Api, share: Share, slot: str) -> Template:
    """Return the DaemonSet of a slot.

    Raises:
        Refused: It is not there, is another fleet's or slot's, or is not of the daemon's container alone.
        As `Api.call` does.
    """
    name = share.slots[slot]
    try:
        found = await api.call(Call(GET_DAEMONSET, _path(share, name), about=name))
    except Absent as error:
        raise Refused(
            f"slot {slot} of {share.cluster} has no DaemonSet {name} in namespace {share.namespace}: "
            "install the chart of the fleet first"
        ) from error
    template = Template.of(_whole(found, name), slot, share.container)
    labels = (found.get("metadata") or {}).get("labels") or {}
    if (labels.get(FLEET), labels.get(SLOT)) != (share.fleet, slot):
        raise Refused(
            f"DaemonSet {name} is not labelled as slot {slot} of {share.fleet}: see {FLEET} and {SLOT}"
        )
    if template.beside:
        more = " and ".join(template.beside)
        raise Refused(
            f"DaemonSet {name} has {more} beside {share.container}, which nobody has signed: "
            "take them out of its template"
        )
    if not template.image:
        raise Refused(f"DaemonSet {name} has no container {share.container}: name it so in its template")
    return template


async def apply(
    api: Api, share: Share, template: Template, digest: str, *, release: str, rollout: str
) -> Template:
    """Have exactly this version of the template hold the image; only fields of ours are said.

    Raises:
        Stale: It has changed since it was read.
        Refused: A policy of the cluster refuses it.
        As `Api.call` does.
    """
    pod = {
        "metadata": {"annotations": {RELEASE: release, IMAGE: digest, ROLLOUT: rollout}},
        "spec": {"containers": [{"name": share.container, "image": share.image(digest)}]},
    }
    body = {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {
            "name": template.name,
            "namespace": share.namespace,
            "uid": template.uid,
            "resourceVersion": template.version,
        },
        "spec": {"updateStrategy": {"type": "OnDelete"}, "template": pod},
    }
    query = {"fieldManager": FIELD_MANAGER, "force": "true"}  # who else has them was asked before
    path = _path(share, template.name)
    call = Call(PATCH_DAEMONSET, path, "PATCH", query=query, body=body, kind=APPLY, about=template.name)
    return Template.of(_whole(await api.call(call), template.name), template.slot, share.container)


def _whole(found: Any, name: str) -> Any:
    """Return what the API server says of a DaemonSet; Unread where it says too little to be one."""
    if not isinstance(found.get("spec"), dict):
        raise Unread(f"the API server said of DaemonSet {name} nothing of its spec; it is read again")
    return found


def _path(share: Share, name: str) -> str:
    return f"/apis/apps/v1/namespaces/{share.namespace}/daemonsets/{name}"


def _owners(managed: list[Mapping[str, Any]], container: str) -> dict[str, str]:
    """Return who but us has set the image of this container, by what the API server keeps of it."""
    found = {}
    for one in managed:
        fields: Any = one.get("fieldsV1") or {}
        for key in ("f:spec", "f:template", "f:spec", "f:containers", f'k:{{"name":"{container}"}}'):
            fields = fields.get(key) if isinstance(fields, dict) else None
        ours = one.get("manager") == FIELD_MANAGER and one.get("operation") == "Apply"
        if isinstance(fields, dict) and "f:image" in fields and not ours:
            found[str(one.get("manager") or "somebody")] = str(one.get("time") or "")
    return found
