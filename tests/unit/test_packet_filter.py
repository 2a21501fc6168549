"""Rules of nftables as the model reads them, for statements that not every kernel has."""

from collections.abc import Mapping
from ipaddress import IPv4Network
from typing import Any

import pytest

from activities.drivers.runtime.host.nftables_rules import NftRule
from activities.drivers.runtime.host.packet_filter import Rules, Table
from activities.drivers.runtime.host.tunnel_rules import OUT, Looking, Users

USERS = Users("a", IPv4Network("10.9.0.0/24"), "vpna")
PACKETS = Looking(USERS, OUT, (USERS,))


def verdicts(*statements: Mapping[str, Any]) -> list[str]:
    """Return the verdicts of a chain with one rule, which has these statements."""
    rule = NftRule("nftables, chain f of table ip site", "ip site f", handle=1, expr=statements)
    table = Table("ip site", "nftables", {"f": [rule]}, {"f": ("forward", "filter", 0, "drop")})
    [(_, entries)] = Rules((table,)).of("forward", "filter", PACKETS)
    return [entry.verdict for entry in entries[:-1]]  # without the policy


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
