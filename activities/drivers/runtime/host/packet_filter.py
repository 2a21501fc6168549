"""The host's packet filter, reduced to what it does with packets of one kind.

Rules of nftables are read as nft(8) lists them, those of iptables as iptables-save(8) prints them, of either
kernel interface. The routing rules (`ip rule`) are read as one more chain.

Every chain is reduced for packets of one kind: rules that these packets never meet are gone. Conditions on
anything else stay, unread: they are the same for packets of another kind. So what two kinds of packets meet
is compared without knowing every condition: `missing` returns what one of them has and the other has not.
"""

import json
import re
import shlex
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property
from itertools import pairwise, product, takewhile
from math import inf
from pathlib import Path
from time import monotonic
from typing import Any, Protocol, TypeGuard

from activities.drivers.programs import Completed, run
from activities.drivers.runtime.host.own_network import NAMES
from activities.drivers.runtime.host.rule_values import ANY, Conditions, Network, Values
from activities.drivers.runtime.host.translated import OURS
from policies.lines import lines_in
from policies.model.errors import Unavailable

ACCEPT, DROP, RETURN = "accept", "drop", "return"
TRANSLATE = "translate"
"""How the verdict of a rule begins that translates packets' source; alone it is to the host's own address."""
TO, ONE_BY_ONE = f"{TRANSLATE} to ", f"{TRANSLATE} one by one"
ALWAYS: Conditions = frozenset()
ROUTING = "ip rule"
"""The routing rules of the host, which lead packets of a pool or a device to a table of routes."""
UNREAD = "unread: "
"""How a condition begins of which it is not known whether it asks for that by which the packets differ."""
MARKS = "marks: "
"""How the verdict of a rule begins that only marks packets."""
EFFECT = "effect: "
"""How the verdict of a rule begins that changes packets, or has a program look into them."""
CLAMPS, QUEUES, UNTRACKED = f"{EFFECT}segment size", f"{EFFECT}queue", f"{EFFECT}not tracked"
KEEPS = "keeps addresses"
"""The verdict of a rule behind which no rule of its chain translates the packets."""
BY_MARK = "by mark: "
"""How a condition begins that asks for a mark of packets: it depends on the rules that mark them."""
READ_WITHIN = timedelta(seconds=5)
COMPARED_WITHIN = timedelta(seconds=3)
"""A check before an upgrade has 10 s: it reads the packet filter once, and compares it twice."""
DEEPEST = 16
"""Chains that are followed into each other; the kernel allows as many (nft(8), `jump`)."""
OLDER_TABLES = {
    4: Path("/proc/thread-self/net/ip_tables_names"),
    6: Path("/proc/thread-self/net/ip6_tables_names"),
}
SIXTH = Path("/proc/thread-self/net/if_inet6")
"""Is there where the kernel has IPv6."""
_FAMILIES = {4: ("ip", "inet"), 6: ("ip6", "inet")}
_PREFIXES = {"ip": "iptables", "ip6": "ip6tables"}


class Packets(Protocol):
    """Packets of one kind, as rules meet them. Fields have the names that `_field` gives them."""

    @property
    def version(self) -> int:
        """Return their version of IP."""

    def has(self, header: str) -> bool:
        """Return whether they have the header, such as `ip6` or `udp`, as far as that is known."""

    def reads(self, name: str) -> bool:
        """Return whether conditions on that field are evaluated, and not left unread."""

    def differ_by(self, name: str) -> bool:
        """Return whether it is a field by which packets of the compared kinds differ."""

    def address_in(self, name: str) -> Network | None:
        """Return the network from which their address in that field is, None where that is not known."""

    def own(self, address: str) -> str:
        """Return how an address is named that belongs to them, such as one of their pool; else itself."""

    def meets(self, name: str, values: Values) -> list[Conditions]:
        """Return when they have one of these values in the field: a list of ways to do so."""


def is_of_version(header: str, version: int) -> bool:
    """Return whether packets of that version of IP may have the header."""
    return {"ip": 4, "arp": 4, "icmp": 4, "ip6": 6, "icmpv6": 6}.get(header, version) == version


@dataclass(frozen=True)
class Step:
    """What a rule does when one of its conditions is met: a verdict, or a chain that is followed."""

    when: Conditions
    verdict: str = ""
    chain: str = ""
    comes_back: bool = True


