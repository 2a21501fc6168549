"""Rules of iptables, of either kernel interface, as iptables-save(8) prints them."""

import re
from collections.abc import Iterable, Iterator, Sequence
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
    ZONE,
    IpSet,
    Rule,
    Step,
    Table,
)
from activities.drivers.runtime.host.rule_conditions import (
    ALWAYS,
    UNREAD,
    Packets,
    both_of,
    named,
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
    **dict.fromkeys(("--dport", "--dports", "--destination-port", "--destination-ports"), "dport"),
    "--ports": "port",  # of either end
    **dict.fromkeys(("--sport", "--sports", "--source-port", "--source-ports"), "sport"),
    **dict.fromkeys(("--ctstate", "--state"), "ct state"),
    "--ctstatus": "ct status",
    "--ctdir": "ct direction",
    **{
        f"--ct{way[:4]}{end}{kind}": f"ct {way} {f'proto-{end}' if kind else f'{end[0]}addr'}"
        for way in ("original", "reply")
        for end in ("src", "dst")
        for kind in ("", "port")
    },
    "--src-type": "saddr type",
    "--dst-type": "daddr type",
    "--physdev-in": "iif",
    "--physdev-out": "oif",
    "--mark": "mark",
}
_WORDS = re.compile(r"\S+")
_ALIKE = frozenset(
    _WORDS.findall("""
    -f --syn --tcp-flags --tcp-option --mss --chunk-types --dccp-types --dccp-option --icmp-type
    --icmpv6-type --igmp-type --mh-type --ahspi --ahlen --ahres --espspi --length --pkt-type --cpu
    --dscp --dscp-class --tos --reqid --spi --tunnel-src --tunnel-dst
    --ecn-tcp-cwr --ecn-tcp-ece --ecn-ip-ect --ttl-eq --ttl-lt --ttl-gt --ttl --hl-eq
    --hl-lt --hl-gt --fragid --fraglen --fragres --fragfirst --fragmore --fraglast --header --soft --dst-len
    --dst-opts --hbh-len --hbh-opts --rt-type --rt-segsleft --rt-len --rt-0-res --rt-0-addrs --rt-0-not-strict
    --flags --any --string --hex-string --algo --from --to --icase --genre --log --l7proto
    --limit-iface-in --limit-iface-out --physdev-is-in --physdev-is-out --physdev-is-bridged
    --loose --validmark --accept-local --invert --transparent --nowildcard --restore-skmark
    --dir --pol --proto --strict --mode --next --socket-exists
    --cluster-total-nodes --cluster-local-node --cluster-local-nodemask --cluster-hash-seed
    --limit --limit-burst --connlimit-upto --connlimit-above --connlimit-mask --connlimit-saddr
    --connlimit-daddr --connbytes --connbytes-dir --connbytes-mode --quota --every --packet --probability
    --hashlimit --hashlimit-upto --hashlimit-above --hashlimit-burst --hashlimit-mode --hashlimit-srcmask
    --hashlimit-dstmask --hashlimit-htable-size --hashlimit-htable-max --hashlimit-htable-expire
    --hashlimit-htable-gcinterval --hashlimit-rate-match --hashlimit-rate-interval
    --rateest-delta --rateest1 --rateest2 --rateest --rateest-lt --rateest-gt --rateest-eq --rateest-bps
    --rateest-bps1 --rateest-bps2 --rateest-pps --rateest-pps1 --rateest-pps2
    --name --rsource --rdest --mask --set --rcheck --update --remove --seconds --reap --hitcount --rttl
    --datestart --datestop --timestart --timestop --monthdays --weekdays --contiguous --kerneltz --condition
    --helper --ctproto --ctexpire --mac-source --src-cc --dst-cc --source-country --destination-country
    --return-nomatch --update-counters --update-subcounters --packets-eq --packets-lt --packets-gt
    --bytes-eq --bytes-lt --bytes-gt
    """)
) | {"mac src", "mac dst", *(f"-m {one}" for one in ("socket", "rpfilter", "unclean"))}
"""Options that tell no packets apart which are compared.

A hardware address is that of a single user or router, and a country has no address of a pool. Packets of
users have left their tunnel before a policy of IPsec is asked for. What hashes, limits and lists of recent
addresses count is counted for packets of any kind.
"""
_ASKS_NOTHING = frozenset(_WORDS.findall("tcp udp udplite sctp dccp icmp icmp6 ah esp comment mh conntrack"))
_TEXTS = frozenset(
    _WORDS.findall(
        "--comment --name --hashlimit-name --string --hex-string --helper --label --path --condition"
    )
)
"""Options whose value is any text, even one that begins as an option does."""
_WORD = re.compile(r'"((?:[^"\\]|\\.)*)"|(\S+)')
_SIDES = {"src": ("saddr",), "dst": ("daddr", "dport")}
_SET_FIELDS = {
    **{(kind, side): (f"{side[0]}addr",) for kind in ("ip", "net") for side in ("src", "dst")},
    ("port", "dst"): ("l4proto", "dport"),
    ("port", "src"): ("l4proto", "sport"),
    ("iface", "src"): ("iif",),
    ("iface", "dst"): ("oif",),
    ("mark", "src"): ("mark",),
    ("mark", "dst"): ("mark",),
}
_NO_CONDITIONS = frozenset({"--comment", "--hashlimit-name", "--nfacct-name"})
"""Options that ask for nothing; by which name a limit counts makes no difference."""


