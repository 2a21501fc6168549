"""What each step of the driver promises, on nodes that kwok plays, with the chart's rights and policies."""

from typing import Any

import pytest

from deploy.cluster.api import Api, Json, reboot_node
from deploy.cluster.control_plane import ControlPlane
from deploy.kubernetes.chart import NAMESPACE
from policies.model.errors import BadInput, BeyondHostLimits, Fenced, ForeignOrder, Refused, Unavailable
from policies.model.plan import ReleaseRef
from policies.model.refusals import TrustError
from tests.cluster.driver.conftest import Nodes
from tests.cluster.driver.driving import (
    BORNE,
    CLUSTER,
    PODS,
    REPOSITORY,
    SETS,
    Driven,
    driver,
    image,
    label,
    labels,
    order,
    pods,
    release,
)


def patch_spec(admin: Api, path: str, spec: Json, **query: str) -> None:
    """Change the spec of an object as kubectl does: what is in a list is merged by its name."""
    admin.ask("PATCH", path, {"spec": spec}, content="application/strategic-merge-patch+json", **query)


async def test_a_release_is_prepared_placed_beside_the_old_one_and_the_old_one_removed(
    driven: ControlPlane, admin: Api, nodes: Nodes
) -> None:
    (node,), one = nodes(1), driver(driven)
    slot = await one.prepare(1)
    placed = await one.cluster.place(order("gw"), node, slot, image(1))
    (pod,) = pods(admin, node)
    assert (placed.instance, placed.image, placed.changed) == (pod["metadata"]["uid"], image(1), True)
    assert placed.started_at is not None
    again = await one.cluster.place(order("gw"), node, slot, image(1))
    assert again == placed.model_copy(update={"changed": False})

    other = await one.prepare(2, rollout="second", epoch=2)
    assert other != slot
    assert one.vouched.kept == [release(1).digest]
    beside = await one.cluster.place(order("gw", 2), node, other, image(2))
    assert len(pods(admin, node)) == 2
    removed = await one.cluster.remove(order("gw", 2), node, slot, placed.instance)
    assert (removed.gone, removed.changed, removed.why) == (True, True, "")
    (left,) = pods(admin, node)
    assert left["metadata"]["uid"] == beside.instance
    again_removed = await one.cluster.remove(order("gw", 2), node, slot, placed.instance)
    assert (again_removed.gone, again_removed.changed) == (True, False)
    (look,) = await one.cluster.look({"gw": node})
    assert (look.slots, look.strange, look.ready, look.cordoned) == ((other,), (), True, False)


async def test_preparing_again_changes_nothing_and_finds_the_same_slot(
    driven: ControlPlane, admin: Api, nodes: Nodes
) -> None:
    one = driver(driven)
    first = await one.cluster.prepare(order(CLUSTER), *ready(one, 1))
    generation = admin.get(f"{SETS}/edge-{first.slot}")["metadata"]["generation"]
    for again in (one, driver(driven)):
        found = await again.cluster.prepare(order(CLUSTER), *ready(again, 1))
        assert found == first.model_copy(update={"changed": False})
    held = admin.get(f"{SETS}/edge-{first.slot}")
    assert held["metadata"]["generation"] == generation
    template = held["spec"]["template"]
    assert template["spec"]["containers"][0]["image"] == f"{REPOSITORY}@{image(1)}"
    assert template["metadata"]["annotations"]["penstock.dev/release"] == release(1).digest
    events = admin.every("/api/v1/events", fieldSelector=f"involvedObject.name=edge-{first.slot}")
    assert [one["reason"] for one in events if one["reason"] == "SlotPrepared"][:1] == ["SlotPrepared"]


async def test_a_release_that_nobody_vouches_for_leaves_every_slot_as_it_is(
    driven: ControlPlane, admin: Api
) -> None:
    before = [one["metadata"]["generation"] for one in admin.every(SETS)]
    with pytest.raises(TrustError):
        await driver(driven).cluster.prepare(order(CLUSTER), release(9), "")
    assert [one["metadata"]["generation"] for one in admin.every(SETS)] == before


