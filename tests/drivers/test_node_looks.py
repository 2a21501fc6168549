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