@dataclass(frozen=True)
class SavedRule(Rule):
    """A rule as iptables-save(8) prints it."""

    @cached_property
    def options(self) -> list[tuple[bool, str, list[str], Values]]:
        """Return its options as `options_of` has them, each with the values that it asks for."""
        return [(*one, _saved_values(one[1], " ".join(one[2]))) for one in options_of(self.text)]

    def steps(self, table: Table, packets: Packets) -> tuple[list[Step], bool]:
        """Return what its target does with the packets that meet its options."""
        when, asks, steps = [ALWAYS], False, list[Step]()
        for negated, option, values, asked_for in self.options:
            if option in {"-j", "-g"}:
                if values[0] in table.chains:
                    steps += [Step(one, chain=values[0], comes_back=option == "-j") for one in when]
                else:
                    steps += [Step(one, verdict) for verdict in done_by(values) for one in when]
                break
            if option in _NO_CONDITIONS:
                continue
            if option == "--match-set":
                met, asked = _of_set(table, values, packets)
            else:
                field = _FIELDS.get(option, option)
                telling = _telling([field])
                if option == "--name" and packets.differ_by("daddr" if "--rdest" in self.text else "saddr"):
                    if f"--set --name {values[0]} " in self.text:
                        steps += [Step(one, f'{MARKS_CONNECTIONS}--name is "{values[0]}"') for one in when]
                    else:
                        telling = ["mark"]  # users are in the list by other rules, as they have a mark
                met = one_of(named(field, telling, packets), asked_for, packets)
                if option.startswith("--physdev-"):  # of a port, while the packet comes by its bridge
                    met = [frozenset(f"port of a bridge: {each}" for each in one) for one in met]
                asked = packets.differ_by(field)
            asks = asks or asked
            when = both_of(when, unless(met) if negated else met)
        return steps, asks


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
    zone = f"{ZONE}{target[2]}" if said.startswith("CT --zone ") else f"{EFFECT}{said}"
    effect = UNTRACKED if said == "CT --notrack" else zone
    return [effect, ACCEPT] if name == "TPROXY" else [effect]


def _saved_source(target: Sequence[str]) -> str:
    """Return the verdict of `SNAT --to-source`, whose address may stand before ports."""
    to = dict(pairwise(target)).get("--to-source", "")
    if to.startswith("["):
        to = to[1:].partition("]")[0]
    return f"{TO}{to.partition(':')[0] if '.' in to else to}" if to else TRANSLATE


def _telling(fields: Iterable[str]) -> list[str]:
    """Return the fields that may tell packets apart."""
    return [one for one in fields if one not in _ALIKE]


def _of_set(table: Table, values: Sequence[str], packets: Packets) -> tuple[list[Conditions], bool]:
    """Return when the packets are in a set of ipset(8), and whether it asks for that by which they differ."""
    name, sides = values[0], values[-1].split(",")
    ipset = table.ipsets.get(name)
    if ipset is None:
        hidden = any(packets.differ_by(one) for side in sides for one in _SIDES.get(side, ()))
        return [frozenset({f"{UNREAD * hidden}--match-set {' '.join(values)}"})], False
    fields = _fields_of(ipset, sides)
    names = [named(one, _telling([one]), packets) for one in fields]
    one = len(names) == 1
    met = one_of(names[0], ipset.elements, packets) if one else together(names, ipset.elements, packets)
    return met, any(map(packets.differ_by, fields))


def _saved_values(option: str, value: str) -> Values:
    """Return the values of an option in the form that nft(8) gives them."""
    if option not in _FIELDS:
        return Values([value])
    if option in {"--src-range", "--dst-range"}:
        return Values([{"range": value.split("-")}])
    if _FIELDS[option] in {"iif", "oif"}:
        return Values([f"{value[:-1]}*" if value.endswith("+") else value])
    if _FIELDS[option].endswith(("port", "proto-src", "proto-dst")):
        ports = [[*map(int, part.split(":"))] for part in value.split(",")]
        return Values(part[0] if len(part) == 1 else {"range": part} for part in ports)
    return Values(
        value.lower().split(",") if _FIELDS[option].startswith("ct ") or "type" in option else [value]
    )


def options_of(text: str) -> Iterator[tuple[bool, str, list[str]]]:
    """Yield each option of a rule with its values, and whether it is negated; a target is the last one.

    Modules are left out, since their options say what is asked. One that has none here is an option itself.
    """
    words = [(plain or re.sub(r"\\(.)", r"\1", quoted), bool(plain)) for quoted, plain in _WORD.findall(text)]
    at = 2
    while at < len(words):
        negated = words[at] == ("!", True)
        option, end = words[at + negated][0], at + negated + 1
        begin = end
        if option in {"-j", "-g"}:
            yield negated, option, [word for word, _ in words[end:]]
            return
        end += option in _TEXTS
        while end < len(words) and not _is_option(*words[end]):
            end += 1
        values, at = [word for word, _ in words[begin:end]], end
        if option != "-m":
            yield negated, option, values
        elif values[0] not in _ASKS_NOTHING and (end == len(words) or words[end][0] in {"-m", "-j", "-g"}):
            yield False, f"-m {values[0]}", []


def _is_option(word: str, plain: bool) -> bool:
    return plain and (word.startswith("--") or re.fullmatch("!|-[a-z]", word) is not None)
