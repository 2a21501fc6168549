"""Gateways that are nodes of a cluster: it starts and ends their instances, and all else is as ever."""

from collections.abc import AsyncIterator

import pytest

from policies.model.change import Outcome
from tests.workflows.engine import Engine
from tests.workflows.recorded import SOON
from tests.workflows.test_capacity import LEASE
from tests.workflows.world import World, fleet_of, placed, until, working


@pytest.fixture
async def nodes(server: Engine) -> AsyncIterator[World]:
    """Four gateways, each a node of one cluster, with the old release in slot a."""
    fleet = placed(fleet_of("edge", lease=LEASE))
    async with working(World.made(await server.client(), fleet)) as made:
        yield made


ORDERED = ["stage 1.3.0", "place b", "start b", "steer b", "keep b", "stop a", "remove a"]


async def test_an_upgrade_has_the_cluster_start_the_new_instances_and_end_the_old_ones(nodes: World) -> None:
    assert (await nodes.upgrade()).outcome is Outcome.PROMOTED
    changed = [nodes.gateways[name] for name in ("gw-1", "gw-2", "gw-3")]
    await until(lambda: all(fake.effects == ORDERED for fake in changed), SOON)
    assert nodes.clusters["cluster"].effects == ["prepare b"]
    assert {fake.target for fake in changed} == {"b"}
    assert not nodes.gateways["gw-4"].effects
