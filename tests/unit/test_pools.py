"""Pools of slots against the routes of their host."""

from ipaddress import ip_network

import pytest

from policies.pools import Route, pools_in_use
from tests.unit.fleets import gateway


def route(network: str, device: str = "eth0", *, connected: bool = False, answers: bool = False) -> Route:
    return Route(network=ip_network(network), device=device, connected=connected, answers=answers)


EDGE = gateway("edge-1")
POOL = EDGE.slots[0].pool4
WIDER, NARROWER = str(POOL.supernet(4)), str(next(POOL.subnets(1)))


@pytest.mark.parametrize(
    "used",
    [route(str(POOL)), route(NARROWER), route(WIDER, connected=True), route(f"{POOL[1]}/32", "lo")],
)
def test_a_pool_that_the_host_routes_elsewhere_is_named_with_the_route(used: Route) -> None:
    said = pools_in_use(EDGE, [used])[0]
    assert f"the pool {POOL} of slot {EDGE.slots[0].name} of edge-1" in said
    assert f"{used.network} on {used.device}" in said


@pytest.mark.parametrize(
    "used",
    [
        route(WIDER),
        route(WIDER, connected=True, answers=True),
        route(NARROWER, f"{EDGE.slots[0].device}0"),
        route("192.0.2.0/24", connected=True),
        route("fd00::/8", connected=True),
    ],
)
def test_a_route_that_gives_way_to_tunnels_or_is_theirs_is_no_other_use(used: Route) -> None:
    assert pools_in_use(EDGE, [used]) == ()