@dataclass(frozen=True)
class Entry:
    """A verdict on packets, when it is reached, and the rule that says so."""

    when: Conditions
    verdict: str
    rule: "Rule"
    asks: bool = False
    """Whether a rule on the way to it asks for that by which the packets differ."""

    @property
    def is_mark(self) -> bool:
        """Whether it marks the packets."""
        return self.verdict.startswith(MARKS)

    @property
    def is_effect(self) -> bool:
        """Whether it changes the packets, or has a program look into them."""
        return self.verdict.startswith(EFFECT)

    @property
    def translates(self) -> bool:
        """Whether it translates the packets' source."""
        return self.verdict.startswith(TRANSLATE)

    @property
    def goes_on(self) -> bool:
        """Whether the packets go on to the next rule."""
        return self.is_mark or self.is_effect or self.verdict == KEEPS

    @property
    def is_unread(self) -> bool:
        """Whether one of its conditions may ask for that, too, and is not understood."""
        return any(one.startswith(UNREAD) for one in self.when)


@dataclass(frozen=True)
class Rule:
    """A rule as its tool lists it; `handle` is set where nft(8) has to be asked for its text."""

    place: str
    text: str = ""
    handle: int | None = None
    expr: Sequence[Mapping[str, Any]] = ()
    namespace: str | None = None
    """The network namespace in which it is, None for the host's own."""

    @cached_property
    def options(self) -> list[tuple[bool, str, list[str], Values]]:
        """Return the options of one of iptables, as `options_of` has them, each with what it asks for."""
        words = shlex.split(self.text)[2:]
        return [(*one, _saved_values(one[1], " ".join(one[2]))) for one in options_of(words)]

    @property
    def is_policy(self) -> bool:
        """Whether it is what a chain does with all that no rule has decided."""
        return self.text.startswith("policy ")


@dataclass(frozen=True)
class IpSet:
    """A set of ipset(8): what its elements consist of (`net`, `port`), and the elements."""

    kinds: tuple[str, ...]
    elements: Values

    def fields(self, sides: Sequence[str]) -> list[str]:
        """Return which fields of packets a rule looks up, by the sides (`src`, `dst`) that it names."""
        if self.kinds == ("port",):
            return ["dport" if sides[0] == "dst" else "sport"]
        return [
            name
            for kind, side in zip(self.kinds, sides, strict=False)
            for name in _SET_FIELDS.get((kind, side), (f"{kind} {side}",))
        ]


@dataclass
class Table:
    """One table: its chains by name, and those that packets meet, with hook, type, priority and policy."""

    name: str
    kind: str
    chains: dict[str, list[Rule]] = field(default_factory=dict)
    bases: dict[str, tuple[str, str, int, str]] = field(default_factory=dict)
    sets: dict[str, Values] = field(default_factory=dict)
    counted: dict[str, Any] = field(default_factory=dict)
    """By set, what is counted for each element that is added to it."""
    ipsets: Mapping[str, "IpSet"] = field(default_factory=dict)
    """The sets of ipset(8), for rules of iptables."""
    masquerades: frozenset[str] = frozenset()
    """The addresses that masquerading gives to packets: a translation to one of them is the same."""

    def entries(self, chain: str, packets: Packets, until: float = inf, depth: int = 0) -> list[Entry]:
        """Return the verdicts on these packets in order, with those of chains that are followed.

        Raises:
            Unavailable: That is not done by then, as `monotonic` counts, or there are too many of them.
        """
        found: list[Entry] = []
        still: Conditions = ALWAYS
        for rule in self.chains.get(chain, ()) if depth <= DEEPEST else ():
            if monotonic() > until:
                raise Unavailable(
                    f"chain {chain} of table {self.name} cannot be compared within "
                    f"{COMPARED_WITHIN.total_seconds():g} s; put the addresses of its rules into sets, or "
                    "ask again when the host is less busy"
                )
            try:
                steps, asks = _steps(self, rule, packets)
            except _TooManyError as error:
                raise Unavailable(f"a rule of chain {chain} of table {self.name} {error}") from error
            for step in steps:
                when = step.when | still
                inner = [Entry(ALWAYS, step.verdict, rule, asks)] if step.verdict not in {"", RETURN} else []
                if step.chain:
                    inner = self.entries(step.chain, packets, until, depth + 1)
                found += [
                    Entry(when | one.when, one.verdict, rule if asks else one.rule, asks or one.asks)
                    for one in inner
                ]
                if any(not one.when and not one.goes_on for one in inner) and not when:
                    return found
                if step.verdict == RETURN or (step.chain and not step.comes_back):
                    if not step.when:
                        return found
                    still |= {f"not ({' and '.join(sorted(step.when))})"}
        return found


