"""What the cluster's driver says of a node, from objects as an API server tells them."""

from typing import Any

from activities.drivers.runtime.kubernetes.looks import look_of
from activities.drivers.runtime.kubernetes.nodes import Node
from activities.drivers.runtime.kubernetes.pods import Pod
from activities.drivers.runtime.kubernetes.words import Share

SHARE = Share("edge", "west", "penstock", {"a": "edge-a", "b": "edge-b"}, "daemon", "registry.example/vpn")
GIVEN = {"penstock.dev/edge.a": "true", "penstock.dev/edge.ordered": "a", "penstock.dev/edge.epoch": "7"}


def node(labels: dict[str, str]) -> Node:
    """Return a ready node with these labels."""
    ready = {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"bootID": "boot"}}
    return Node.of({"metadata": {"name": "n-1", "resourceVersion": "1", "labels": labels}, "status": ready})


def pod(uid: str, slot: str, *, ending: bool = False) -> Pod:
    """Return a pod of the slot on that node."""
    metadata: dict[str, Any] = {"name": f"pod-{uid}", "uid": uid, "labels": {"penstock.dev/slot": slot}}
    if ending:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return Pod.of({"metadata": metadata, "spec": {"nodeName": "n-1"}}, "daemon")


def test_a_pod_that_is_to_stay_is_told_of_a_slot_in_which_another_still_ends() -> None:
    for pods in (
        [pod("old", "a", ending=True), pod("new", "a")],
        [pod("new", "a"), pod("old", "a", ending=True)],
    ):
        assert look_of(SHARE, "gw-1", "n-1", node(GIVEN), pods).instances == {"a": "new"}


def test_a_pod_that_ends_is_told_while_nothing_else_is_in_its_slot_and_slots_of_others_are_not() -> None:
    look = look_of(SHARE, "gw-1", "n-1", node(GIVEN), [pod("old", "a", ending=True), pod("odd", "z")])
    assert look.instances == {"a": "old"}


def test_a_label_that_a_stranger_took_is_named_with_its_node_and_slot() -> None:
    left = {key: value for key, value in GIVEN.items() if not key.endswith(".a")}
    look = look_of(SHARE, "gw-1", "n-1", node(left), [pod("old", "a", ending=True)])
    assert look.strange == ("somebody took slot a from n-1: label penstock.dev/edge.a is gone",)


IMAGE, EVIL = f"sha256:{'a' * 64}", f"sha256:{'e' * 64}"


def made(asked: str, *, runs: str = IMAGE, given: str = IMAGE, **spec: Any) -> Pod:
    """Return a pod whose slot was given one image, and that is to run this one, and runs that."""
    metadata = {"name": "pod-a", "uid": "a", "labels": {"penstock.dev/slot": "a"}}
    daemon = {"name": "daemon", "image": f"registry.example/vpn@{asked}"}
    state = {"name": "daemon", "imageID": f"registry.example/vpn@{runs}" if runs else ""}
    found = {
        "metadata": metadata | {"annotations": {"penstock.dev/image": given} if given else {}},
        "spec": {"nodeName": "n-1", "containers": [daemon, *spec.pop("more", [])], **spec},
        "status": {"containerStatuses": [state]},
    }
    return Pod.of(found, "daemon")


def strange(pod: Pod) -> str:
    """Return what is said of it."""
    return "; ".join(look_of(SHARE, "gw-1", "n-1", node(GIVEN), [pod]).strange)


def test_a_pod_that_runs_what_its_slot_was_given_is_not_strange() -> None:
    assert strange(made(IMAGE)) == strange(made(IMAGE, runs="")) == strange(made(IMAGE, given="")) == ""


def test_a_pod_whose_image_was_changed_in_its_place_is_named_with_both() -> None:
    assert f"is to run registry.example/vpn@{EVIL}, and its slot was given {IMAGE}" in strange(
        made(EVIL, runs=EVIL)
    )


def test_a_node_that_runs_another_image_than_its_pod_has_is_named() -> None:
    assert f"runs {EVIL} by its node's word, and is to run {IMAGE}" in strange(made(IMAGE, runs=EVIL))


def test_whatever_runs_beside_the_daemon_is_named() -> None:
    more, first, late = ([{"name": name, "image": "x"}] for name in ("more", "first", "late"))
    pod = made(IMAGE, more=more, initContainers=first, ephemeralContainers=late)
    assert "has more and first and late beside its daemon" in strange(pod)


def test_only_the_daemonset_that_controls_a_pod_is_its_owner() -> None:
    own = {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "edge-a", "controller": True}
    for owners, owner in (
        ([own], "edge-a"),
        ([own | {"kind": "ReplicaSet"}], ""),
        ([own | {"kind": "Node", "apiVersion": "v1", "name": "n-1"}], ""),
        ([own | {"apiVersion": "apps.evil/v1"}], ""),
        ([own | {"controller": False}], ""),
        ([own, own | {"name": "edge-b"}], ""),
        ("edge-a", ""),
        (None, ""),
    ):
        assert Pod.of({"metadata": {"ownerReferences": owners}}, "daemon").owner == owner
