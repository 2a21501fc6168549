"""Rules of nftables as the model reads them, for statements that not every kernel has."""

from collections.abc import Mapping
from ipaddress import IPv4Network
from typing import Any

import pytest

from activities.drivers.runtime.host.nftables_rules import NftRule
from activities.drivers.runtime.host.packet_filter import Rules, Table
from activities.drivers.runtime.host.rule_conditions import is_steady, never_both
from activities.drivers.runtime.host.rule_marks import mattering
from activities.drivers.runtime.host.tunnel_rules import OUT, Looking, Users

USERS = Users("a", IPv4Network("10.9.0.0/24"), "vpna")
PACKETS = Looking(USERS, OUT, (USERS,))


def verdicts(*statements: Mapping[str, Any]) -> list[str]:
    """Return the verdicts of a chain with one rule, which has these statements."""
    rule = NftRule("nftables, chain f of table ip site", "ip site f", handle=1, expr=statements)
    table = Table("ip site", "nftables", {"f": [rule]}, {"f": ("forward", "filter", 0, "drop")})
    [(_, entries)] = Rules((table,)).of("forward", "filter", PACKETS)
    return [entry.verdict for entry in entries if not entry.rule.is_policy]


def test_a_queue_is_what_a_program_looks_into_and_ends_the_chain() -> None:
    assert verdicts({"queue": {"num": 3, "flags": ["bypass"]}}) == ["effect: queue 3", "accept"]
    assert verdicts({"queue": None}) == ["effect: queue 0", "accept"]
    assert verdicts({"queue": {"num": {"range": [0, 3]}}}) == ["effect: queue 0:3", "accept"]


@pytest.mark.parametrize(
    "statement", [{"log": None}, {"counter": {"packets": 1, "bytes": 9}}, {"comment": "x"}]
)
def test_a_statement_that_only_reports_is_nothing(statement: Mapping[str, Any]) -> None:
    assert verdicts(statement) == []


def test_a_proxy_changes_packets_that_the_next_statement_accepts() -> None:
    assert verdicts({"tproxy": {"port": 3129}}, {"accept": None}) == [
        'effect: {"tproxy": {"port": 3129}}',
        "accept",
    ]


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [
        ('iif is "eth0"', 'iif is "eth1" or "wg0"', True),
        ('iif is "eth0"', 'iif is "eth0" or "wg0"', False),
        ('iif is "eth*"', 'iif is "eth0"', False),
        ('iif is "eth*"', 'iif is "wg0"', True),
        ('not iif is "eth*"', 'iif is "eth0"', True),
        ('not iif is "eth0"', 'iif is "eth*"', False),
        ('not iif is "eth0"', 'not iif is "eth1"', False),
        ('not (iif is "eth0")', 'iif is "eth0"', True),
        ('not (iif is "eth0" and users +0/25)', 'iif is "eth0"', False),
        ('iif is "eth0"', 'oif is "eth1"', False),
        ('iif is "br0"', 'port of a bridge: iif is "eth1"', False),
        ('saddr is "10.0.0.0/8"', 'saddr is {"prefix": {"addr": "10.9.0.0", "len": 16}}', False),
        ('saddr is "10.0.0.0/8"', 'saddr is {"range": ["192.0.2.1", "192.0.2.9"]} or "11.0.0.0/8"', True),
        ('saddr is "0.0.0.0/0"', 'saddr is "2001:db8::/32"', True),
        ("saddr is one of 99: 0a1b", 'saddr is "10.0.0.0/8"', False),
    ],
)
def test_conditions_that_no_packet_meets_together_are_told(one: str, other: str, apart: bool) -> None:
    assert never_both(frozenset({one, "x"}), frozenset({other})) is apart
    assert never_both(frozenset({other}), frozenset({one})) is apart


def test_what_may_be_otherwise_at_the_next_rule_is_not_steady() -> None:
    assert all(map(is_steady, ('not iif is "eth0"', "dport is 80 or 443", "users +64/26")))
    changing = ('--limit is "1/hour"', "by mark: mark is 1", "random is 7", 'unread: saddr is "x"')
    assert not any(map(is_steady, (*changing, 'not (iif is "eth0" and --limit is "1/hour")')))


SETS = "marks: MARK --set-xmark "
SETS_BY_NFT = 'marks: {"key": {"meta": {"key": "mark"}}, "value": '
SERVICE = '{"|": [{"meta": {"key": "mark"}}, 16384]}'


@pytest.mark.parametrize(
    ("condition", "mark", "matters"),
    [
        ('by mark: mark is "0x5"', f"{SETS}0x5/0xffffffff", True),
        ('by mark: mark is "0x5"', f"{SETS}0x7/0xffffffff", False),
        ('by mark: mark is "0x0"', f"{SETS}0x7/0xffffffff", True),
        ('not by mark: mark is "0x5"', f"{SETS}0x7/0xffffffff", False),
        ('by mark: mark is "0x5/0xf"', f"{SETS}0x15/0xff", True),
        ('by mark: mark is "0x5/0xff"', f"{SETS}0x500/0xff00", False),
        ('by mark: mark is "0x5"', f"{SETS}0x4/0x0", True),
        ('by mark: mark is "0x5"', "marks: of connections: CONNMARK --restore-mark", True),
        ("by mark: mark is 5", f"{SETS_BY_NFT}5}}", True),
        ("by mark: mark is 5", f"{SETS_BY_NFT}7}}", False),
        ('by mark: {"&": [{"meta": {"key": "mark"}}, 16384]} is 16384', f"{SETS_BY_NFT}{SERVICE}}}", True),
        ('by mark: {"&": [{"meta": {"key": "mark"}}, 255]} is 5', f"{SETS_BY_NFT}{SERVICE}}}", False),
        ("by mark: mark is 5 or 6", f"{SETS_BY_NFT}7}}", True),
        ('by mark: {"fwmark": "0x5"}', f"{SETS}0x7/0xffffffff", True),
    ],
)
def test_a_mark_matters_to_what_may_ask_for_it(condition: str, mark: str, matters: bool) -> None:
    assert bool(mattering(condition, [(mark, "if []")])) is matters
