"""Packets of live sessions whose users' addresses change: how the steering table finds their instance."""

import json
from collections.abc import Mapping
from ipaddress import ip_address

from activities.drivers.daemon.ocserv.daemon import Ocserv
from activities.drivers.daemon.openvpn.daemon import OpenVpn
from activities.drivers.daemon.port import Dialled
from activities.drivers.steering.homes import Home
from activities.drivers.steering.nftables_ruleset import (
    Number,
    Ruleset,
    count_of_rules,
    parse,
    transaction,
)
from tests.drivers.gateway_lab import gateway

OPENVPN = OpenVpn.wandering
BOTH = (Dialled("udp", 443), Dialled("tcp", 443))


def numbered(ports: Mapping[int, int]) -> dict[Number, Home]:
    return {("peer_id", number): port for number, port in ports.items()}


def test_numbers_are_asked_before_everything_else_and_of_data_packets_only() -> None:
    wanted = Ruleset(steer=4432, numbers={("peer_id", 5): 4431})
    lines = transaction(wanted, Ruleset(), gateway(), BOTH, OPENVPN).splitlines()
    rules = [line for line in lines if line.startswith("add rule")]
    assert rules[0] == (
        "add rule inet penstock prerouting ip daddr { 10.77.0.1 } udp dport 443 @th,64,5 9 redirect to "
        ":@th,72,24 map @peer_id"
    )
    assert rules[1] == rules[0].replace("ip daddr { 10.77.0.1 }", "ip6 daddr { fd77::1 }")
    assert not [rule for rule in rules[2:] if "peer_id" in rule]
    assert len(rules) == count_of_rules(wanted, gateway(), BOTH, OPENVPN)
    assert lines[-1] == "add element inet penstock peer_id { 0x5 : 4431 }"


def test_only_what_differs_is_written() -> None:
    before = Ruleset(steer=4432, numbers=numbered({1: 4431, 2: 4431, 3: 4431}))
    after = Ruleset(steer=4432, numbers=numbered({2: 4431, 3: 4433, 9: 4431}))
    lines = transaction(after, before, gateway(), BOTH, OPENVPN).splitlines()
    assert lines[-2:] == [
        "delete element inet penstock peer_id { 0x1, 0x3 }",
        "add element inet penstock peer_id { 0x3 : 4433, 0x9 : 4431 }",
    ]
    same = transaction(after, after, gateway(), BOTH, OPENVPN)
    assert "element inet penstock peer_id" not in same


def test_a_product_whose_packets_do_not_say_whose_they_are_has_the_table_that_it_had() -> None:
    wanted = Ruleset(steer=4432, old={ip_address("10.77.0.11"): 4431})
    assert "peer_id" not in transaction(wanted, Ruleset(), gateway(), BOTH[1:])


def test_who_sends_from_elsewhere_in_the_middle_of_a_session_is_learned_and_then_refused() -> None:
    draining = Ruleset(steer=4432).pinning({}, draining=(4431,))
    lines = transaction(draining, Ruleset(), gateway(), BOTH[1:], mid_session=Ocserv.mid_session).splitlines()
    rules = [line for line in lines if line.startswith("add rule")]
    to_old = "add rule inet penstock prerouting ip daddr { 10.77.0.1 } udp dport 4431"
    assert [rule for rule in rules if rule.startswith(to_old)] == [
        f'{to_old} update @learned4 {{ ip saddr timeout 600s : 4431 }} comment "learn 4431"',
        f"{to_old} @th,64,8 23 reject with icmpx port-unreachable",
    ]
    assert len(rules) == count_of_rules(draining, gateway(), BOTH[1:], mid_session=Ocserv.mid_session)


def test_nobody_is_refused_where_nothing_drains_or_clients_do_not_heed_it() -> None:
    serving = Ruleset(steer=4432)
    assert "reject" not in transaction(
        serving, Ruleset(), gateway(), BOTH[1:], mid_session=Ocserv.mid_session
    )
    draining = serving.pinning({}, draining=(4431,))
    assert "reject" not in transaction(draining, Ruleset(), gateway(), BOTH, OPENVPN, OpenVpn.mid_session)


def test_numbers_are_read_back() -> None:
    listing = {
        "nftables": [
            {"map": {"name": "peer_id", "elem": [[5, 4431], [70000, 4432]]}},
            {"map": {"name": "steer", "elem": [[443, 4432]]}},
        ]
    }
    assert parse(json.dumps(listing), gateway()).numbers == numbered({5: 4431, 70000: 4432})
