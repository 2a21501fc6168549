"""Pools of slots against the routes of their host."""

from ipaddress import ip_network

import pytest

from policies.model.adoption import ADOPTED
from policies.model.fleet import Slot
from policies.pools import Route, own_pools_in_use, pools_in_use, shared_pools
from tests.unit.fleets import fleet, gateway


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


OWN = Slot(name=ADOPTED, port=443, device="vpns", pool4=ip_network("192.168.1.0/24"))


@pytest.mark.parametrize(
    ("used", "said"),
    [
        (route("192.168.1.0/25", "eth1"), "overlaps the host's route to 192.168.1.0/25 on eth1 of edge-1"),
        (route("192.168.0.0/16", "eth1", connected=True), "192.168.0.0/16 on eth1 of edge-1"),
        (route("192.168.1.7/32", "vpns0"), None),
        (route("192.168.1.7/32", "pa0"), None),
        (route("192.168.0.0/16", "eth1"), None),
    ],
)
def test_a_pool_of_the_gateways_own_daemon_is_compared_with_its_hosts_routes(
    used: Route, said: str | None
) -> None:
    found = own_pools_in_use(OWN, EDGE, [used])
    assert (said in found[0]) if said else not found


FLEET = fleet(*(gateway(f"edge-{number}") for number in range(1, 4)))


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"edge-1": "192.168.1.0/24", "edge-2": "192.168.2.0/24"}, {}),
        (
            {"edge-1": "192.168.1.0/24", "edge-3": "192.168.0.0/16"},
            {
                "edge-1": "pool 192.168.1.0/24 of the daemon on edge-1 overlaps pool 192.168.0.0/16 of the "
                "daemon on edge-3",
                "edge-3": "pool 192.168.0.0/16 of the daemon on edge-3 overlaps pool 192.168.1.0/24 of the "
                "daemon on edge-1",
            },
        ),
        (
            {"edge-1": "10.0.11.0/24"},
            {
                "edge-1": "pool 10.0.11.0/24 of the daemon on edge-1 overlaps pool 10.0.10.0/23 of slot b on "
                "edge-2"
            },
        ),
        (
            {"edge-1": "172.16.0.2/31"},
            {"edge-1": "pool 172.16.0.2/31 of the daemon on edge-1 overlaps address 172.16.0.2 on edge-2"},
        ),
    ],
)
def test_pools_of_own_daemons_are_compared_with_all_that_other_gateways_have(
    own: dict[str, str], said: dict[str, str]
) -> None:
    pools = {name: (ip_network(pool),) for name, pool in own.items()}
    assert shared_pools(FLEET, pools) == said
    assert shared_pools(FLEET.model_copy(update={"nat": True}), pools) == {}


def test_pools_of_thousands_of_gateways_are_compared_at_once() -> None:
    many = fleet(*(gateway(f"edge-{number}") for number in range(1, 2_001)))
    first = int(ip_network("192.168.0.0/16").network_address)
    own = {one.name: (ip_network((first + 4 * at, 30)),) for at, one in enumerate(many.gateways)}
    assert shared_pools(many, own) == {}
    own["edge-1"] = own["edge-2"]
    assert set(shared_pools(many, own)) == {"edge-1", "edge-2"}
