"""Routing rules of the host (`ip rule`), which lead packets to a table of routes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from activities.drivers.runtime.host.packet_filter import Rule, Step, Table
from activities.drivers.runtime.host.rule_conditions import ALWAYS, BY_MARK, Packets, both_of, one_of, unless
from activities.drivers.runtime.host.rule_values import Values

_ENDS = {"src": "saddr", "dst": "daddr", "iif": "iif"}
_DETACHED = ("iif_detached", "oif_detached")
_LEADS = {*_ENDS, *_DETACHED, "priority", "not", "srclen", "dstlen", "table", "action", "protocol"}
"""What ip(8) lists of a rule that is no further condition."""


@dataclass(frozen=True)
class RoutingRule(Rule):
    """A routing rule, with what ip(8) lists of it."""

    listed: Mapping[str, Any] = field(default_factory=dict)

    def steps(self, table: Table, packets: Packets) -> tuple[list[Step], bool]:
        """Return to which routes it leads the packets; where these find none there, the next rule counts."""
        del table
        said = self.listed
        if "oif" in said and "not" not in said:
            return [], False  # forwarded packets have no such device before they have a route
        when, asks = [ALWAYS], False
        for end in (one for one in _ENDS if said.get(one, "all") != "all"):
            when = both_of(when, one_of(_ENDS[end], Values([_end(said, end)]), packets))
            asks = asks or packets.differ_by(_ENDS[end])
        if more := {name: said[name] for name in said if name not in _LEADS}:
            by = BY_MARK * ("fwmark" in more)
            when = both_of(when, [frozenset({f"{by}{json.dumps(more, sort_keys=True)}"})])
        if "not" in said:
            when = unless(when)
        to = f"routes of {said.get('table', '')} {said.get('action', '')}"
        return [Step(one | {"no route before"}, to) for one in when], asks


def written(said: Mapping[str, Any]) -> str:
    """Return a routing rule as a person types it."""
    ends = (("from", "src"), ("to", "dst"))
    asks = [f"{word} {_end(said, end)}" for word, end in ends if end in said]
    asks += [f"{word} {said[word]}" for word in ("iif", "oif", "fwmark") if word in said]
    leads = said.get("table", said.get("action", ""))
    return f"{'not ' * ('not' in said)}{' '.join(asks)} lookup {leads}"


def _end(said: Mapping[str, Any], name: str) -> str:
    return f"{said[name]}/{said[f'{name}len']}" if f"{name}len" in said else str(said[name])
