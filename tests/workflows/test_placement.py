"""Gateways that are nodes of a cluster: it starts and ends their instances, and all else is as ever."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from policies.model.change import Outcome, Phase
from policies.model.command import CommandKind
from policies.model.drain import DRAIN_OVER
from policies.model.errors import Refused, Unavailable
from policies.model.instance import InstanceState
from policies.model.operation import Operation
from policies.model.value import digest_of
from tests.fakes.cluster import FakeCluster, FakeNode
from tests.fakes.control import HEALTHY, UNDECIDED, UNHEALTHY
from tests.fakes.gateway import FakeSlot
from tests.patience import until
from tests.workflows.engine import Engine
from tests.workflows.recorded import SOON
from tests.workflows.test_capacity import LEASE, blue_green
from tests.workflows.test_checks import install
from tests.workflows.world import (
    NEW,
    Running,
    World,
    fleet_of,
    in_phase,
    placed,
    reconcile,
    result_of,
    say,
    status_of,
    working,
)
from workflows import steps

FORWARD = ["stage 1.3.0", "place b", "start b", "steer b", "keep b"]
EMPTIED = ["stop a", "remove a"]


@asynccontextmanager
async def running(server: Engine, **limits: Any) -> AsyncIterator[World]:
    """Run four gateways, each a node of one cluster, with the old release in slot a."""
    fleet = placed(fleet_of("edge", **{"lease": LEASE, **limits}))
    async with working(World.made(await server.client(), fleet)) as made:
        yield made


@pytest.fixture
async def nodes(server: Engine) -> AsyncIterator[World]:
    """The same with the limits of every day."""
    async with running(server) as made:
        yield made


def cluster_of(world: World) -> FakeCluster:
    return world.clusters["cluster"]


async def waits(rollout: Running, why: str) -> None:
    """Wait until the status says why gateways wait."""

    async def is_told() -> bool:
        return why in (await status_of(rollout)).why

    await until(is_told, SOON)


def lost(world: World) -> list[str]:
    return [person for fake in world.gateways.values() for person in fake.lost]


# --- forward and back -----------------------------------------------------------------


async def test_an_upgrade_has_the_cluster_start_the_new_instances_and_end_the_old_ones(nodes: World) -> None:
    assert (await nodes.upgrade()).outcome is Outcome.PROMOTED
    changed = [nodes.gateways[name] for name in ("gw-1", "gw-2", "gw-3")]
    await until(lambda: all(fake.effects == FORWARD + EMPTIED for fake in changed), SOON)
    assert cluster_of(nodes).effects == ["prepare b"]
    assert {fake.target for fake in changed} == {"b"}
    assert not nodes.gateways["gw-4"].effects


@pytest.mark.sweep
async def test_blue_and_green_of_a_node_run_side_by_side_until_the_kept_time_is_over(server: Engine) -> None:
    async with running(server, kept=timedelta(seconds=3)) as world:
        rollout = await blue_green(world, "gw-1", "gw-2")
        await until(lambda: "keep b" in world.gateways["gw-2"].effects, SOON)
        assert "remove a" not in world.gateways["gw-2"].effects
        assert (await result_of(rollout)).outcome is Outcome.PROMOTED
        await until(lambda: world.gateways["gw-2"].effects[-2:] == EMPTIED, SOON)
        assert cluster_of(world).nodes["node-of-gw-2"].told == {"b"}


@pytest.mark.sweep
async def test_an_unhealthy_release_is_gone_back_from_and_taken_from_the_nodes(nodes: World) -> None:
    nodes.judge.says(UNDECIDED)
    rollout = await nodes.start(("gw-1", "gw-2", "gw-3"))
    await in_phase(rollout, Phase.OBSERVING)
    nodes.judge.says(UNHEALTHY)
    assert (await result_of(rollout)).outcome is Outcome.ROLLED_BACK
    changed = [nodes.gateways[name] for name in ("gw-1", "gw-2", "gw-3")]
    await until(lambda: all(fake.effects[-2:] == ["stop b", "remove b"] for fake in changed), SOON)
    assert {fake.target for fake in nodes.gateways.values()} == {"a"}
    assert [node.told for node in cluster_of(nodes).nodes.values()] == [{"a"}] * 4


@pytest.mark.sweep
async def test_a_release_that_lets_nobody_in_is_found_before_any_user_and_its_instance_removed(
    nodes: World,
) -> None:
    nodes.gateways["gw-1"].bad_releases.add(NEW.digest)
    assert (await nodes.upgrade()).outcome is Outcome.ROLLED_BACK
    await until(lambda: nodes.gateways["gw-1"].effects[-2:] == ["stop b", "remove b"], SOON)
    assert "steer b" not in nodes.gateways["gw-1"].effects
    assert not nodes.gateways["gw-2"].effects


@pytest.mark.sweep
async def test_a_slot_is_taken_from_a_node_only_when_its_last_session_is_over(nodes: World) -> None:
    gateway = nodes.gateways["gw-1"]
    gateway.login("192.0.2.7")
    await nodes.upgrade(("gw-1",))
    await until(lambda: "keep b" in gateway.effects, SOON)
    assert cluster_of(nodes).nodes["node-of-gw-1"].told == {"a", "b"}
    gateway.logout("192.0.2.7")
    await until(lambda: gateway.effects[-2:] == EMPTIED, SOON)
    assert lost(nodes) == []


@pytest.mark.sweep
async def test_a_slot_that_has_not_ended_yet_is_asked_for_again_and_the_drain_says_so(
    nodes: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workflows.drain.COUNT_AGAIN", 1)
    cluster_of(nodes).lies["remove"] = {"gone": False, "why": "its last user stays"}
    await nodes.upgrade(("gw-1",))
    said = "slot a is told to end and has not ended: its last user stays"
    await until(lambda: said in str(nodes.book.events), SOON)
    cluster_of(nodes).lies.clear()
    await until(lambda: DRAIN_OVER in [action for action, _, _ in nodes.book.events.values()], SOON)


@pytest.mark.sweep
async def test_a_known_good_instance_that_is_gone_is_placed_again_and_going_back_twice_is_once(
    nodes: World,
) -> None:
    cluster, gateway = cluster_of(nodes), nodes.gateways["gw-1"]
    await nodes.upgrade(("gw-1",))
    await until(lambda: gateway.effects[-2:] == EMPTIED, SOON)
    gateway.effects.clear()
    assert (await result_of(await nodes.go_back("gw-1"))).outcome is Outcome.ROLLED_BACK
    back = ["place a", "start a", "steer a", "keep a", "stop b", "remove b"]
    await until(lambda: gateway.effects == back, SOON)
    assert (await result_of(await nodes.go_back("gw-1"))).outcome is Outcome.ROLLED_BACK
    assert gateway.effects == back
    assert cluster.nodes["node-of-gw-1"].told == {"a"}


async def test_the_first_release_is_installed_in_one_slot_of_the_cluster(server: Engine) -> None:
    fleet = placed(fleet_of("edge", lease=LEASE))
    async with working(World.made(await server.client(), fleet, serving=None)) as world:
        assert (await install(world)).outcome is Outcome.PROMOTED
        assert cluster_of(world).effects == ["prepare a"]
        assert set(world.serving().values()) == {"1.1.6"}


# --- waiting --------------------------------------------------------------------------


@pytest.mark.sweep
async def test_a_gateway_waits_while_its_node_is_cordoned_and_nobody_is_blamed(nodes: World) -> None:
    cluster_of(nodes).nodes["node-of-gw-2"].cordoned = True
    rollout = await nodes.start(("gw-1",), ("gw-2", "gw-3"))
    await waits(rollout, "gw-2: node node-of-gw-2 of cluster cluster is cordoned")
    await until(lambda: "steer b" in nodes.gateways["gw-3"].effects, SOON)
    assert not nodes.gateways["gw-2"].effects
    cluster_of(nodes).nodes["node-of-gw-2"].cordoned = False
    result = await result_of(rollout)
    assert (result.outcome, result.aside) == (Outcome.PROMOTED, {})
    events = [event.sentence for event in (await status_of(rollout)).events]
    assert any("node-of-gw-2 of cluster cluster is cordoned" in said for said in events)


@pytest.mark.sweep
async def test_a_node_that_stops_reporting_while_an_instance_starts_is_waited_for(
    nodes: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, place = cluster_of(nodes).nodes["node-of-gw-1"], cluster_of(nodes).place

    async def fails_with_its_node(*order: Any) -> Any:
        node.ready = False
        monkeypatch.setattr(cluster_of(nodes), "place", place)
        raise Refused("node-of-gw-1 does not report")

    monkeypatch.setattr(cluster_of(nodes), "place", fails_with_its_node)
    rollout = await nodes.start(("gw-1",))
    await waits(rollout, "gw-1: node node-of-gw-1 does not report to cluster cluster")
    node.ready = True
    assert (await result_of(rollout)).outcome is Outcome.PROMOTED


@pytest.mark.sweep
async def test_gateways_wait_until_a_slot_of_their_cluster_is_free_and_the_refusal_is_told(
    nodes: World,
) -> None:
    full = Refused("every slot is in use by another release; drains have to end first")
    cluster_of(nodes).fail("prepare", full, times=100)
    rollout = await nodes.start(("gw-1",))
    await waits(rollout, "every slot is in use by another release; drains have to end first")
    assert not nodes.gateways["gw-1"].effects
    cluster_of(nodes).recover("prepare")
    assert (await result_of(rollout)).outcome is Outcome.PROMOTED


@pytest.mark.sweep
async def test_a_person_can_go_back_while_a_cluster_takes_its_time_to_prepare(nodes: World) -> None:
    cluster_of(nodes).fail("prepare", Unavailable("the repository does not answer"), times=10_000)
    rollout = await nodes.start(("gw-1",))
    await waits(rollout, "the repository does not answer")
    await say(rollout, CommandKind.ROLL_BACK)
    assert (await result_of(rollout)).outcome is Outcome.ROLLED_BACK
    assert not nodes.gateways["gw-1"].effects


@pytest.mark.sweep
async def test_a_silent_cluster_is_waited_for_as_long_as_a_host_and_then_its_gateways_fail_alone(
    nodes: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "SILENT_FOR", timedelta(seconds=3))
    nodes.judge.says(UNDECIDED)
    rollout = await nodes.start(("gw-1",), ("gw-2", "gw-3"))
    await in_phase(rollout, Phase.OBSERVING)
    cluster_of(nodes).fail("look", Unavailable("its API server does not answer"), times=10_000)
    nodes.judge.says(HEALTHY)
    await waits(rollout, "cluster cluster: its API server does not answer")
    result = await result_of(rollout)
    assert (result.outcome, set(nodes.serving().values())) == (Outcome.ROLLED_BACK, {"1.1.6"})
    assert not nodes.gateways["gw-2"].effects + nodes.gateways["gw-3"].effects


async def test_a_change_does_not_begin_while_its_cluster_is_silent_or_knows_no_such_node(
    nodes: World,
) -> None:
    cluster_of(nodes).nodes["node-of-gw-1"].there = False
    gone = await nodes.upgrade(("gw-1",))
    assert gone.outcome is not Outcome.PROMOTED
    assert "gw-1: cluster cluster has no node node-of-gw-1" in gone.reason
    assert nodes.effects() == {name: [] for name in nodes.gateways}


# --- strangers, and answers that are not true ------------------------------------------


@pytest.mark.sweep
async def test_a_node_that_loses_its_label_on_trial_is_named_and_the_release_is_not_blamed(
    server: Engine,
) -> None:
    async with running(server, failures="50%") as world:
        world.judge.says(UNDECIDED)
        rollout = await world.start(("gw-1", "gw-2", "gw-3"))
        await in_phase(rollout, Phase.OBSERVING)
        cluster_of(world).unlabel("gw-2", "b")
        named = "node gw-2 was to run slot b and is not told so any more"

        async def is_named() -> bool:
            return named in (await status_of(rollout)).aside.get("gw-2", "")

        await until(is_named, SOON)
        world.judge.says(HEALTHY)
        result = await result_of(rollout)
        assert (result.outcome, sorted(result.aside)) == (Outcome.PROMOTED, ["gw-2"])
        assert world.serving()["gw-2"] == "1.1.6"


@pytest.mark.sweep
async def test_a_gateway_that_the_metrics_name_is_left_out_with_what_a_stranger_did_to_its_node(
    server: Engine,
) -> None:
    async with running(server, failures="50%") as world:
        world.judge.says(UNDECIDED)
        rollout = await world.start(("gw-1", "gw-2", "gw-3"))
        await in_phase(rollout, Phase.OBSERVING)
        cluster_of(world).node_of("gw-2").strange = ("somebody took slot b from gw-2",)
        named = UNDECIDED.model_copy(update={"failed": ("gw-2",), "reason": "probe: on gw-2"})
        world.judge.says(named)
        await until(lambda: world.gateways["gw-2"].effects[-2:] == ["stop b", "remove b"], SOON)
        world.judge.says(HEALTHY)
        result = await result_of(rollout)
        assert result.outcome is Outcome.PROMOTED
        assert result.aside == {"gw-2": "probe: on gw-2; somebody took slot b from gw-2"}


@pytest.mark.sweep
async def test_a_pod_that_somebody_deleted_on_trial_is_named_and_the_release_is_not_said_to_have_ended(
    nodes: World,
) -> None:
    nodes.judge.says(UNDECIDED)
    rollout = await nodes.start(("gw-1", "gw-2"))
    await in_phase(rollout, Phase.OBSERVING)
    cluster_of(nodes).delete("gw-1", "b")
    result = await result_of(rollout)
    assert result.outcome is Outcome.ROLLED_BACK
    assert "which was placed in slot b of gw-1" in result.reason
    assert "the new instance has ended" not in result.reason


@pytest.mark.sweep
async def test_an_instance_that_ends_while_its_cluster_is_silent_proves_nothing_against_the_release(
    nodes: World,
) -> None:
    nodes.judge.says(UNDECIDED)
    rollout = await nodes.start(("gw-1", "gw-2"))
    await in_phase(rollout, Phase.OBSERVING)
    cluster_of(nodes).fail("look", Unavailable("its API server does not answer"), times=10_000)
    nodes.gateways["gw-1"].crash("b")
    result = await result_of(rollout)
    assert "the new instance has ended" not in result.reason
    assert "cluster cluster was not heard: its API server does not answer" in result.aside["gw-1"]
    assert nodes.serving()["gw-1"] == "1.1.6"


@pytest.mark.sweep
async def test_a_change_that_a_gate_sends_back_says_what_a_stranger_did_to_the_node_meanwhile(
    nodes: World,
) -> None:
    nodes.judge.says(UNDECIDED)
    rollout = await nodes.start(("gw-1", "gw-2"))
    await in_phase(rollout, Phase.OBSERVING)
    cluster_of(nodes).node_of("gw-1").strange = ("somebody took slot b from gw-1",)
    nodes.judge.says(UNHEALTHY)
    result = await result_of(rollout)
    assert result.outcome is Outcome.ROLLED_BACK
    assert result.reason.endswith("; by no order of ours: gw-1: somebody took slot b from gw-1")


@pytest.mark.sweep
async def test_a_node_that_lost_its_power_while_its_gateway_went_back_is_named_by_its_other_boot(
    nodes: World,
) -> None:
    nodes.judge.says(UNDECIDED)
    rollout, gateway = await nodes.start(("gw-1", "gw-2")), nodes.gateways["gw-1"]
    await in_phase(rollout, Phase.OBSERVING)
    gateway.fail("restore", Unavailable("it is silent"), times=10_000)
    nodes.judge.says(UNHEALTHY)

    async def is_late() -> bool:
        return "gw-1" in (await status_of(rollout)).waits_for

    await until(is_late, SOON)
    gateway.reboot()
    gateway.recover("restore")
    result = await result_of(rollout)
    assert result.outcome is Outcome.ROLLED_BACK
    assert "gw-1: node node-of-gw-1 of cluster cluster was started anew" in result.reason
    assert "gw-2" not in result.reason


@pytest.mark.sweep
async def test_an_instance_that_never_came_up_is_taken_from_its_node_although_nothing_runs_there(
    nodes: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(steps.PLACE, "schedule_to_close_timeout", timedelta(seconds=2))
    gateway, node = nodes.gateways["gw-1"], cluster_of(nodes).nodes["node-of-gw-1"]

    async def crashes(*_: object, **__: object) -> Any:
        node.told.add("b")
        gateway.slots["b"] = FakeSlot(state=InstanceState.FAILED)
        raise Unavailable("slot b of node-of-gw-1 is not up: its container ends again and again")

    monkeypatch.setattr(cluster_of(nodes), "place", crashes)
    result = await nodes.upgrade(("gw-1",))
    assert result.outcome is Outcome.ROLLED_BACK
    assert "its container ends again and again" in result.aside["gw-1"]
    await until(lambda: node.told == {"a"}, SOON)


async def gone_back_while_placing(nodes: World, monkeypatch: pytest.MonkeyPatch, told: set[str]) -> FakeNode:
    """Order the way back while a placement, which has told its node this, takes for ever; return the node."""
    node, placing = cluster_of(nodes).nodes["node-of-gw-1"], asyncio.Event()

    async def takes_for_ever(*_: object, **__: object) -> Any:
        node.told |= told
        placing.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(cluster_of(nodes), "place", takes_for_ever)
    rollout = await nodes.start(("gw-1",))
    await placing.wait()
    await say(rollout, CommandKind.ROLL_BACK)
    assert (await result_of(rollout)).outcome is Outcome.ROLLED_BACK
    return node


@pytest.mark.sweep
async def test_a_person_can_go_back_while_an_instance_is_being_placed_and_it_is_taken_away_again(
    nodes: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await gone_back_while_placing(nodes, monkeypatch, told={"b"})
    await until(lambda: node.told == {"a"}, SOON)
    assert "start b" not in nodes.gateways["gw-1"].effects


@pytest.mark.sweep
async def test_a_placement_that_arrives_after_its_gateway_has_gone_back_is_taken_from_the_node(
    nodes: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "PLACED_LATE", timedelta(seconds=3))
    node = await gone_back_while_placing(nodes, monkeypatch, told=set())
    node.told.add("b")
    await until(lambda: node.told == {"a"}, SOON)


@pytest.mark.sweep
async def test_the_gateways_of_a_drain_share_one_look_at_their_nodes(
    nodes: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    look, asked = cluster_of(nodes).look, list[set[str]]()
    names = ("gw-1", "gw-2", "gw-3")

    async def noted(found: dict[str, str], *others: Any) -> Any:
        promoted = nodes.book.known_good(nodes.fleet.name)
        if all(promoted[name] == NEW for name in names):  # before that its wave looks, and not its drain
            asked.append(set(found))
        return await look(found, *others)

    monkeypatch.setattr(cluster_of(nodes), "look", noted)
    await nodes.upgrade(names)
    await until(lambda: bool(asked), SOON)
    await until(lambda: all(nodes.gateways[name].effects[-2:] == EMPTIED for name in names), SOON)
    assert asked == [set(names)]


@pytest.mark.sweep
async def test_what_a_gateway_runs_besides_is_emptied_at_once_and_its_node_is_looked_at_meanwhile(
    nodes: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "PLACED_LATE", timedelta(hours=1))
    await nodes.upgrade(("gw-1",))
    await until(lambda: nodes.gateways["gw-1"].effects[-2:] == EMPTIED, SOON)
    assert cluster_of(nodes).nodes["node-of-gw-1"].told == {"b"}


@pytest.mark.sweep
async def test_what_a_newer_change_places_while_a_drain_looks_is_left_alone_and_no_hand_over_is_told(
    nodes: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "PLACED_LATE", timedelta(seconds=3))
    await nodes.upgrade(("gw-1",))
    gateway, node = nodes.gateways["gw-1"], cluster_of(nodes).nodes["node-of-gw-1"]
    await until(lambda: gateway.effects[-2:] == EMPTIED, SOON)
    newer = Operation(rollout="edge-9", epoch=2**50, gateway="gw-1", step="place", digest=digest_of(b"newer"))
    await gateway.fence(newer)
    node.told.add("c")
    await until(lambda: DRAIN_OVER in [action for action, _, _ in nodes.book.events.values()], SOON)
    assert node.told == {"b", "c"}
    assert "handed over" not in str(nodes.book.events)
    assert "1 of its instances are stopped" in str(nodes.book.events)


@pytest.mark.sweep
async def test_what_arrives_late_is_emptied_also_where_an_operator_has_reset_the_fence(
    nodes: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D2: a fence that is only reset belongs to no newer change, which would empty the slot."""
    monkeypatch.setattr(steps, "PLACED_LATE", timedelta(seconds=3))
    await nodes.upgrade(("gw-1",))
    gateway, node = nodes.gateways["gw-1"], cluster_of(nodes).nodes["node-of-gw-1"]
    await until(lambda: gateway.effects[-2:] == EMPTIED, SOON)
    gateway.owner = (2**50, "")
    node.told.add("c")
    await until(lambda: DRAIN_OVER in [action for action, _, _ in nodes.book.events.values()], SOON)
    assert node.told == {"b"}