async def test_an_order_of_an_older_change_is_fenced_and_one_of_a_newer_is_obeyed(
    driven: ControlPlane, admin: Api, nodes: Nodes
) -> None:
    (node,), one = nodes(1), driver(driven)
    slot = await one.prepare(1)
    placed = await one.cluster.place(order("gw", 5), node, slot, image(1))
    with pytest.raises(Fenced) as fenced:
        await one.cluster.remove(order("gw", 4), node, slot, placed.instance)
    assert fenced.value.details == ({"epoch": 5, "rollout": ""},)
    other = await one.prepare(2)
    with pytest.raises(Fenced):
        await one.cluster.place(order("gw", 4), node, other, image(2))
    assert labels(admin, node) == {slot: "true", "epoch": "5", "ordered": slot}
    assert (await one.cluster.remove(order("gw", 6), node, slot, placed.instance)).gone
    assert labels(admin, node) == {"epoch": "6"}


async def test_nothing_is_placed_on_a_node_that_is_cordoned_absent_or_not_ours(
    driven: ControlPlane, admin: Api, nodes: Nodes
) -> None:
    (cordoned, foreign, other), one = nodes(3), driver(driven)
    slot = await one.prepare(1)
    admin.merge(f"/api/v1/nodes/{cordoned}", {"spec": {"unschedulable": True}})
    admin.merge(f"/api/v1/nodes/{foreign}", {"metadata": {"labels": {BORNE: None}}})
    label(other, admin, gateway="gw-9")
    for node, why in {
        cordoned: "is cordoned",
        foreign: f"does not bear {BORNE}=true",
        other: "is gateway gw-9 by its label, not gw",
        "nowhere": "has no node nowhere",
    }.items():
        with pytest.raises(Refused, match=why):
            await one.cluster.place(order("gw"), node, slot, image(1))
    assert pods(admin) == []


async def test_an_instance_that_runs_is_placed_again_though_its_node_was_cordoned_since(
    driven: ControlPlane, admin: Api, nodes: Nodes
) -> None:
    (node,), one = nodes(1), driver(driven)
    slot = await one.prepare(1)
    placed = await one.cluster.place(order("gw"), node, slot, image(1))
    admin.merge(f"/api/v1/nodes/{node}", {"spec": {"unschedulable": True}})
    again = await one.cluster.place(order("gw", 2), node, slot, image(1))
    assert again.instance == placed.instance
    (look,) = await one.cluster.look({"gw": node})
    assert look.cordoned


async def test_an_image_that_cannot_be_had_is_told_in_the_clusters_own_words(
    driven: ControlPlane, admin: Api, nodes: Nodes
) -> None:
    (node,), one = nodes(1), driver(driven, up=3)
    missing = f"sha256:bad0{'0' * 60}"
    one.vouched.images[release(3).digest] = missing
    slot = await one.prepare(3)
    with pytest.raises(Unavailable, match=r"is not up after 3 s: edge-.*(ErrImagePull|ImagePullBackOff)"):
        await one.cluster.place(order("gw"), node, slot, missing)
    removed = await one.cluster.remove(order("gw"), node, slot, None)
    assert removed.gone


async def test_another_instance_in_the_place_of_the_named_one_is_left_alone(
    driven: ControlPlane, admin: Api, nodes: Nodes
) -> None:
    (node,), one = nodes(1), driver(driven)
    slot = await one.prepare(1)
    placed = await one.cluster.place(order("gw"), node, slot, image(1))
    admin.delete(f"/api/v1/namespaces/penstock/pods/{pods(admin, node)[0]['metadata']['name']}")
    anew = await one.cluster.place(order("gw"), node, slot, image(1))
    assert anew.instance != placed.instance
    removed = await one.cluster.remove(order("gw"), node, slot, placed.instance)
    assert (removed.gone, removed.changed) == (True, False)
    assert anew.instance in removed.why
    assert [one["metadata"]["uid"] for one in pods(admin, node)] == [anew.instance]
    assert (await one.cluster.remove(order("gw"), node, slot, None)).changed


