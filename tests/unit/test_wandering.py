"""Packets of live sessions whose users' addresses change: how the steering table finds their instance."""

import json
from ipaddress import ip_address

from activities.drivers.daemon.port import Wandering
from activities.drivers.steering.nftables_ruleset import Ruleset, count_of_rules, parse, transaction
from tests.drivers.gateway_lab import gateway

OPENVPN = Wandering(of_a_session="@th,64,5 9", number="@th,72,24")
BOTH = ("udp", "tcp")


def test_numbers_are_asked_before_everything_else_and_of_data_packets_only() -> None:
    wanted = Ruleset(steer=4432, wandering={5: 4431})
    lines = transaction(wanted, Ruleset(), gateway(), BOTH, OPENVPN).splitlines()
    rules = [line for line in lines if line.startswith("add rule")]
    assert rules[0] == (
        "add rule inet penstock prerouting ip daddr { 10.77.0.1 } udp dport 443 @th,64,5 9 redirect to "
        ":@th,72,24 map @wandering"
    )
    assert rules[1] == rules[0].replace("ip daddr { 10.77.0.1 }", "ip6 daddr { fd77::1 }")
    assert not [rule for rule in rules[2:] if "wandering" in rule]
    assert len(rules) == count_of_rules(wanted, gateway(), BOTH, OPENVPN)
    assert lines[-1] == "add element inet penstock wandering { 5 : 4431 }"


def test_only_what_differs_is_written() -> None:
    before = Ruleset(steer=4432, wandering={1: 4431, 2: 4431, 3: 4431})
    after = Ruleset(steer=4432, wandering={2: 4431, 3: 4433, 9: 4431})
    lines = transaction(after, before, gateway(), BOTH, OPENVPN).splitlines()
    assert lines[-2:] == [
        "delete element inet penstock wandering { 1, 3 }",
        "add element inet penstock wandering { 3 : 4433, 9 : 4431 }",
    ]
    same = transaction(after, after, gateway(), BOTH, OPENVPN)
    assert "element inet penstock wandering" not in same


def test_a_product_whose_packets_do_not_say_whose_they_are_has_the_table_that_it_had() -> None:
    wanted = Ruleset(steer=4432, old={ip_address("10.77.0.11"): 4431}, wandering={5: 4431})
    assert "wandering" not in transaction(wanted, Ruleset(), gateway())


def test_numbers_are_read_back() -> None:
    listing = {
        "nftables": [
            {"map": {"name": "wandering", "elem": [[5, 4431], [70000, 4432]]}},
            {"map": {"name": "steer", "elem": [[443, 4432]]}},
        ]
    }
    assert parse(json.dumps(listing), gateway()).wandering == {5: 4431, 70000: 4432}
