"""Routing rules of the host (`ip rule`), which lead packets to a table of routes."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from activities.drivers.runtime.host.packet_filter import Rule, Step, Table
from activities.drivers.runtime.host.rule_conditions import ALWAYS, BY_MARK, Packets, both_of, one_of, unless
from activities.drivers.runtime.host.rule_values import Values

_PORTS = ("sport", "dport")
_FIELDS = {"src": "saddr", "dst": "daddr", "iif": "iif", "ipproto": "l4proto"} | {one: one for one in _PORTS}
"""By what ip(8) lists of a rule, the field of packets that it asks for."""
_RANGES = {f"{name}_{end}" for name in _PORTS for end in ("start", "end")}
_DETACHED = ("iif_detached", "oif_detached")
_MARKS = ("fwmark", "fwmask")
_LEADS = {
    *(*_FIELDS, *_RANGES, *_DETACHED, *_MARKS),
    *("priority", "not", "srclen", "dstlen", "table", "action", "protocol"),
}
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
        for name, value in _asked(said):
            when = both_of(when, one_of(_FIELDS[name], Values([value]), packets))
            asks = asks or packets.differ_by(_FIELDS[name])
        if "fwmark" in said:
            bits = f"/{said['fwmask']}" if "fwmask" in said else ""
            when = both_of(when, [frozenset({f"{BY_MARK}mark is {said['fwmark']}{bits}"})])
        if more := {name: said[name] for name in said if name not in _LEADS}:
            when = both_of(when, [frozenset({json.dumps(more, sort_keys=True)})])
        if "not" in said:
            when = unless(when)
        to = f"routes of {said.get('table', '')} {said.get('action', '')}"
        return [Step(one | {"no route before"}, to) for one in when], asks


def written(said: Mapping[str, Any]) -> str:
    """Return a routing rule as a person types it."""
    words = {"src": "from", "dst": "to"}
    asks = [f"{words[name]} {_end(said, name)}" for name in words if name in said]
    asks += [f"{word} {said[word]}" for word in ("iif", "oif", "ipproto") if word in said]
    marks = "/".join(said[one] for one in _MARKS if one in said)
    ends = {name: "-".join(map(str, _ports(said, name))) for name in _PORTS}
    asks += [f"{word} {value}" for word, value in {"fwmark": marks, **ends}.items() if value]
    leads = said.get("table", said.get("action", ""))
    return f"{'not ' * ('not' in said)}{' '.join(asks)} lookup {leads}"


def _asked(said: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield what the rule asks of fields of packets, in the form that nft(8) gives values."""
    for name in _FIELDS:
        if ports := _ports(said, name):
            yield name, {"range": [ports[0], ports[-1]]}
        elif said.get(name, "all") != "all":
            yield name, _end(said, name)


def _ports(said: Mapping[str, Any], name: str) -> list[int]:
    """Return the port that the rule asks for in that field, or the first and the last one; else nothing."""
    if name not in _PORTS:
        return []
    return [said[one] for one in (name, f"{name}_start", f"{name}_end") if one in said]


def _end(said: Mapping[str, Any], name: str) -> str:
    return f"{said[name]}/{said[f'{name}len']}" if f"{name}len" in said else str(said[name])