@pytest.mark.sweep
async def test_an_instance_that_waits_for_its_users_is_told_to_be_ending_and_awaited_again(
    driven: ControlPlane, admin: Api, nodes: Nodes
) -> None:
    (node,), one = nodes(1), driver(driven, gone=1)
    slot = await one.prepare(1)
    placed = await one.cluster.place(order("gw"), node, slot, image(1))
    path = f"/api/v1/namespaces/penstock/pods/{pods(admin, node)[0]['metadata']['name']}"
    admin.merge(path, {"metadata": {"finalizers": ["test.penstock.dev/users"]}})
    for changed in (True, False):
        removed = await one.cluster.remove(order("gw"), node, slot, placed.instance)
        assert (removed.gone, removed.changed) == (False, changed)
        assert "waits for its last users" in removed.why
    admin.merge(path, {"metadata": {"finalizers": None}})
    assert (await one.cluster.remove(order("gw"), node, slot, placed.instance)).gone


async def test_a_slot_is_given_another_image_only_when_no_node_has_it(
    driven: ControlPlane, admin: Api, nodes: Nodes
) -> None:
    (node,), one = nodes(1), driver(driven)
    for number in (1, 2, 3):
        slot = await one.prepare(number)
        placed = await one.cluster.place(order("gw"), node, slot, image(number))
    with pytest.raises(
        Refused, match=f"no slot of {CLUSTER} is free for 1.4: slot a runs .* on 1 nodes, as {node}"
    ):
        await one.prepare(4)
    await one.cluster.remove(order("gw"), node, slot, placed.instance)
    assert await one.prepare(4) == slot
    with pytest.raises(Refused, match=r"holds image .*prepare it again"):
        await one.cluster.place(order("gw"), node, slot, image(3))


async def test_an_image_that_somebody_else_has_set_since_is_refused_with_their_name(
    driven: ControlPlane, admin: Api, nodes: Nodes
) -> None:
    (node,), one = nodes(1), driver(driven)
    slot = await one.prepare(1)
    container = {"name": "gateway", "image": f"{REPOSITORY}@{image(7)}"}
    template = {"template": {"spec": {"containers": [container]}}}
    patch_spec(admin, f"{SETS}/edge-{slot}", template, fieldManager="argocd-controller")
    with pytest.raises(Refused, match=r"was set to .* by argocd-controller at .*prepare it again"):
        await one.cluster.place(order("gw"), node, slot, image(1))
    with pytest.raises(Refused, match=r"is written by somebody else: .*argocd-controller.* annotation"):
        await one.prepare(1)
    patch = {"spec": {"template": {"metadata": {"annotations": {"penstock.dev/image": None}}}}}
    admin.merge(f"{SETS}/edge-{slot}", patch)
    assert await one.prepare(1) == slot


async def test_what_strangers_do_to_a_node_is_seen_and_said(
    driven: ControlPlane, admin: Api, nodes: Nodes
) -> None:
    (taken, given, fresh), one = nodes(3), driver(driven)
    slot = await one.prepare(1)
    for node in (taken, fresh):
        await one.cluster.place(order("gw"), node, slot, image(1))
    label(taken, admin, **{slot: None})
    label(given, admin, **{slot: "true"})
    boot = reboot_node(admin, fresh)
    admin.until(f"{SETS}/edge-{slot}", lambda one: one and one["status"].get("numberReady") == 2)
    looks = await one.cluster.look({"t": taken, "g": given, "f": fresh, "n": "nowhere"})
    said = {look.gateway: " ".join(look.strange) for look in looks}
    assert f"somebody took slot {slot} from {taken}" in said["t"]
    assert f"somebody gave slot {slot} to {given}" in said["g"]
    assert said["f"] == ""
    assert [look.there for look in looks] == [True, True, True, False]
    assert looks[2].boot == boot


async def test_orders_for_what_is_not_there_are_refused_before_the_cluster_is_asked(
    driven: ControlPlane,
) -> None:
    one = driver(driven)
    with pytest.raises(ForeignOrder):
        await one.cluster.prepare(order("elsewhere"), *ready(one, 1))
    with pytest.raises(BadInput, match="has no slot z; its file names a, b, c"):
        await one.cluster.place(order("gw"), "node", "z", image(1))
    with pytest.raises(BeyondHostLimits):
        await one.cluster.place(order("gw", 2**52), "node", "a", image(1))


