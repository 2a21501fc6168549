"""Whole rollouts by the real engine and the real workflows, on a real API server by the real driver.

kwok plays the nodes, and the gateways' agents are simulated: what runs on one of them is what the API says.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial

import pytest
from temporalio.worker import Worker

from activities.placement import PlacementActivities
from deploy.cluster.api import Api
from deploy.cluster.control_plane import ControlPlane
from orchestrator.processes.cluster import cluster_activities
from policies.model.change import ChangeOrder, Outcome, Phase
from policies.model.fleet import Gateway, GatewayRef
from policies.model.instance import InstanceState
from policies.model.placement import Placement
from policies.model.plan import ReleaseRef, Strategy, Wave
from tests.cluster.driver.conftest import Nodes
from tests.cluster.driver.driving import CLUSTER, FLEET, PODS, driver, image, label, labels, pods
from tests.cluster.gateways import is_ready
from tests.fakes.control import UNDECIDED, UNHEALTHY
from tests.fakes.gateway import FakeGateway, FakeSlot
from tests.patience import until
from tests.sampled import sampled
from tests.workflows.conftest import engines, quick_paces, server  # noqa: F401 - fixtures
from tests.workflows.ending import ending
from tests.workflows.engine import Engine
from tests.workflows.test_checks import install
from tests.workflows.world import NEW, OLD, World, fleet_of, in_phase, placed, result_of, status_of, working
from workflows import steps

LEASE = timedelta(seconds=30)
NEVER_UP = f"sha256:{'dead' * 16}"
"""An image whose instances end again and again."""


class SimulatedAgent(FakeGateway):
    """An agent in memory whose instances are the pods of its node: it starts none and ends none."""

    def __init__(self, gateway: Gateway, pods_here: Callable[[], dict[str, tuple[str, bool]]]) -> None:
        super().__init__(gateway)
        self._pods_here = pods_here

    def _maybe_fail(self, step: str) -> None:
        self._look_at_pods()
        super()._maybe_fail(step)

    def _look_at_pods(self) -> None:
        here = self._pods_here()
        for name in self.slots:
            uid, up = here.get(name, ("", False))
            if uid != self.slots[name].instance:
                self.lost += self.slots[name].people
                self.slots[name] = FakeSlot(started_at=self.now(), instance=uid)
            if uid:
                self.slots[name].state = InstanceState.RUNNING if up else InstanceState.FAILED


def pods_on(admin: Api, node: str) -> dict[str, tuple[str, bool]]:
    """Return the pods of the node by their slot; one that ends is there until it is gone."""
    found = sorted(pods(admin, node), key=lambda pod: str(pod["metadata"]["creationTimestamp"]))
    return {
        str(pod["metadata"]["labels"]["penstock.dev/slot"]): (str(pod["metadata"]["uid"]), is_ready(pod))
        for pod in found
    }


@asynccontextmanager
async def fleet_on(
    engine: Engine, plane: ControlPlane, admin: Api, names: list[str], images: dict[ReleaseRef, str]
) -> AsyncIterator[World]:
    """Run a fleet on these nodes, with the old release installed by the real workflows."""
    fleet = placed(fleet_of(FLEET, size=len(names), lease=LEASE, kept=timedelta(seconds=2)), CLUSTER)
    members = tuple(
        member.model_copy(update={"placement": Placement(cluster=CLUSTER, node=node)})
        for member, node in zip(fleet.gateways, names, strict=True)
    )
    fleet = fleet.model_copy(update={"gateways": members})
    agents: dict[str, FakeGateway] = {}
    for member, node in zip(members, names, strict=True):
        agents[member.name] = SimulatedAgent(member, partial(pods_on, admin, node))
    world = World(await engine.client(), fleet, agents)
    world.clusters = {}
    one = driver(plane, up=5.0)
    one.vouched.images |= {release.digest: digest for release, digest in images.items()}
    worker = Worker(
        world.client,
        task_queue=GatewayRef(name=CLUSTER, fleet=FLEET).task_queue,
        activities=cluster_activities(PlacementActivities(one.cluster)),
        max_heartbeat_throttle_interval=timedelta(milliseconds=200),
        default_heartbeat_throttle_interval=timedelta(milliseconds=200),
    )
    async with ending(worker), working(world):
        assert (await install(world)).outcome is Outcome.PROMOTED
        for agent in agents.values():
            agent.login("192.0.2.1")
        world.look()
        yield world


@pytest.fixture
def given(admin: Api) -> Callable[[list[str]], list[set[str]]]:
    """Give what says which slots each node runs, by its pods."""
    return lambda names: [set(pods_on(admin, node)) for node in names]


def leave(world: World) -> None:
    """Let everybody go home, so that what drains can end."""
    for agent in world.gateways.values():
        for held in agent.slots.values():
            held.people.clear()


def waves_of(strategy: Strategy) -> tuple[Wave, ...]:
    """Return the waves of three gateways."""
    groups = {
        Strategy.CANARY: (("gw-1",), ("gw-2", "gw-3")),
        Strategy.ROLLING: (("gw-1",), ("gw-2",), ("gw-3",)),
        Strategy.BLUE_GREEN: (("gw-1", "gw-2", "gw-3"),),
    }[strategy]
    shares = (10, 100) if strategy is Strategy.BLUE_GREEN else (100,)
    return tuple(
        Wave(number=number, gateways=names, shares=shares, lease=LEASE)
        for number, names in enumerate(groups, start=1)
    )


def ordered(world: World, strategy: Strategy) -> ChangeOrder:
    """Return an upgrade by that strategy, of all gateways but one that is to stay as it is."""
    order = world.order(("gw-1",))
    plan = world.plan(("gw-1",)).model_copy(update={"strategy": strategy, "waves": waves_of(strategy)})
    return order.model_copy(update={"plan": world.book.record_plan(plan)})


IMAGES = {OLD: image(1), NEW: image(2)}


@pytest.mark.parametrize("strategy", sampled(Strategy, Strategy.CANARY))
async def test_every_strategy_brings_the_release_to_the_nodes_and_ends_what_was_there(
    server: Engine,  # noqa: F811
    driven: ControlPlane,
    admin: Api,
    nodes: Nodes,
    given: Callable[[list[str]], list[set[str]]],
    strategy: Strategy,
) -> None:
    names = nodes(4)
    async with fleet_on(server, driven, admin, names, IMAGES) as world:
        before = {uid for node in names for uid, _ in pods_on(admin, node).values()}
        result = await result_of(await world.run(ordered(world, strategy)))
        assert result.outcome is Outcome.PROMOTED, result.reason
        assert given(names)[0] == {"a", "b"}, "a slot with a user is not taken from its node"
        leave(world)
        await until(lambda: given(names) == [{"b"}] * 3 + [{"a"}])
        after = {pod["spec"]["containers"][0]["image"].partition("@")[2] for pod in pods(admin)}
        assert after == set(IMAGES.values())
        assert {uid for uid, _ in pods_on(admin, names[3]).values()} <= before
        assert [agent.lost for agent in world.gateways.values()] == [[]] * 4


@pytest.mark.parametrize("strategy", sampled(Strategy, Strategy.CANARY))
async def test_every_strategy_goes_back_from_harm_and_leaves_the_nodes_as_they_were(
    server: Engine,  # noqa: F811
    driven: ControlPlane,
    admin: Api,
    nodes: Nodes,
    given: Callable[[list[str]], list[set[str]]],
    strategy: Strategy,
) -> None:
    names = nodes(4)
    async with fleet_on(server, driven, admin, names, IMAGES) as world:
        before = {node: pods_on(admin, node) for node in names}
        world.judge.says(UNDECIDED)
        rollout = await world.run(ordered(world, strategy))
        await in_phase(rollout, Phase.OBSERVING)
        world.judge.says(UNHEALTHY)
        assert (await result_of(rollout)).outcome is Outcome.ROLLED_BACK
        await until(lambda: given(names) == [{"a"}] * 4)
        assert {node: pods_on(admin, node) for node in names} == before
        assert [agent.lost for agent in world.gateways.values()] == [[]] * 4


@pytest.mark.sweep
async def test_an_image_that_never_comes_up_is_gone_back_from_before_any_user(
    server: Engine,  # noqa: F811
    driven: ControlPlane,
    admin: Api,
    nodes: Nodes,
    given: Callable[[list[str]], list[set[str]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(steps.PLACE, "schedule_to_close_timeout", timedelta(seconds=15))
    names = nodes(3)
    async with fleet_on(server, driven, admin, names, {OLD: image(1), NEW: NEVER_UP}) as world:
        result = await world.upgrade(("gw-1",), ("gw-2",))
        assert result.outcome is Outcome.ROLLED_BACK
        assert f"slot b of {names[0]} is not up" in result.aside["gw-1"]
        await until(lambda: given(names) == [{"a"}] * 3)
        assert "b" not in labels(admin, names[0])


@pytest.mark.sweep
async def test_a_cordoned_node_is_waited_for_and_one_that_a_stranger_unlabels_is_named(
    server: Engine,  # noqa: F811
    driven: ControlPlane,
    admin: Api,
    nodes: Nodes,
) -> None:
    names = nodes(3)
    async with fleet_on(server, driven, admin, names, IMAGES) as world:
        admin.merge(f"/api/v1/nodes/{names[0]}", {"spec": {"unschedulable": True}})
        world.judge.says(UNDECIDED)
        rollout = await world.start(("gw-1",))

        async def waits() -> bool:
            return f"node {names[0]} of cluster {CLUSTER} is cordoned" in (await status_of(rollout)).why

        await until(waits)
        admin.merge(f"/api/v1/nodes/{names[0]}", {"spec": {"unschedulable": None}})
        await in_phase(rollout, Phase.OBSERVING)
        label(names[0], admin, b=None)
        result = await result_of(rollout)
        assert result.outcome is Outcome.ROLLED_BACK
        assert f"somebody took slot b from {names[0]}" in result.aside["gw-1"]
        assert "the new instance has ended" not in result.reason


async def test_a_known_good_instance_that_is_gone_is_placed_again_by_going_back(
    server: Engine,  # noqa: F811
    driven: ControlPlane,
    admin: Api,
    nodes: Nodes,
    given: Callable[[list[str]], list[set[str]]],
) -> None:
    names = nodes(3)
    async with fleet_on(server, driven, admin, names, IMAGES) as world:
        leave(world)
        assert (await world.upgrade(("gw-1",))).outcome is Outcome.PROMOTED
        await until(lambda: given(names)[0] == {"b"})
        assert (await result_of(await world.go_back("gw-1"))).outcome is Outcome.ROLLED_BACK
        await until(lambda: given(names)[0] == {"a"})
        assert world.serving()["gw-1"] == OLD.version
        assert admin.every(PODS, labelSelector=f"penstock.dev/fleet={FLEET}")
