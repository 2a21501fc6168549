"""What a fleet file may say, and the sentences for what it may not."""

from datetime import timedelta
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from policies.drift import described_by, disagreements
from policies.model.errors import Unknown
from policies.model.fleet import Automation, Fleet, Gateway, Limits
from tests.unit.fleets import fleet, gateway, pool


def refusal(**limits: Any) -> str:
    with pytest.raises(ValidationError) as refused:
        Limits.model_validate(limits)
    (error,) = refused.value.errors()
    return ".".join(map(str, error["loc"])) + ": " + error["msg"].removeprefix("Value error, ")


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        ({"drain_deadline": 8}, "drain_deadline: 8 has no unit; write 8s, 8m or 8h"),
        ({"drain_deadline": "8s"}, "drain_deadline: 0:00:08 would end sessions by force; write 1m or more"),
        ({"drain_deadline": "0s"}, "drain_deadline: 0:00:00 would end"),
        ({"lease": "0s"}, "lease: 0:00:00 is no lease; write one from 5s to 15m"),
        ({"lease": "30d"}, "lease: 30 days, 0:00:00 is no lease; write one from 5s to 15m"),
        ({"steps": [1]}, "steps: 1 stops before everybody has changed; end with 100%"),
        (
            {"steps": ["50%", "25%"]},
            "steps: 50%, 25% must grow, counts before shares; write them like",
        ),
        ({"steps": ["25%", 1, "100%"]}, "steps: 25%, 1, 100% must grow, counts before shares"),
        ({"steps": ["1", "1", "100%"]}, "steps: 1, 1, 100% must grow"),
        ({"steps": ["250%"]}, "steps: 250%: no share is above 100%; write 100% for everybody"),
        ({"steps": []}, "steps: Tuple should have at least 1 item"),
        ({"shares": [50, 10, 100]}, "shares: 50, 10, 100 must grow and end with 100; write them like 10, 50"),
        ({"shares": [10, 50]}, "shares: 10, 50 must grow and end with 100"),
        ({"shares": [0, 100]}, "shares.0: Input should be greater than or equal to 1"),
        ({"canary_share": 101}, "canary_share: Input should be less than or equal to 100"),
        ({"holdout": "100%"}, "holdout: String should match"),
        ({"failures": 5}, "failures: Input should be a valid string"),
        ({"failures": "100%"}, "failures: String should match"),
        ({"automation": "auto"}, "automation: Input should be 'observe', 'ask' or 'act'"),
        ({"headroom": float("inf")}, "headroom: Input should be a finite number"),
        (
            {"drain_deadline": "10m", "drain": {"warning": "30m"}},
            ": drain.warning (0:30:00) is longer than drain_deadline (0:10:00); shorten drain.warning",
        ),
        (
            {"drain": {"batch": 50, "pause": "10s", "logins_per_minute": 100}},
            ": one gateway alone may end 300 sessions a minute (drain.batch every drain.pause)",
        ),
    ],
)
def test_a_wrong_limit_is_refused_with_what_to_write_instead(limits: dict[str, Any], sentence: str) -> None:
    assert refusal(**limits).startswith(sentence)


def test_limits_that_are_sound_at_their_bounds_are_taken() -> None:
    made = Limits(
        steps=("1", "5", "10%", "100%"),
        drain_deadline=timedelta(minutes=30),
        lease=timedelta(minutes=15),
        holdout="0",
        failures="0.5%",
        shares=(100,),
    )
    assert Limits.model_validate_json(made.model_dump_json()) == made
    assert Limits().automation is Automation.ACT
    assert Limits.model_validate({"holdout": 2, "steps": [1, "100%"]}).holdout == "2"


def changed(name: str, **fields: Any) -> Gateway:
    return Gateway.model_validate(gateway(name).model_dump() | fields)


def refused_fleet(*gateways: Gateway, **fields: Any) -> str:
    with pytest.raises(ValidationError) as refused:
        Fleet(name="edge", product="ocserv", gateways=gateways, **fields)
    return str(refused.value.errors()[0]["msg"]).removeprefix("Value error, ")


def test_a_name_or_an_address_given_twice_is_refused_with_whose_it_is() -> None:
    assert refused_fleet(gateway("gw-1"), gateway("gw-1")) == "gateway gw-1 is listed twice"
    other = changed("gw-2", addresses=gateway("gw-1").addresses)
    assert refused_fleet(gateway("gw-1"), other) == (
        "address 172.16.0.1 is given twice (gw-1, gw-2); each gateway has its own"
    )
    twice = changed("gw-1", addresses=("192.0.2.1", "192.0.2.1"))
    assert refused_fleet(twice).startswith("address 192.0.2.1 is given twice (gw-1)")


