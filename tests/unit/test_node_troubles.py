"""What is told of a node that something happened to, beside the reason for which a change went back."""

from datetime import UTC, datetime

from policies.model.instance import GatewayState, Instance, InstanceState, Steering
from policies.model.placement import NodeLook, Placement
from policies.placement import TOLD, befallen, with_befallen

PLACE = Placement(cluster="west", node="n-1")
LOOK = NodeLook(gateway="gw-1", slots=("a", "b"), instances={"a": "uid-a", "b": "uid-b"}, boot="first")


def state_of(**placed: str) -> GatewayState:
    """Return what an agent says that was given these pods in its slots."""
    return GatewayState(
        gateway="gw-1",
        instances=tuple(
            Instance(slot=slot, state=InstanceState.RUNNING, placed=uid) for slot, uid in placed.items()
        ),
        steering=Steering(),
        epoch=1,
        observed_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def test_a_node_on_which_all_is_as_ordered_has_come_to_nothing() -> None:
    assert befallen(LOOK, PLACE, state_of(a="uid-a", b="uid-b"), "first") == ()


def test_a_pod_in_the_place_of_the_proven_one_says_that_somebody_deleted_that_one() -> None:
    (said,) = befallen(LOOK, PLACE, state_of(a="uid-a", b="uid-before"))
    assert said.startswith("somebody deleted uid-before, which was placed in slot b of gw-1")


def test_what_was_never_proven_was_deleted_by_nobody() -> None:
    assert befallen(LOOK, PLACE, state_of(b="")) == ()


def test_a_node_without_any_label_that_was_given_a_pod_was_registered_anew_or_cleared() -> None:
    bare = NodeLook(gateway="gw-1")
    (said,) = befallen(bare, PLACE, state_of(b="uid-b"))
    assert said.startswith("node n-1 of cluster west is not given slot b now: it was registered anew")


def test_a_label_that_was_taken_is_told_once() -> None:
    taken = NodeLook(gateway="gw-1", strange=("somebody took slot b",))
    assert befallen(taken, PLACE, state_of(b="uid-b")) == ("somebody took slot b",)


def test_another_boot_says_that_the_node_was_started_anew() -> None:
    assert befallen(LOOK, PLACE, boot="before") == ("node n-1 of cluster west was started anew",)


def test_a_cordon_is_no_harm_and_a_node_that_is_silent_or_gone_is() -> None:
    assert befallen(LOOK.model_copy(update={"cordoned": True}), PLACE) == ()
    silent = befallen(LOOK.model_copy(update={"ready": False}), PLACE)
    assert silent == ("node n-1 does not report to cluster west",)
    gone = befallen(NodeLook(gateway="gw-1", there=False, strange=("a pod is left",)), PLACE)
    assert gone == ("cluster west has no node n-1", "a pod is left")


def test_the_reason_says_once_what_has_happened_and_to_whom() -> None:
    nodes = {"gw-1": "its label is gone; it was started anew"}
    told = with_befallen("probe: fails; its label is gone", nodes)
    assert told == "probe: fails; its label is gone; by no order of ours: gw-1: it was started anew"
    assert with_befallen(told, nodes) == told


def test_many_nodes_are_counted_and_not_all_told() -> None:
    told = with_befallen("probe: fails", {f"gw-{n}": f"label {n} is gone" for n in range(TOLD + 2)})
    assert told.endswith("label 2 is gone; and to 2 more nodes")