def ready(one: Driven, number: int) -> tuple[ReleaseRef, str]:
    """Have the release be vouched for; return it as it is ordered."""
    one.vouched.images[release(number).digest] = image(number)
    return release(number), ""


def bears(slot: str, node: str, **metadata: Any) -> Json:
    """Return somebody's pod that is labelled as one of the slot's, and has its image."""
    said = {"penstock.dev/fleet": "edge", "penstock.dev/slot": slot}
    container = {"name": "gateway", "image": f"{REPOSITORY}@{image(1)}"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"edge-{slot}-theirs", "namespace": NAMESPACE, "labels": said, **metadata},
        "spec": {"nodeName": node, "containers": [container], "tolerations": [{"operator": "Exists"}]},
    }


@pytest.mark.parametrize("kind", ["Node", "ReplicaSet"])
async def test_somebodys_pod_with_the_labels_of_a_slot_is_proven_to_nobody_and_blocks_nothing(
    kind: str, driven: ControlPlane, admin: Api, nodes: Nodes
) -> None:
    (node,), one = nodes(1), driver(driven)
    uid = "8f0b6f0e-0000-4000-8000-000000000001"
    version = "v1" if kind == "Node" else "apps/v1"
    owner = {"apiVersion": version, "kind": kind, "name": "edge-a", "uid": uid, "controller": True}
    for slot in "abc":
        admin.post(PODS, bears(slot, node, ownerReferences=[owner]))
    (look,) = await one.cluster.look({"gw": node})
    assert look.instances == {}
    slot = await one.prepare(1)
    placed = await one.cluster.place(order("gw"), node, slot, image(1))
    (own,) = [pod for pod in pods(admin, node) if pod["metadata"]["uid"] == placed.instance]
    assert own["metadata"]["ownerReferences"][0]["kind"] == "DaemonSet"
    assert (await one.cluster.remove(order("gw", 2), node, slot, placed.instance)).gone


async def test_a_slot_whose_template_has_more_than_the_daemon_is_refused_before_anything_is_changed(
    driven: ControlPlane, admin: Api, nodes: Nodes
) -> None:
    one = driver(driven)
    more = [{"name": "first", "image": f"{REPOSITORY}@{image(1)}"}]
    patch_spec(admin, f"{SETS}/edge-a", {"template": {"spec": {"initContainers": more}}})
    with pytest.raises(Refused, match="DaemonSet edge-a has first beside gateway, which nobody has signed"):
        await one.prepare(1)


async def test_a_pod_that_was_given_a_container_more_is_not_proven_and_is_named(
    driven: ControlPlane, admin: Api, nodes: Nodes
) -> None:
    (node,), one = nodes(1), driver(driven)
    slot = await one.prepare(1)
    await one.cluster.place(order("gw"), node, slot, image(1))
    (pod,) = pods(admin, node)
    looks_on = {"name": "debug", "image": f"{REPOSITORY}@{image(2)}"}
    patch_spec(
        admin, f"{PODS}/{pod['metadata']['name']}/ephemeralcontainers", {"ephemeralContainers": [looks_on]}
    )
    (look,) = await one.cluster.look({"gw": node})
    assert "has debug beside its daemon, which nobody has signed" in " ".join(look.strange)
    with pytest.raises(Refused, match="has debug beside its daemon, which nobody has signed"):
        await one.cluster.place(order("gw"), node, slot, image(1))


async def test_a_pod_whose_image_was_changed_in_its_place_is_named_and_not_proven(
    driven: ControlPlane, admin: Api, nodes: Nodes
) -> None:
    (node,), one = nodes(1), driver(driven, up=2)
    slot = await one.prepare(1)
    await one.cluster.place(order("gw"), node, slot, image(1))
    (pod,) = pods(admin, node)
    other = {"name": "gateway", "image": f"{REPOSITORY}@{image(2)}"}
    patch_spec(admin, f"{PODS}/{pod['metadata']['name']}", {"containers": [other]})
    (look,) = await one.cluster.look({"gw": node})
    assert f"and its slot was given {image(1)}" in " ".join(look.strange)
    with pytest.raises(Unavailable, match="was made with"):
        await one.cluster.place(order("gw"), node, slot, image(1))
