"""Rules of nftables as nft(8) lists them in JSON."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from activities.drivers.runtime.host.iptables_rules import done_by
from activities.drivers.runtime.host.packet_filter import (
    ACCEPT,
    CLAMPS,
    DROP,
    EFFECT,
    MARKS,
    MARKS_CONNECTIONS,
    ONE_BY_ONE,
    QUEUES,
    RETURN,
    TO,
    TRANSLATE,
    UNTRACKED,
    ZONE,
    Rule,
    Step,
    Table,
)
from activities.drivers.runtime.host.rule_conditions import (
    ALWAYS,
    HIDDEN,
    MARK_FIELDS,
    TRANSPORTS,
    UNREAD,
    Packets,
    both_of,
    candidates,
    named,
    one_of,
    together,
    unless,
)
from activities.drivers.runtime.host.rule_values import Conditions, Values

_DECIDES_NOTHING = frozenset({"counter", "log", "comment", "last", "continue", "flow"})
_VERDICTS = {
    "accept": ACCEPT,
    "drop": DROP,
    "reject": DROP,
    "return": RETURN,
    "masquerade": TRANSLATE,
    "notrack": UNTRACKED,
}
_EFFECTS = frozenset(
    {"tproxy", "dup", "fwd", "synproxy", "reset", "secmark", "ct helper", "ct timeout", "ct expectation"}
)
_WITH_LIMITS = frozenset({"set", "map", "add", "update", "meter"})
"""Statements that note an element, and go on only where what they count for it allows so."""
_COUNTED = frozenset({"limit", "quota", "ct count", "connlimit"})
"""Statements by which a rule goes on for some packets of any kind."""
_OPERATORS = frozenset({"&", "|", "^", "<<", ">>", "concat", "prefix", "range", "set", "elem"})
_ALIKE = frozenset(
    {
        *("ip", "ip6", "ether", "vlan", "arp", "@ll", "exthdr", "ip option", "tcp option", "sctp chunk"),
        *("dccp option", "socket", "osf", "numgen", "jhash", "symhash", "fib exists"),
        *("rt mtu", "rt ipsec", "length", "random", "cpu", "pkttype", "nftrace"),
        *("time", "day", "hour", "ipsec", "secpath", "secmark"),
        *(
            f"ct {key}{way}"
            for key in (
                "expiration",
                "helper",
                "l3proto",
                "protocol",
                "bytes",
                "packets",
                "avgpkt",
                "secmark",
            )
            for way in ("", " original", " reply")
        ),
    }
    | TRANSPORTS
)
"""Fields, or kinds of fields, that tell no packets apart which are compared.