def slots(*pools: Any, six: tuple[Any, ...] = (None, None)) -> tuple[dict[str, Any], ...]:
    return tuple(
        {"name": name, "port": 4431 + at, "device": name, "pool4": str(pools[at]), "pool6": six[at]}
        for at, name in enumerate("ab")
    )


def test_pools_that_overlap_or_are_shared_are_refused_with_both_slots() -> None:
    mine = gateway("gw-1")
    whole = pool(2).supernet(prefixlen_diff=2)
    other = changed("gw-9", slots=slots(whole, pool(100)))
    assert refused_fleet(mine, other) == (
        "slot a of gateway gw-9 and slot a of gw-1 share a pool: give each gateway pools of its own, "
        "or say `nat: true` if every gateway translates its users' addresses"
    )
    with pytest.raises(ValidationError, match="slot a of gateway gw-1 and slot b of gw-1 share"):
        changed("gw-1", slots=slots(whole, pool(2)))
    with pytest.raises(ValidationError, match="share a pool"):
        changed("gw-1", slots=slots(pool(1), pool(2), six=("fd00::/112", "fd00::ff00/120")))


def test_gateways_that_translate_addresses_may_use_the_same_pools() -> None:
    same = [changed(f"gw-{n}", slots=slots(pool(1), pool(2))) for n in (1, 2)]
    assert (
        Fleet(name="edge", product="ocserv", nat=True, gateways=tuple(same)).gateway("gw-2").slots
        == same[1].slots
    )


@given(st.lists(st.tuples(st.integers(0, 255), st.integers(24, 30)), min_size=2, max_size=8))
def test_pools_are_refused_exactly_when_two_of_them_overlap(drawn: list[tuple[int, int]]) -> None:
    free = [IPv4Network((int(IPv4Address("10.9.0.0")) + at, bits), strict=False) for at, bits in drawn]
    apart = [IPv4Network((int(IPv4Address("10.10.0.0")) + 4 * n, 30)) for n in range(len(free))]
    gateways = tuple(
        changed(f"gw-{n}", slots=slots(mine, other))
        for n, (mine, other) in enumerate(zip(free, apart, strict=True))
    )
    overlap = any(a.overlaps(b) for at, a in enumerate(free) for b in free[:at])
    if overlap:
        assert "share a pool" in refused_fleet(*gateways)
    else:
        assert [one.slots for one in fleet(*gateways).gateways] == [one.slots for one in gateways]


def test_a_gateway_without_ipv4_is_scraped_at_its_ipv6_address() -> None:
    six = changed("gw-1", addresses=(IPv6Address("2001:db8::1"),))
    assert six.metrics_target == "[2001:db8::1]:9500"
    both = changed("gw-1", addresses=(IPv6Address("2001:db8::1"), IPv4Address("192.0.2.1")))
    assert both.metrics_target == "192.0.2.1:9500"


def test_a_fleet_finds_its_gateways_by_name_also_after_a_copy_with_others() -> None:
    first = fleet(gateway("gw-1"), gateway("gw-2"))
    assert first.gateway("gw-2").name == "gw-2"
    copied = first.model_copy(update={"gateways": (gateway("gw-3", group="west"),)})
    assert copied.gateway("gw-3").group == "west"
    assert copied.groups == {"west": (gateway("gw-3", group="west"),)}
    with pytest.raises(Unknown, match="edge has no gateway "):
        copied.gateway("gw-1")
    assert first == fleet(gateway("gw-1"), gateway("gw-2"))


def on(node: str, name: str, cluster: str = "west", **more: Any) -> Gateway:
    """Return that gateway as a node of a cluster."""
    at = {"runtime": "kubernetes", "placement": {"cluster": cluster, "node": node}} | more
    return Gateway.model_validate(gateway(name).model_dump() | at)