@dataclass(frozen=True)
class Rules:
    """The host's packet filter, without the table of the steering."""

    tables: Sequence[Table]
    until: float = inf
    """By when they have to be reduced, as `monotonic` counts."""

    def within(self, time: timedelta) -> "Rules":
        """Return the same rules, which are reduced within that time from now or not at all."""
        return replace(self, until=monotonic() + time.total_seconds())

    def of(
        self, hook: str, kind: str, packets: Packets, since: float = -inf
    ) -> Iterator[tuple[str, list[Entry]]]:
        """Yield where packets are judged at a hook, and how: each chain of a filter, all of NAT together.

        Args:
            hook: `input`, `forward` or another one of nft(8).
            kind: `filter` or `nat`.
            packets: Which packets.
            since: Chains of a lower priority at `prerouting` are left out.

        Raises:
            Unavailable: They cannot be reduced in time.
        """
        bases = self._bases(hook, kind, packets, since)
        if kind == "filter":
            for _, table, name, policy in bases:
                place = f"chain {name} of table {table.name.split()[1]}"
                end = Entry(ALWAYS, policy, Rule(place, f"policy {policy}"))
                yield (
                    place,
                    self._marked(hook, packets, since, [*table.entries(name, packets, self.until), end]),
                )
            return
        found: list[Entry] = []
        for _, table, name, _ in sorted(bases, key=lambda base: base[0]):
            found += _until_accepted(table.entries(name, packets, self.until))
        yield "nat", self._marked(hook, packets, since, found)

    def _bases(
        self, hook: str, kind: str, packets: Packets, since: float
    ) -> list[tuple[int, Table, str, str]]:
        return [
            (base[2], table, name, base[3])
            for table in self.tables
            for name, base in table.bases.items()
            if base[:2] == (hook, kind)
            and (hook != "prerouting" or base[2] >= since)
            and _sees(table, packets.version)
        ]

    def _marked(self, hook: str, packets: Packets, since: float, entries: list[Entry]) -> list[Entry]:
        """Return the entries, with what marks the packets on their way in each condition on a mark."""
        if not any(BY_MARK in one for entry in entries for one in entry.when):
            return entries
        marks = sorted(
            f"{entry.verdict} if {sorted(entry.when)}"
            for before in {"prerouting", hook, *(("forward",) if hook == "postrouting" else ())}
            for _, table, name, _ in self._bases(before, "filter", packets, since)
            for entry in table.entries(name, packets, self.until)
            if entry.is_mark
        )
        return [
            replace(entry, when=frozenset(f"{one} {marks}" if BY_MARK in one else one for one in entry.when))
            for entry in entries
        ]


def _sees(table: Table, version: int) -> bool:
    return table.name.split()[0] in _FAMILIES[version]