@pytest.mark.sweep
async def test_a_change_that_is_cancelled_leaves_no_instance_on_a_node(nodes: World) -> None:
    nodes.judge.says(UNDECIDED)
    rollout = await nodes.start(("gw-1", "gw-2"))
    await in_phase(rollout, Phase.OBSERVING)
    await rollout.cancel()
    assert (await result_of(rollout)).outcome is Outcome.ROLLED_BACK
    await until(lambda: [node.told for node in cluster_of(nodes).nodes.values()] == [{"a"}] * 4, SOON)


@pytest.mark.sweep
async def test_a_driver_that_dies_after_it_has_placed_an_instance_finds_it_when_it_is_asked_again(
    nodes: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = cluster_of(nodes)
    place, remove = cluster.place, cluster.remove

    async def dies_once(act: Any, step: str, *order: Any) -> Any:
        done = await act(*order)
        monkeypatch.setattr(cluster, step, act)
        raise Unavailable(f"the driver died after {done}")

    monkeypatch.setattr(cluster, "place", partial(dies_once, place, "place"))
    monkeypatch.setattr(cluster, "remove", partial(dies_once, remove, "remove"))
    assert (await nodes.upgrade(("gw-1",))).outcome is Outcome.PROMOTED
    await until(lambda: nodes.gateways["gw-1"].effects == FORWARD + EMPTIED, SOON)


@pytest.mark.sweep
async def test_a_serving_instance_that_a_stranger_took_away_is_placed_again_by_reconcile(
    nodes: World,
) -> None:
    cluster_of(nodes).unlabel("gw-2", "a")
    await reconcile(nodes)
    await until(lambda: nodes.gateways["gw-2"].effects == ["place a", "start a"], SOON)
    assert cluster_of(nodes).effects == [], "the slot holds the known-good on the other nodes"


@pytest.mark.sweep
@pytest.mark.parametrize(
    ("step", "lie", "told"),
    [
        ("prepare", {"cluster": "other"}, "cluster cluster answers as other"),
        ("place", {"gateway": "gw-4"}, "in slot b of gw-4, and was asked for"),
        ("place", {"slot": "c"}, "in slot c of gw-1, and was asked for"),
        ("place", {"image": digest_of(b"other")}, f"its cluster has started {digest_of(b'other')}"),
        ("look", {"gateway": "gw-4"}, "speaks of other gateways than it was asked for"),
    ],
)
async def test_an_answer_of_a_cluster_about_something_else_is_a_bad_one(
    nodes: World, monkeypatch: pytest.MonkeyPatch, step: str, lie: dict[str, object], told: str
) -> None:
    monkeypatch.setattr(steps, "SILENT_FOR", timedelta(0))
    cluster_of(nodes).lies[step] = lie
    result = await nodes.upgrade(("gw-1",))
    assert result.outcome is not Outcome.PROMOTED
    assert told in f"{result.reason} {result.aside}"
    assert "start b" not in nodes.gateways["gw-1"].effects
    assert nodes.serving()["gw-1"] == "1.1.6"


@pytest.mark.sweep
async def test_an_older_change_places_and_removes_nothing_any_more(nodes: World) -> None:
    node = cluster_of(nodes).nodes["node-of-gw-1"]
    node.epoch = 2**50
    result = await nodes.upgrade(("gw-1",))
    assert result.outcome is not Outcome.PROMOTED
    assert "node node-of-gw-1 belongs to a change of epoch" in f"{result.reason} {result.aside}"
    assert node.told == {"a"}