def test_a_gateway_of_a_cluster_takes_orders_under_its_name_and_its_cluster_under_another() -> None:
    described = fleet(on("worker-1", "gw-1"), on("worker-2", "gw-2"), gateway("gw-3"))
    placed, host = described.gateway("gw-1"), described.gateway("gw-3")
    assert placed.task_queue == "gateway/edge/gw-1"
    assert placed.cluster is not None
    assert placed.cluster.task_queue == "gateway/edge/west"
    assert (host.cluster, described.clusters) == (None, ("west",))


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"placement": None}, "gateway gw-1: nothing says which node it is; write placement with cluster"),
        ({"runtime": "host"}, "gateway gw-1 has a placement, and runtime host has none; write runtime: kub"),
        (
            {"runtime": "podman"},
            "gateway gw-1 has a placement, and runtime podman has none; write runtime: kub",
        ),
        ({"placement": {"cluster": "west", "node": "Worker"}}, "String should match pattern"),
    ],
)
def test_a_gateway_is_a_node_or_a_host_and_not_half_of_each(said: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        on("worker-1", "gw-1", **said)


def test_a_node_is_one_gateway_and_no_cluster_is_called_like_one() -> None:
    assert fleet(on("worker-1", "gw-1"), on("worker-1", "gw-2", cluster="east")).clusters == ("east", "west")
    with pytest.raises(ValidationError, match="node worker-1 of cluster west is two gateways"):
        fleet(on("worker-1", "gw-1"), on("worker-1", "gw-2"))
    with pytest.raises(ValidationError, match="gw-2 is a gateway and a cluster, which both take orders"):
        fleet(on("worker-1", "gw-1", cluster="gw-2"), gateway("gw-2"))


def ike(**other: Any) -> dict[str, Any]:
    slots = [
        {
            "name": name,
            "port": 500,
            "address": f"10.255.0.{2 * number + 1}",
            "device": f"ike{name}",
            "pool4": f"10.9.{number}.0/24",
        }
        for number, name in enumerate("ab")
    ]
    said = {"name": "gw", "daemon": "strongswan", "addresses": ["192.0.2.1"], "port": 500, "slots": slots}
    for key, value in other.items():
        if key in (*said, "inside"):
            said[key] = value
        else:
            slots[0] = {one: what for one, what in (slots[0] | {key: value}).items() if what is not None}
    return said


def test_instances_of_a_daemon_with_fixed_ports_have_networks_of_their_own() -> None:
    described = Gateway.model_validate(ike())
    assert described.has_own_networks
    assert [str(slot.cable) for slot in described.slots] == ["10.255.0.0/31", "10.255.0.2/31"]
    assert not gateway("gw").has_own_networks
    assert "address" not in gateway("gw").slots[0].model_dump()


def test_the_inside_of_a_gateway_is_a_namespace_of_its_host_and_only_own_networks_lead_there() -> None:
    described = Gateway.model_validate(ike(inside="protected"))
    assert described.inside == "protected"
    assert [str(slot.host_end) for slot in described.slots] == ["10.255.0.0", "10.255.0.2"]
    assert "inside" not in Gateway.model_validate(ike()).model_dump()
    assert disagreements(described, described_by(Gateway.model_validate(ike()))) == (
        "inside: fleet.yaml says protected, its agent's file no",
    )
    with pytest.raises(ValidationError, match="instances of ocserv have no network of their own"):
        Gateway.model_validate(gateway("gw").model_dump() | {"inside": "protected"})
    with pytest.raises(ValidationError, match="should match pattern"):
        Gateway.model_validate(ike(inside="../protected"))


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (
            {"address": None},
            "strongswan has fixed ports, so each instance has a network of its own; give slot a",
        ),
        ({"address": "10.255.0.2"}, "two slots have an address of 10.255.0.2/31; one is the host's"),
        ({"address": "192.0.2.0"}, "192.0.2.0/31 of a slot's address is a part of 192.0.2.1/32"),
        ({"address": "10.9.1.7"}, "10.9.1.6/31 of a slot's address is a part of 10.9.1.0/24"),
        ({"port": 443}, "users of strongswan dial 500, and 4500 then; write port: 500"),
        ({"addresses": ["2001:db8::1"]}, "are reached by IPv4 only yet; give it an IPv4 address"),
        (
            {"pool6": "fd00::/64"},
            "are reached by IPv4 only yet; give it an IPv4 address, and leave pool6 out",
        ),
        ({"daemon": "openvpn", "port": 443}, "slot a has an address, and openvpn has a port of the host"),
    ],
)
def test_what_an_own_network_cannot_be_is_refused_with_what_to_write_instead(
    said: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        Gateway.model_validate(ike(**said))
    assert sentence in str(refused.value)


def test_a_product_called_as_a_daemon_is_what_all_its_gateways_run() -> None:
    one = gateway("gw-1")
    with pytest.raises(
        ValidationError, match="product is openvpn and gateway gw-1 runs ocserv; write daemon: openvpn"
    ):
        Fleet(name="edge", product="openvpn", gateways=(one,))
    other = Gateway.model_validate(gateway("gw-2").model_dump() | {"daemon": "openvpn"})
    assert Fleet(name="edge", product="vpn", gateways=(one, other)).product == "vpn"


def test_a_host_is_written_as_before_there_were_clusters() -> None:
    assert "placement" not in fleet(gateway("gw-1")).model_dump_json()


def test_a_gateway_of_containers_is_a_host_and_runs_what_was_tried_in_one() -> None:
    described = gateway("gw-1").model_dump() | {"runtime": "podman"}
    assert Gateway.model_validate(described).cluster is None
    with pytest.raises(
        ValidationError, match=r"openvpn is not carried by runtime podman yet: .* no container"
    ):
        Gateway.model_validate(described | {"daemon": "openvpn"})