A hardware address is that of a single user or router. Hashes share packets out by their fields: each value of
the field may be on either side.
"""
_ENDS = frozenset({"saddr", "daddr", "proto-src", "proto-dst"})
_TWO_WORDS = ("ip option", "tcp option", "sctp chunk", "dccp option")
_SPORT_BY_OFFSET = {"base": "th", "offset": 0, "len": 16}
_DPORT_BY_OFFSET = {"base": "th", "offset": 16, "len": 16}
_ORDERED: Mapping[str, Callable[[int], tuple[int, int]]] = {
    "<": lambda one: (0, one - 1),
    "<=": lambda one: (0, one),
    ">": lambda one: (one + 1, 2**32),
    ">=": lambda one: (one, 2**32),
}


@dataclass(frozen=True)
class NftRule(Rule):
    """A rule with its statements; its text is where it is, and nft(8) is asked for what it says."""

    handle: int = 0
    expr: Sequence[Mapping[str, Any]] = ()

    @property
    def key(self) -> tuple[str, ...]:
        """Return by what it is told apart from others."""
        return (*super().key, str(self.handle))

    @property
    def is_hidden(self) -> bool:
        """Return whether the rule has a part of iptables: nft(8) lists only the name of such a part."""
        return any("xt" in part for part in self.expr)

    def steps(self, table: Table, packets: Packets) -> tuple[list[Step], bool]:
        """Return what its statements do, one after the other."""
        when, asks, steps = [ALWAYS], False, list[Step]()
        for part in self.expr:
            (kind, value), *_ = part.items()
            if kind == "match":
                met, asked = _matched(table, value, packets)
                when, asks = both_of(when, met), asks or asked
            elif kind not in _DECIDES_NOTHING:
                before, when = when, list[Conditions]()
                for said, met, asked in _chosen(table, part, packets):
                    asks, here, verdicts = asks or asked, both_of(before, met), [*_verdict(said)]
                    steps += [replace(one, when=both) for one in verdicts for both in here]
                    behind = [ALWAYS] if verdicts else [frozenset(_unevaluated(table, self, said))]
                    when += both_of(here, behind)
        return steps, asks


def _unevaluated(table: Table, rule: NftRule, part: Mapping[str, Any]) -> Iterator[str]:
    """Yield when a rule goes on behind a statement such as a limit, of which the packet alone says nothing.

    What was counted so far is left out, and by which set it is counted: neither makes a difference.
    """
    (kind, value), *_ = part.items()
    if kind == "mangle":
        return
    if kind == "text" and re.fullmatch(r"(add|update) @\S+ \{(?!.*\b(limit|quota|count)\b).*\}", value):
        return  # an element is noted
    if kind == "xt" and (value or {}).get("type") != "target":
        if value.get("name") != "comment":
            yield f"{HIDDEN}{rule.text} {rule.handle}"
    elif kind in _WITH_LIMITS:
        stated = value.get("stmt") or table.counted.get(value.get("set", ""), [])
        for one in [stated] if isinstance(stated, dict) else stated:
            if not _DECIDES_NOTHING & one.keys():
                yield from _unevaluated(table, rule, one)
    else:
        counted = {"used", "used_unit"} & value.keys() if isinstance(value, dict) else ()
        plain = {name: said for name, said in value.items() if name not in counted} if counted else value
        yield f"{UNREAD * (kind not in _COUNTED)}{json.dumps({kind: plain}, sort_keys=True)}"


def _chosen(table: Table, said: Any, packets: Packets) -> Iterator[tuple[Any, list[Conditions], bool]]:
    """Yield the statement with each value that its map may choose, when that is so, and whether it asks.

    Verdicts, translations, marks and all else that a statement sets are chosen by a map alike.
    """
    found = _map_in(said)
    if found is None:
        yield said, [ALWAYS], False
        return
    [chooses] = found.values()
    for to, met, asked in _mapped(table, chooses["key"], chooses["data"], packets):
        for whole, more, also in _chosen(table, _with(said, found, to), packets):
            yield whole, both_of(met, more), asked or also


def _map_in(said: Any) -> Mapping[str, Any] | None:
    """Return the first map in a statement, None where it has none."""
    if isinstance(said, dict):
        if any(isinstance(one, dict) and {"key", "data"} <= one.keys() for one in said.values()):
            return said
        said = [*said.values()]
    inner = map(_map_in, said) if isinstance(said, list) else ()
    return next((one for one in inner if one is not None), None)


def _with(said: Any, found: Mapping[str, Any], to: Any) -> Any:
    """Return the statement with that value in the place of the map."""
    if said is found:
        return to
    if isinstance(said, dict):
        return {name: _with(one, found, to) for name, one in said.items()}
    return [_with(one, found, to) for one in said] if isinstance(said, list) else said


def _mapped(
    table: Table, left: Any, data: Any, packets: Packets
) -> Iterator[tuple[Any, list[Conditions], bool]]:
    """Yield to what a map leads, when it does so, and whether it asks for that by which packets differ."""
    pairs = table.sets.get(data, Values()) if isinstance(data, str) else Values(data.get("set", []))
    names, keys = _names(left, packets), pairs.keys
    if not any(map(packets.differ_by, names)):
        for to, some in pairs.by_target:
            met, asked = _valued(left, some, packets)
            yield to, _by_transport(left, met, packets), asked
        return
    for at in candidates(names, _columns(left, keys), packets):
        met, asked = _valued(left, Values([keys[at]]), packets)
        yield pairs[at][1], _by_transport(left, met, packets), asked


def _verdict(said: Mapping[str, Any]) -> Iterator[Step]:
    (kind, value), *_ = said.items()
    if kind in _VERDICTS:
        yield Step(ALWAYS, _VERDICTS[kind])
    elif kind in {"jump", "goto"}:
        yield Step(ALWAYS, chain=value["target"], comes_back=kind == "jump")
    elif kind == "queue":
        yield from _queued((value or {}).get("num", 0))
    elif kind == "mangle":
        yield from _set(value)
    elif kind in _EFFECTS:
        yield Step(ALWAYS, f"{EFFECT}{json.dumps(said, sort_keys=True)}")
    elif kind in {"snat", "dnat", "redirect"}:
        plain = f"{kind} {json.dumps(value, sort_keys=True)}"
        yield Step(ALWAYS, _source(value.get("addr")) if kind == "snat" else plain)
    elif kind == "xt" and (value or {}).get("type") == "target":
        yield from (Step(ALWAYS, verdict) for verdict in done_by([value["name"]]))


def _source(to: Any) -> str:
    """Return the verdict of a translation to that address, range or network; ports make no difference."""
    to = to["concat"][0] if _is_concat(to) else to
    if isinstance(to, dict) and "prefix" in to:
        return ONE_BY_ONE
    if isinstance(to, dict) and "range" in to:
        to = "-".join(to["range"])
    return f"{TO}{to if isinstance(to, str) else json.dumps(to, sort_keys=True)}"


def _set(value: Mapping[str, Any]) -> Iterator[Step]:
    """Yield what it does that a field of packets is set."""
    name = _field(value["key"])
    if name in MARK_FIELDS:
        kind = MARKS_CONNECTIONS if name == "ct mark" else MARKS
        yield Step(ALWAYS, f"{kind}{json.dumps(value, sort_keys=True)}")
    elif name == "ct zone":
        yield Step(ALWAYS, f"{ZONE}{json.dumps(value['value'], sort_keys=True)}")
    elif name != "nftrace":
        yield Step(ALWAYS, CLAMPS if '"maxseg"' in name else f"{EFFECT}{json.dumps(value, sort_keys=True)}")


def _queued(number: Any) -> Iterator[Step]:
    """Yield what a queue does: a program looks into the packets, and those that it accepts pass the chain."""
    first, last = number["range"] if isinstance(number, dict) else (number, number)
    yield Step(ALWAYS, f"{QUEUES} {first}" if first == last else f"{QUEUES} {first}:{last}")
    yield Step(ALWAYS, ACCEPT)


def _matched(table: Table, match: Mapping[str, Any], packets: Packets) -> tuple[list[Conditions], bool]:
    """Return when the packets meet a match, and whether it asks for that by which they differ."""
    left, right, op = match["left"], match["right"], match["op"]
    if not all(packets.has(header) for header in _headers(left)):
        return [], False
    if op in _ORDERED and isinstance(right, int):
        op, right = "==", {"range": _ORDERED[op](right)}
    if isinstance(right, bool) or op not in {"==", "!=", "in", "!"}:
        fields = ["fib exists"] if isinstance(right, bool) and "fib" in left else [*_fields(left)]
        name = named(json.dumps(match, sort_keys=True), _telling(fields), packets)
        return [frozenset({name})], any(map(packets.differ_by, fields))
    met, asked = _valued(left, _elements(table, right), packets)
    return _by_transport(left, unless(met) if op in {"!=", "!"} else met, packets), asked


def _is_concat(value: Any) -> bool:
    return isinstance(value, dict) and "concat" in value


def _names(left: Any, packets: Packets) -> list[str]:
    return [_name(one, packets) for one in (left["concat"] if _is_concat(left) else [left])]


def _name(left: Any, packets: Packets) -> str:
    fields = [*_fields(left)]
    text = fields[0] if [*_parts(left)] == [left] else json.dumps(left, sort_keys=True)
    return named(text, _telling(fields), packets)


def _telling(fields: Iterable[str]) -> list[str]:
    """Return the fields that may tell packets apart."""
    return [one for one in fields if one not in _ALIKE and _kind(one) not in _ALIKE]


def _kind(name: str) -> str:
    return next((one for one in _TWO_WORDS if name.startswith(one)), name.partition(" ")[0])


def _columns(left: Any, values: Values) -> tuple[Values, ...]:
    return values.columns if _is_concat(left) else (values,)


def _elements(table: Table, right: Any) -> Values:
    if isinstance(right, str) and right.startswith("@"):
        return table.sets.get(right, Values())
    if isinstance(right, list):
        return Values(right)
    return Values(right["set"] if isinstance(right, dict) and "set" in right else [right])


def _valued(left: Any, values: Values, packets: Packets) -> tuple[list[Conditions], bool]:
    """Return when the field, or several together, have one of these values."""
    if not all(packets.has(header) for header in _headers(left)):
        return [], False
    names = _names(left, packets)
    met = together(names, values, packets) if _is_concat(left) else one_of(names[0], values, packets)
    return met, any(map(packets.differ_by, names))


def _by_transport(left: Any, met: list[Conditions], packets: Packets) -> list[Conditions]:
    """Return when these are met by packets of the transport whose header is looked at."""
    for header in TRANSPORTS.intersection(_headers(left)):
        met = both_of(met, one_of(named("l4proto", ["l4proto"], packets), Values([header]), packets))
    return met


def _parts(left: Any) -> Iterator[Any]:
    """Yield each field of packets that the left side of a match looks at."""
    if isinstance(left, list):
        for one in left:
            yield from _parts(one)
    elif isinstance(left, dict):
        for kind, value in left.items():
            if kind in _OPERATORS:
                yield from _parts(value)
            else:
                yield {kind: value}


def _fields(left: Any) -> Iterator[str]:
    return map(_field, _parts(left))


def _headers(left: Any) -> Iterator[str]:
    """Yield the headers that packets must have to be looked at."""
    return (one["payload"].get("protocol", "") for one in _parts(left) if "payload" in one)


def _field(left: Any) -> str:
    """Return which field of packets is looked at: `saddr`, `iif`, `dport`, `ct state`, `tcp flags`."""
    kind, asked = next(iter(left.items())) if isinstance(left, dict) and left else ("", left)
    if kind == "payload" and "tunnel" not in asked:
        raw = f"@{asked.get('base')} {asked.get('offset')},{asked.get('len')}"
        plain = f"{asked.get('protocol')} {asked.get('field')}" if "field" in asked else raw
        return _header_field(asked) or plain
    if kind == "meta":
        return str(asked.get("key")).removesuffix("name")
    if kind == "ct":
        key, way = str(asked.get("key")).rpartition(" ")[2], asked.get("dir", "")
        return f"ct {way} {key}" if key in _ENDS else f"ct {key} {way}".strip()
    if kind == "fib" and asked.get("result") == "type":
        return f"{'daddr' if 'daddr' in asked['flags'] else 'saddr'} type"
    if kind == "rt" or (kind == "socket" and asked.get("key") == "cgroupv2"):
        return f"{kind} {asked.get('key')}".removeprefix("socket ")
    return f"{kind} {json.dumps(asked, sort_keys=True)}"


def _header_field(asked: Mapping[str, Any]) -> str | None:
    """Return the name of a field of a header, None where it has none here."""
    name = str(asked.get("field"))
    if name in {"saddr", "daddr"}:
        return name if asked["protocol"] in {"ip", "ip6"} else None
    if name in {"protocol", "nexthdr"}:
        return "l4proto"
    if name == "sport" or asked == _SPORT_BY_OFFSET:
        return "sport"
    return "dport" if name == "dport" or asked == _DPORT_BY_OFFSET else None
