"""Rules of iptables, of either kernel interface, as iptables-save(8) prints them."""

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

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
    IpSet,
    Rule,
    Step,
    Table,
)
from activities.drivers.runtime.host.rule_conditions import (
    ALWAYS,
    BY_MARK,
    UNREAD,
    Packets,
    both_of,
    one_of,
    together,
    unless,
)
from activities.drivers.runtime.host.rule_values import Conditions, Values

_TARGETS = {
    "ACCEPT": ACCEPT,
    "DROP": DROP,
    "REJECT": DROP,
    "RETURN": RETURN,
    "TCPMSS": CLAMPS,
    "NOTRACK": UNTRACKED,
    "MASQUERADE": TRANSLATE,
    "NETMAP": ONE_BY_ONE,
}
_ONLY_REPORTS = frozenset(
    {"LOG", "NFLOG", "ULOG", "AUDIT", "TRACE", "ACCOUNT", "RATEEST", "IDLETIMER", "LED", "SET"}
)
_FIELDS = {
    "-s": "saddr",
    "-d": "daddr",
    "-i": "iif",
    "-o": "oif",
    "-p": "l4proto",
    "--src-range": "saddr",
    "--dst-range": "daddr",
    **dict.fromkeys(("--dport", "--dports", "--destination-port", "--destination-ports", "--ports"), "dport"),
    **dict.fromkeys(("--ctstate", "--state"), "ct state"),
    "--ctstatus": "ct status",
    "--ctorigdstport": "ct original proto-dst",
    "--dst-type": "daddr type",
}
_SIDES = {"src": ("saddr",), "dst": ("daddr", "dport")}
_SET_FIELDS = {
    **{(kind, side): (f"{side[0]}addr",) for kind in ("ip", "net") for side in ("src", "dst")},
    ("port", "dst"): ("l4proto", "dport"),
    ("port", "src"): ("l4proto", "sport"),
    ("iface", "src"): ("iif",),
    ("iface", "dst"): ("oif",),
}
_NO_CONDITIONS = frozenset({"-m", "--comment", "--hashlimit-name"})
"""Options that ask for nothing; by which name a limit counts makes no difference."""


@dataclass(frozen=True)
class SavedRule(Rule):
    """A rule as iptables-save(8) prints it."""

    @cached_property
    def options(self) -> list[tuple[bool, str, list[str], Values]]:
        """Return its options as `options_of` has them, each with the values that it asks for."""
        words = shlex.split(self.text)[2:]
        return [(*one, _saved_values(one[1], " ".join(one[2]))) for one in options_of(words)]

    def steps(self, table: Table, packets: Packets) -> tuple[list[Step], bool]:
        """Return what its target does with the packets that meet its options."""
        when, asks = [ALWAYS], False
        for negated, option, values, asked_for in self.options:
            value, name = " ".join(values), _FIELDS.get(option, option)
            if option in {"-j", "-g"}:
                if values[0] in table.chains:
                    return [Step(one, chain=values[0], comes_back=option == "-j") for one in when], asks
                return [Step(one, verdict) for verdict in done_by(values) for one in when], asks
            if option in _NO_CONDITIONS:
                continue
            if (found := _of_set(table, option, values, packets)) is not None:
                met, asked = found
                asks = asks or asked
                when = both_of(when, unless(met) if negated else met)
            elif packets.reads(name):
                met = one_of(name, asked_for, packets)
                asks = asks or packets.differ_by(name)
                when = both_of(when, unless(met) if negated else met)
            else:
                sides = values[-1].split(",") if option == "--match-set" else ()
                hidden = any(packets.differ_by(one) for side in sides for one in _SIDES.get(side, ()))
                said = f"{BY_MARK * (option == '--mark')}{'! ' * negated}{option} {value}"
                when = both_of(when, [frozenset({f"{UNREAD * hidden}{said}"})])
        return [], asks


def _fields_of(ipset: IpSet, sides: Sequence[str]) -> list[str]:
    """Return which fields of packets a rule looks up in a set, by the sides (`src`, `dst`) that it names."""
    if ipset.kinds == ("port",):
        return ["dport" if sides[0] == "dst" else "sport"]
    return [
        name
        for kind, side in zip(ipset.kinds, sides, strict=False)
        for name in _SET_FIELDS.get((kind, side), (f"{kind} {side}",))
    ]


def done_by(target: Sequence[str]) -> list[str]:
    """Return the verdicts of a target of iptables, which stands before its options."""
    name, said = target[0], " ".join(target)
    if name in _TARGETS:
        return [_TARGETS[name]]
    if name in {"MARK", "CONNMARK"}:
        return [f"{MARKS_CONNECTIONS if name == 'CONNMARK' else MARKS}{said}"]
    if name in {"NFQUEUE", "QUEUE"}:
        options = dict(pairwise(target))
        return [f"{QUEUES} {options.get('--queue-num', options.get('--queue-balance', 0))}", ACCEPT]
    if name in {"SNAT", "DNAT", "REDIRECT"}:
        return [_saved_source(target) if name == "SNAT" else said]
    if name in _ONLY_REPORTS:
        return []
    effect = UNTRACKED if said == "CT --notrack" else f"{EFFECT}{said}"
    return [effect, ACCEPT] if name == "TPROXY" else [effect]


def _saved_source(target: Sequence[str]) -> str:
    """Return the verdict of `SNAT --to-source`, whose address may stand before ports."""
    to = dict(pairwise(target)).get("--to-source", "")
    if to.startswith("["):
        to = to[1:].partition("]")[0]
    return f"{TO}{to.partition(':')[0] if '.' in to else to}" if to else TRANSLATE


def _of_set(
    table: Table, option: str, values: Sequence[str], packets: Packets
) -> tuple[list[Conditions], bool] | None:
    """Return when the packets are in a set of ipset(8); None where the option or its set says nothing."""
    ipset = table.ipsets.get(values[0]) if option == "--match-set" else None
    fields = _fields_of(ipset, values[1].split(",")) if ipset is not None else []
    if ipset is None or not any(map(packets.reads, fields)):
        return None
    one = len(fields) == 1
    met = one_of(fields[0], ipset.elements, packets) if one else together(fields, ipset.elements, packets)
    return met, any(map(packets.differ_by, fields))


def _saved_values(option: str, value: str) -> Values:
    """Return the values of an option in the form that nft(8) gives them."""
    if option not in _FIELDS:
        return Values()
    if option in {"--src-range", "--dst-range"}:
        return Values([{"range": value.split("-")}])
    if option in {"-i", "-o"}:
        return Values([f"{value[:-1]}*" if value.endswith("+") else value])
    if _FIELDS[option] in {"dport", "ct original proto-dst"}:
        ports = [[*map(int, part.split(":"))] for part in value.split(",")]
        return Values(part[0] if len(part) == 1 else {"range": part} for part in ports)
    return Values(value.lower().split(",") if option.startswith("--") else [value])


def options_of(words: Sequence[str]) -> Iterator[tuple[bool, str, list[str]]]:
    """Yield each option of a rule with its values, and whether it is negated; a target is the last one."""
    at = 0
    while at < len(words):
        negated = words[at] == "!"
        option, end = words[at + negated], at + negated + 1
        if option in {"-j", "-g"}:
            yield negated, option, list(words[end:])
            return
        while (
            end < len(words) and not words[end].startswith("--") and not re.fullmatch(r"!|-[a-z]", words[end])
        ):
            end += 1
        yield negated, option, list(words[at + negated + 1 : end])
        at = end