def _until_accepted(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Yield the entries of a chain of NAT, in which `accept` ends this chain alone."""
    still: Conditions = ALWAYS
    for entry in entries:
        if entry.verdict != ACCEPT:
            yield replace(entry, when=entry.when | still)
        elif not entry.when:
            return
        else:
            yield replace(entry, verdict=KEEPS, when=entry.when | still)
            still |= {f"not ({' and '.join(sorted(entry.when))})"}


# --- comparing ----------------------------------------------------------------------------


def missing(wanted: Sequence[Entry], there: Sequence[Entry], counts: Callable[[Entry], bool]) -> Entry | None:
    """Return the first verdict that the other list has not, or has behind another one; None where it has all.

    Args:
        wanted: What happens to packets of one kind.
        there: What happens to those of the other.
        counts: Whether a verdict has to be there.
    """
    known, others = set[tuple[Conditions, str]](), _InOrder(there)
    for entry in wanted:
        if counts(entry) and not others.come_to(entry, known):
            return entry
        known.add((entry.when, entry.verdict))
    return None


class _InOrder:
    """Verdicts in their order, looked up by one of their conditions: hosts of clusters have thousands."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        often = Counter(one for entry in entries for one in entry.when)
        self._entries = entries
        self._by = defaultdict[tuple[str, str | None], list[int]](list)
        for at, entry in enumerate(entries):
            rarest = min(entry.when, key=lambda one: (often[one], one), default=None)
            self._by[entry.verdict, rarest].append(at)
        self._known_until = defaultdict[str, int](int)

    def come_to(self, entry: Entry, known: Collection[tuple[Conditions, str]]) -> bool:
        """Whether they come to the same verdict, and to none before it that is not known for both.

        What is known may only grow from call to call.
        """
        end = self._known_until[entry.verdict]
        while end < len(self._entries) and not _is_between(self._entries[end], entry.verdict, known):
            end += 1
        self._known_until[entry.verdict] = end
        return any(
            self._entries[at].when <= entry.when
            and (entry.verdict == DROP or not self._entries[at].is_unread)
            for condition in (None, *entry.when)
            for at in takewhile(end.__gt__, self._by.get((entry.verdict, condition), ()))
        )


def _is_between(other: Entry, verdict: str, known: Collection[tuple[Conditions, str]]) -> bool:
    """Whether packets may be decided otherwise by it, before they come to the verdict."""
    return other.verdict != verdict and not other.goes_on and (other.when, other.verdict) not in known


async def text_of(rule: Rule) -> str:
    """Return the rule as its tool writes it."""
    if rule.handle is None:
        return rule.text
    family, table, chain = rule.text.split(" ", 2)
    said = await _run(rule.namespace, "nft", "-a", "list", "chain", family, table, chain)
    marked = f" # handle {rule.handle}"
    lines = (line.strip() for line in lines_in(said.out))
    found = next((line.removesuffix(marked) for line in lines if line.endswith(marked)), "")
    return re.sub(r" ?counter packets \d+ bytes \d+", "", found) or f"rule {rule.handle}"


# --- reading it ---------------------------------------------------------------------------


async def read_rules(namespace: str | None = None) -> Rules:
    """Return the packet filter of this network namespace, or of the one with that name.

    Raises:
        Unavailable: A tool does not list it, or is missing where the kernel has rules of its kind.
    """
    said = await _run(namespace, "nft", "-j", "list", "ruleset")
    if said.status:
        raise Unavailable(f"nft cannot list the packet filter{_in(namespace)}: {said.last_words}")
    listed = json.loads(said.out or '{"nftables": []}')["nftables"]
    tables = {(one.name, one.kind): one for one in _of_nft(listed)}
    for family, prefix in _PREFIXES.items():
        translated = {
            rule["table"]
            for rule in (one["rule"] for one in listed if "rule" in one)
            if rule["family"] == family and any("xt" in part for part in rule["expr"])
        }
        program = f"{prefix}-nft-save"
        if translated and shutil.which(program):
            for table in _of_saved(family, f"{prefix}-nft", (await _run(namespace, program)).out):
                if table.name.split()[1] in translated:
                    tables[table.name, "nftables"] = table
        for table in await _older(family, prefix, namespace):
            tables[table.name, table.kind] = table
    routing = [await _routing(family, namespace) for family in _families()]
    ipsets = await _ipsets(namespace, tables.values())
    masquerades = await _masquerades(namespace)
    for table in tables.values():
        table.ipsets, table.masquerades = ipsets, masquerades
    return Rules(tuple(_placed(table, namespace) for table in (*tables.values(), *routing)))


async def _masquerades(namespace: str | None) -> frozenset[str]:
    """Return the first address of each device by IPv4, and all by IPv6."""
    said, found = await _run(namespace, "ip", "-j", "address", "show"), set[str]()
    for link in json.loads(said.out or "[]") if said.status == 0 else ():
        own = [(one.get("family"), one["local"]) for one in link.get("addr_info", ()) if "local" in one]
        found |= {local for family, local in own if family == "inet6"}
        found |= {*[local for family, local in own if family == "inet"][:1]}
    return frozenset(found)


async def _ipsets(namespace: str | None, tables: Iterable[Table]) -> dict[str, IpSet]:
    """Return the sets of ipset(8) that rules ask for; one that cannot be read whole is left out."""
    texts = (rule.text for table in tables for rules in table.chains.values() for rule in rules)
    if not any("--match-set " in text for text in texts) or not shutil.which("ipset"):
        return {}
    kinds, elements, unread = dict[str, tuple[str, ...]](), dict[str, list[Any]](), set[str]()
    for line in lines_in((await _run(namespace, "ipset", "save")).out):
        verb, name, what, *more = line.split()
        if verb == "create":
            kinds[name] = tuple(what.partition(":")[2].split(","))
        else:
            elements.setdefault(name, []).append(_of_ipset(kinds[name], what))
            unread |= {name} if "nomatch" in more else set()
    return {
        name: IpSet(of, Values(elements.get(name, ()), f"set {name} of ipset"))
        for name, of in kinds.items()
        if name not in unread
    }


def _of_ipset(kinds: tuple[str, ...], written: str) -> Any:
    """Return an element as a value of one field, or as a row of several ones."""
    if len(kinds) == 1:
        return int(written) if kinds == ("port",) else written
    row = list[Any]()
    for kind, part in zip(kinds, written.split(","), strict=False):
        protocol, _, number = part.rpartition(":") if kind == "port" else ("", "", part)
        row += [protocol or ANY] if kind == "port" else []
        row.append(int(number) if number.isdecimal() else number)
    return tuple(row)


def _placed(table: Table, namespace: str | None) -> Table:
    """Return the table with the network namespace in which it is."""
    chains = {
        name: [replace(one, place=f"{one.place}{_in(namespace)}", namespace=namespace) for one in rules]
        for name, rules in table.chains.items()
    }
    return replace(table, chains=chains) if namespace else table


def _in(namespace: str | None) -> str:
    return f" in network namespace {namespace}" if namespace else ""


async def _run(namespace: str | None, *command: str) -> Completed:
    inside = [] if namespace is None else ["nsenter", f"--net={NAMES / namespace}"]
    return await run([*inside, *command], within=READ_WITHIN)


def _families() -> tuple[str, ...]:
    """Return the versions of IP that the kernel has."""
    return tuple(_PREFIXES) if SIXTH.exists() else ("ip",)


async def _routing(family: str, namespace: str | None) -> Table:
    """Return the routing rules of a version of IP, as one chain."""
    said = await _run(namespace, "ip", "-j", "-4" if family == "ip" else "-6", "rule", "show")
    if said.status:
        raise Unavailable(f"ip cannot list the routing rules: {said.last_words}")
    rules = [Rule(ROUTING, _written(one), expr=(one,)) for one in json.loads(said.out or "[]")]
    return Table(f"{family} rule", ROUTING, {ROUTING: rules}, {ROUTING: (ROUTING, ROUTING, 0, ACCEPT)})


def _written(said: Mapping[str, Any]) -> str:
    """Return a routing rule as a person types it."""
    ends = (("from", "src"), ("to", "dst"))
    asks = [f"{word} {_end(said, end)}" for word, end in ends if end in said]
    asks += [f"{word} {said[word]}" for word in ("iif", "oif", "fwmark") if word in said]
    leads = said.get("table", said.get("action", ""))
    return f"{'not ' * ('not' in said)}{' '.join(asks)} lookup {leads}"


async def _older(family: str, prefix: str, namespace: str | None) -> Iterable[Table]:
    """Return the tables of the older kernel interface, which is asked only where it has some."""
    program = f"{prefix}-legacy-save"
    if not (await _run(namespace, "cat", str(OLDER_TABLES[4 if family == "ip" else 6]))).out.split():
        return ()
    if not shutil.which(program):
        raise Unavailable(f"the host has rules of {prefix}-legacy, and {program} is not installed")
    said = await _run(namespace, program)
    if said.status:
        raise Unavailable(f"{program} cannot list the packet filter: {said.last_words}")
    return _of_saved(family, f"{prefix}-legacy", said.out)


def _of_nft(listed: Sequence[Mapping[str, Any]]) -> Iterable[Table]:
    tables: dict[tuple[str, str], Table] = {}
    for one in (entry["table"] for entry in listed if "table" in entry):
        if one["name"] != OURS:
            tables[one["family"], one["name"]] = Table(f"{one['family']} {one['name']}", "nftables")
    for kind in ("set", "map"):
        for one in (entry[kind] for entry in listed if kind in entry):
            if (one["family"], one["table"]) in tables:
                tables[one["family"], one["table"]].sets[f"@{one['name']}"] = Values(
                    one.get("elem", []), f"{kind} {one['name']} of table {one['family']} {one['table']}"
                )
                tables[one["family"], one["table"]].counted[f"@{one['name']}"] = one.get("stmt", [])
    for one in (entry["chain"] for entry in listed if "chain" in entry):
        if "hook" in one and (one["family"], one["table"]) in tables:
            base = (one["hook"], one.get("type", ""), one.get("prio", 0), one.get("policy", ACCEPT))
            tables[one["family"], one["table"]].bases[one["name"]] = base
    for one in (entry["rule"] for entry in listed if "rule" in entry):
        if (one["family"], one["table"]) in tables:
            where = f"{one['family']} {one['table']} {one['chain']}"
            place = f"nftables, chain {one['chain']} of table {one['family']} {one['table']}"
            rule = Rule(place, where, one["handle"], one["expr"])
            tables[one["family"], one["table"]].chains.setdefault(one["chain"], []).append(rule)
    return tables.values()


_SAVED_PRIORITIES = {"raw": -300, "mangle": -150, "nat": -100, "filter": 0, "security": 50}


def _of_saved(family: str, kind: str, text: str) -> list[Table]:
    """Return the tables that iptables-save(8) prints."""
    made: list[Table] = []
    for line in lines_in(text):
        if line.startswith("*"):
            made.append(Table(f"{family} {line[1:].strip()}", kind))
        elif line.startswith(":"):
            chain, policy, *_ = line[1:].split()
            made[-1].chains[chain] = []
            if policy != "-":
                hook, of = chain.lower(), made[-1].name.split()[1]
                priority = abs(_SAVED_PRIORITIES[of]) if hook == "postrouting" else _SAVED_PRIORITIES[of]
                ends = DROP if policy == "DROP" else ACCEPT
                made[-1].bases[chain] = (hook, "nat" if of == "nat" else "filter", priority, ends)
        elif line.startswith("-A "):
            chain = line.split(" ", 2)[1]
            place = f"{kind}, table {made[-1].name.split()[1]}"
            made[-1].chains.setdefault(chain, []).append(Rule(place, line.strip()))
    return made


def _steps(table: Table, rule: Rule, packets: Packets) -> tuple[list[Step], bool]:
    """Return what the rule does with these packets, and whether it asks for that by which they differ."""
    if table.kind == ROUTING:
        return _of_routing(rule, packets)
    of = _of_words if rule.handle is None else _of_expression
    steps, asks = of(table, rule, packets)
    return [replace(one, verdict=_translated(table, one.verdict, packets)) for one in steps], asks


def _translated(table: Table, verdict: str, packets: Packets) -> str:
    """Return the same verdict for translations that are the same for users."""
    if not verdict.startswith(TO):
        return verdict
    address = verdict.removeprefix(TO)
    return TRANSLATE if address in table.masquerades else TO + packets.own(address)


def _both(some: Iterable[Conditions], more: Iterable[Conditions]) -> list[Conditions]:
    some, more = list(some), list(more)
    if len(some) * len(more) > _MOST:
        raise _TooManyError(f"asks for more combinations of addresses than the {_MOST} that are compared")
    return [one | other for one, other in product(some, more)]


_MOST = 4096
"""Ways to meet a rule, and elements that have to do with the compared packets, which are compared at all."""


class _TooManyError(Exception):
    """A rule cannot be compared; the text says what of it is too much."""


def _unless(met: Sequence[Conditions]) -> list[Conditions]:
    """Return when none of these is met."""
    if ALWAYS in met:
        return []
    said = " or ".join(sorted(" and ".join(sorted(one)) for one in met))
    return [frozenset({f"not {said}"})] if met else [ALWAYS]


# --- ip rule ------------------------------------------------------------------------------

_ENDS = {"src": "saddr", "dst": "daddr", "iif": "iif"}
_LEADS = frozenset(
    {
        *_ENDS,
        "priority",
        "not",
        "srclen",
        "dstlen",
        "table",
        "action",
        "iif_detached",
        "oif_detached",
        "protocol",
    }
)


def _end(said: Mapping[str, Any], name: str) -> str:
    return f"{said[name]}/{said[f'{name}len']}" if f"{name}len" in said else str(said[name])


def _of_routing(rule: Rule, packets: Packets) -> tuple[list[Step], bool]:
    """Return to which routes the rule leads the packets; where it finds none there, the next one counts."""
    (said,) = rule.expr
    if "oif" in said and "not" not in said:
        return [], False  # forwarded packets have no such device before they have a route
    when, asks = [ALWAYS], False
    for end in (one for one in _ENDS if said.get(one, "all") != "all"):
        when = _both(when, _one(_ENDS[end], Values([_end(said, end)]), packets))
        asks = asks or packets.differ_by(_ENDS[end])
    if more := {name: said[name] for name in said if name not in _LEADS}:
        by = BY_MARK * ("fwmark" in more)
        when = _both(when, [frozenset({f"{by}{json.dumps(more, sort_keys=True)}"})])
    if "not" in said:
        when = _unless(when)
    to = f"routes of {said.get('table', '')} {said.get('action', '')}"
    return [Step(one | {"no route before"}, to) for one in when], asks


# --- nftables -----------------------------------------------------------------------------

_DECIDES_NOTHING = frozenset({"counter", "log", "comment", "last"})
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
_VERSIONS = {"nfproto": {4: "ipv4", 6: "ipv6"}, "protocol": {4: "ip", 6: "ip6"}}


def _of_expression(table: Table, rule: Rule, packets: Packets) -> tuple[list[Step], bool]:
    when, asks, steps = [ALWAYS], False, list[Step]()
    for part in rule.expr:
        (kind, value), *_ = part.items()
        if kind == "match":
            met, asked = _matched(table, value, packets)
            when, asks = _both(when, met), asks or asked
        elif kind == "vmap":
            for verdict, met, asked in _mapped(table, value["key"], value["data"], packets):
                asks = asks or asked
                steps += [replace(one, when=both) for one in _verdict(verdict) for both in _both(when, met)]
        elif kind in {"snat", "dnat", "redirect"} and (chosen := _chosen(value)):
            for to, met, asked in _mapped(table, chosen["key"], chosen["data"], packets):
                asks = asks or asked
                name = _translation(kind, value, to)
                steps += [Step(both, name) for both in _both(when, met)]
        elif kind not in _DECIDES_NOTHING:
            verdicts = [*_verdict(part)]
            steps += [replace(one, when=both) for one in verdicts for both in when]
            when = when if verdicts else _both(when, [frozenset(_unevaluated(table, rule, part))])
    return steps, asks


def _unevaluated(table: Table, rule: Rule, part: Mapping[str, Any]) -> Iterator[str]:
    """Yield when a rule goes on behind a statement such as a limit, of which the packet alone says nothing.

    What was counted so far is left out, and by which set it is counted: neither makes a difference.
    """
    (kind, value), *_ = part.items()
    if kind == "mangle":
        return
    if kind == "xt" and value.get("type") != "target":
        yield f"{UNREAD}{rule.text} {rule.handle}"
    elif kind in _WITH_LIMITS:
        stated = value.get("stmt") or table.counted.get(value.get("set", ""), [])
        for one in [stated] if isinstance(stated, dict) else stated:
            if not _DECIDES_NOTHING & one.keys():
                yield from _unevaluated(table, rule, one)
    else:
        counted = {"used", "used_unit"} & value.keys() if isinstance(value, dict) else ()
        plain = {name: said for name, said in value.items() if name not in counted} if counted else value
        yield json.dumps({kind: plain}, sort_keys=True)


def _chosen(value: Any) -> dict[str, Any] | None:
    """Return the map by which a translation chooses its target, None where it has none."""
    for of in ("addr", "port"):
        found = value.get(of) if isinstance(value, dict) else None
        if _is_map(found):
            return dict(found["map"])
    return None


def _is_map(value: Any) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(value, dict) and "map" in value


def _mapped(
    table: Table, left: Any, data: Any, packets: Packets
) -> Iterator[tuple[Any, list[Conditions], bool]]:
    """Yield to what a map leads, when it does so, and whether it asks for that by which packets differ."""
    pairs = table.sets.get(data, Values()) if isinstance(data, str) else Values(data.get("set", []))
    keys = pairs.keys
    for at in _candidates(_names(left), _columns(left, keys), packets):
        yield pairs[at][1], *_valued(left, Values([keys[at]]), packets)


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
        yield Step(ALWAYS, _translation(kind, value))
    elif kind == "xt" and value.get("type") == "target":
        yield from (Step(ALWAYS, verdict) for verdict in _done_by([value["name"]]))


def _translation(kind: str, value: Any, chosen: Any = None) -> str:
    """Return the verdict of a statement that translates packets, with what its map has chosen."""
    if kind != "snat":
        return f"{kind} {json.dumps(value, sort_keys=True)}"
    return _source(chosen if _is_map(value.get("addr")) else value.get("addr"))


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
    if name in _MARK_FIELDS:
        yield Step(ALWAYS, f"{MARKS}{json.dumps(value, sort_keys=True)}")
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
    names = _names(left)
    asked = any(packets.differ_by(name) for name in _fields(left))
    if not any(packets.reads(name) or name in _VERSIONS for name in names):
        by = BY_MARK * any(name in _MARK_FIELDS for name in _fields(left))
        return [frozenset({f"{UNREAD * asked}{by}{json.dumps(match, sort_keys=True)}"})], asked
    if op not in {"==", "!=", "in", "!"}:
        return [frozenset({f"{UNREAD}{json.dumps(match, sort_keys=True)}"})], True
    met, asked = _valued(left, _elements(table, right), packets)
    return (_unless(met) if op in {"!=", "!"} else met), asked


_ORDERED: Mapping[str, Callable[[int], tuple[int, int]]] = {
    "<": lambda one: (0, one - 1),
    "<=": lambda one: (0, one),
    ">": lambda one: (one + 1, 2**32),
    ">=": lambda one: (one, 2**32),
}


def _is_concat(value: Any) -> bool:
    return isinstance(value, dict) and "concat" in value


def _names(left: Any) -> list[str]:
    return [_field(one) for one in (left["concat"] if _is_concat(left) else [left])]


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
    names = _names(left)
    met = _together(names, values, packets) if _is_concat(left) else _one(names[0], values, packets)
    return met, any(map(packets.differ_by, names))


def _candidates(names: Sequence[str], columns: Sequence[Values], packets: Packets) -> Sequence[int]:
    """Return which values, or rows of them, the packets may have by their addresses."""
    rows = None
    for name, column in zip(names, columns, strict=False):
        if network := packets.address_in(name):
            around = column.around(network)
            rows = around if rows is None else sorted({*rows} & {*around})
    return range(max(map(len, columns), default=0)) if rows is None else rows


def _together(names: Sequence[str], values: Values, packets: Packets) -> list[Conditions]:
    """Return when several fields have the values of a row; which one makes no difference if none differs."""
    columns = values.columns
    if not any(map(packets.differ_by, names)):
        ways = [_one(name, column, packets) for name, column in zip(names, columns, strict=False)]
        by = BY_MARK * any(name in _MARK_FIELDS for name in names)
        return values.unread(by + ", ".join(names)) if all(ways) else []
    rows, found = _candidates(names, columns, packets), list[Conditions]()
    if len(rows) > _MOST:
        raise _TooManyError(
            f"asks for {len(rows)} elements of {values.of or 'a set'}; at most {_MOST} are compared"
        )
    for at in rows:
        met = [ALWAYS]
        for name, column in zip(names, columns, strict=False):
            met = _both(met, _one(name, Values([column[at]]), packets))
        found += met
    return found


def _one(name: str, values: Values, packets: Packets) -> list[Conditions]:
    if ANY in values:
        return [ALWAYS]
    if name in _VERSIONS:
        return [ALWAYS] if _VERSIONS[name][packets.version] in values else []
    if packets.address_in(name):
        values = Values(values[at] for at in _candidates([name], [values], packets))
    met = packets.meets(name, values)
    return [frozenset(map(BY_MARK.__add__, one)) for one in met] if name in _MARK_FIELDS else met


_MARK_FIELDS = ("mark", "ct mark")
_LOOKED_AT = ("payload", "meta", "ct", "fib")
_HASHES = ("jhash", "symhash")
"""They share packets out by their fields: each value of the field may be on either side."""


def _parts(left: Any) -> Iterator[Any]:
    """Yield each field of packets that the left side of a match looks at."""
    if isinstance(left, list):
        for one in left:
            yield from _parts(one)
    elif isinstance(left, dict):
        if any(kind in left for kind in _LOOKED_AT):
            yield left
        for kind, value in left.items():
            if kind not in (*_LOOKED_AT, *_HASHES):
                yield from _parts(value)


def _fields(left: Any) -> Iterator[str]:
    return map(_field, _parts(left))


def _headers(left: Any) -> Iterator[str]:
    """Yield the headers that packets must have to be looked at."""
    return (one["payload"].get("protocol", "") for one in _parts(left) if "payload" in one)


_DPORT_BY_OFFSET = {"base": "th", "offset": 16, "len": 16}


def _field(left: Any) -> str:
    """Return which field of packets is looked at: `saddr`, `iif`, `dport`, `l4proto`, `ct state`."""
    kind, asked = next(iter(left.items())) if isinstance(left, dict) and left else ("", left)
    if kind == "payload" and (found := _header_field(asked)):
        return found
    if kind == "meta":
        return str(asked.get("key")).removesuffix("name")
    if kind == "ct":
        return f"ct {asked.get('dir', '')} {asked.get('key')}".replace("  ", " ")
    if left == {"fib": {"result": "type", "flags": ["daddr"]}}:
        return "daddr type"
    return json.dumps(left, sort_keys=True)


def _header_field(asked: Mapping[str, Any]) -> str | None:
    """Return the name of a field of a header, None where it has none here."""
    name = str(asked.get("field"))
    if name in {"saddr", "daddr"}:
        return name if asked["protocol"] in {"ip", "ip6"} else None
    if name in {"protocol", "nexthdr"}:
        return "l4proto"
    return "dport" if name == "dport" or asked == _DPORT_BY_OFFSET else None


# --- iptables -----------------------------------------------------------------------------

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


def _of_words(table: Table, rule: Rule, packets: Packets) -> tuple[list[Step], bool]:
    """Return what a rule does that iptables-save(8) prints."""
    when, asks = [ALWAYS], False
    for negated, option, values, asked_for in rule.options:
        value, name = " ".join(values), _FIELDS.get(option, option)
        if option in {"-j", "-g"}:
            if values[0] in table.chains:
                return [Step(one, chain=values[0], comes_back=option == "-j") for one in when], asks
            return [Step(one, verdict) for verdict in _done_by(values) for one in when], asks
        if option in _NO_CONDITIONS:
            continue
        if (found := _of_set(table, option, values, packets)) is not None:
            met, asked = found
            asks = asks or asked
            when = _both(when, _unless(met) if negated else met)
        elif packets.reads(name):
            met = _one(name, asked_for, packets)
            asks = asks or packets.differ_by(name)
            when = _both(when, _unless(met) if negated else met)
        else:
            sides = values[-1].split(",") if option == "--match-set" else ()
            hidden = any(packets.differ_by(one) for side in sides for one in _SIDES.get(side, ()))
            said = f"{BY_MARK * (option == '--mark')}{'! ' * negated}{option} {value}"
            when = _both(when, [frozenset({f"{UNREAD * hidden}{said}"})])
    return [], asks


def _done_by(target: Sequence[str]) -> list[str]:
    """Return the verdicts of a target of iptables, which stands before its options."""
    name, said = target[0], " ".join(target)
    if name in _TARGETS:
        return [_TARGETS[name]]
    if name in {"MARK", "CONNMARK"}:
        return [f"{MARKS}{said}"]
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
    return _source(to.partition(":")[0] if "." in to else to) if to else TRANSLATE


def _of_set(
    table: Table, option: str, values: Sequence[str], packets: Packets
) -> tuple[list[Conditions], bool] | None:
    """Return when the packets are in a set of ipset(8); None where the option or its set says nothing."""
    ipset = table.ipsets.get(values[0]) if option == "--match-set" else None
    fields = ipset.fields(values[1].split(",")) if ipset is not None else []
    if ipset is None or not any(map(packets.reads, fields)):
        return None
    one = len(fields) == 1
    met = _one(fields[0], ipset.elements, packets) if one else _together(fields, ipset.elements, packets)
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
