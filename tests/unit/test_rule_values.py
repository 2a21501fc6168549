"""Values of rules: those that have to do with a network are found among many."""

import random
from ipaddress import IPv4Address, IPv4Network, ip_network

import pytest

from activities.drivers.runtime.host.rule_values import Values, networks_of

OF = random.Random(3)


def _some_value() -> object:
    first = IPv4Address((10 << 24) + OF.randrange(4096))
    if OF.random() < 0.2:
        return {"range": [str(first), str(first + OF.randrange(64))]}
    length = OF.choice((8, 20, 24, 28, 31, 32))
    network = ip_network(f"{first}/{length}", strict=False)
    if OF.random() < 0.3:
        return {"prefix": {"addr": str(network.network_address), "len": length}}
    return str(first) if length == 32 else str(network)


@pytest.mark.parametrize("length", [8, 16, 22, 25, 30, 32])
def test_every_value_that_shares_an_address_with_the_network_is_found_and_no_other(length: int) -> None:
    many = Values(_some_value() for _ in range(500))
    for _ in range(20):
        network = IPv4Network(((10 << 24) + OF.randrange(4096), length), strict=False)
        shares = [
            at for at, one in enumerate(many) if any(each.overlaps(network) for each in networks_of(one))
        ]
        assert many.around(network) == shares


def test_a_network_of_the_other_version_has_none_and_what_is_no_address_is_always_there() -> None:
    some = Values(["10.8.0.0/24", {"set": "of something"}, "fd00:8::/64", "host.example"])
    assert some.around(ip_network("10.8.0.0/26")) == [0, 1, 3]
    assert some.around(ip_network("fd00:8::/48")) == [1, 2, 3]


def test_the_same_values_in_another_order_are_the_same_condition_and_others_are_not() -> None:
    many = [f"192.0.2.{one}" for one in range(200)]
    assert Values(many).unread("saddr") == Values(reversed(many)).unread("saddr")
    assert Values(many).unread("saddr") != Values(many[1:]).unread("saddr")
    assert Values(many).unread("saddr", {0}) == Values(many[1:]).unread("saddr")
    assert Values(many).unread("saddr", range(200)) == []
