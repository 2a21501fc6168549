"""The host's packet filter, reduced to what it does with packets of one kind.

`filter_listing` reads rules of nftables as nft(8) lists them and those of iptables as iptables-save(8) prints
them, of either kernel interface. The routing rules (`ip rule`) are read as one more chain.

Every chain is reduced for packets of one kind: rules that these packets never meet are gone. Conditions on
anything else stay, unread: they are the same for packets of another kind. So what two kinds of packets meet
is compared without knowing every condition: `missing` returns what one of them has and the other has not.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property
from itertools import product, takewhile
from math import inf
from time import monotonic
from typing import Any

from activities.drivers.runtime.host.rule_conditions import (
    ALWAYS,
    BY_MARK,
    HIDDEN,
    UNREAD,
    Packets,
    TooManyError,
    is_steady,
    never_both,
)
from activities.drivers.runtime.host.rule_marks import mattering
from activities.drivers.runtime.host.rule_values import Conditions, Values
from policies.model.errors import Unavailable

ACCEPT, DROP, RETURN = "accept", "drop", "return"
TRANSLATE = "translate"
"""How the verdict of a rule begins that translates packets' source; alone it is to the host's own address."""
TO, ONE_BY_ONE = f"{TRANSLATE} to ", f"{TRANSLATE} one by one"
ROUTING = "ip rule"
"""The routing rules of the host, which lead packets of a pool or a device to a table of routes."""
ROUTING_OWN = "ip rule for what the host sends"
"""The same rules, as packets of the host itself meet them: marked by chains at `output` alone."""
MARKS = "marks: "
"""How the verdict of a rule begins that only marks packets."""
MARKS_CONNECTIONS = f"{MARKS}of connections: "
"""How it begins where the mark is there for all packets of the connection, on either way."""
EFFECT = "effect: "
"""How the verdict of a rule begins that changes packets, or has a program look into them."""
CLAMPS, QUEUES, UNTRACKED = f"{EFFECT}segment size", f"{EFFECT}queue", f"{EFFECT}not tracked"
ZONE = f"{EFFECT}zone of tracking "
"""How the verdict of a rule begins by which the kernel tracks packets among those of the same zone alone."""
_HIDDEN = re.compile(rf"{HIDDEN}(\S+ \S+ \S+) \d+")
KEEPS = "keeps addresses"
"""The verdict of a rule behind which no rule of its chain translates the packets."""
COMPARED_WITHIN = timedelta(seconds=3)
"""A check before an upgrade has 10 s: it reads the packet filter once, and compares it twice."""
DEEPEST = 16
"""Chains that are followed into each other; the kernel allows as many (nft(8), `jump`)."""
Between = Mapping[str, tuple[float, float]]
"""By hook, the lowest and the highest priority of the chains that are looked at; at other hooks all are."""
EVERYWHERE: Between = {}
_ARRIVING = ("ingress", "prerouting")
_BEFORE = {
    "ingress": (),
    "output": (),
    ROUTING_OWN: ("output",),
    "postrouting": (*_ARRIVING, "forward", "output"),
}
_BEFORE |= {"egress": (*_BEFORE["postrouting"], "postrouting")}
"""By hook, those that packets may have passed before; at others the ones of all that arrive."""
_PASSED = ("ingress", "prerouting", "input", "forward", "output", "postrouting", "egress")
"""Hooks that packets of users pass."""
_FAMILIES = {4: ("ip", "inet", "netdev"), 6: ("ip6", "inet", "netdev")}


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

    @cached_property
    def decides(self) -> bool:
        """Whether no packet that meets its conditions surely goes on to the next rule."""
        return not self.goes_on and all(map(is_steady, self.when))

    @property
    def is_unread(self) -> bool:
        """Whether one of its conditions may ask for that, too, and is not understood."""
        return any(UNREAD in one for one in self.when)

    @property
    def hidden_in(self) -> str | None:
        """Return family, table and chain of a condition's rule of which nft lists only a part."""
        found = next(filter(None, (_HIDDEN.search(one) for one in sorted(self.when))), None)
        return found and found[1]


@dataclass(frozen=True)
class Rule:
    """A rule as its tool lists it, or the policy of a chain."""

    place: str
    text: str = ""
    namespace: str | None = None
    """The network namespace in which it is, None for the host's own."""

    @property
    def key(self) -> tuple[str, ...]:
        """Return by what it is told apart from others."""
        return (self.place, self.text)

    def steps(self, table: "Table", packets: Packets) -> tuple[list[Step], bool]:
        """Return what it does with these packets, and whether it asks for that by which they differ."""
        del table, packets
        return [], False

    @property
    def is_policy(self) -> bool:
        """Whether it is what a chain does with all that no rule has decided."""
        return self.text.startswith("policy ")


@dataclass(frozen=True)
class IpSet:
    """A set of ipset(8): what its elements consist of (`net`, `port`), and the elements."""

    kinds: tuple[str, ...]
    elements: Values


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
                steps, asks = rule.steps(self, packets)
            except TooManyError as error:
                raise Unavailable(f"a rule of chain {chain} of table {self.name} {error}") from error
            ended = set[str]()
            for step in (self._alike(one, packets) for one in steps):
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
                    ended.add(f"not ({' and '.join(sorted(step.when))})")
            still |= ended  # behind the rule: nodes of clusters have maps with a chain for each service
        return found

    def _alike(self, step: Step, packets: Packets) -> Step:
        """Return the step with the same verdict for translations that are the same for users."""
        if not step.verdict.startswith(TO):
            return step
        address = step.verdict.removeprefix(TO)
        return replace(step, verdict=TRANSLATE if address in self.masquerades else TO + packets.own(address))


@dataclass(frozen=True)
class Rules:
    """The host's packet filter, without the table of the steering."""

    tables: Sequence[Table]
    until: float = inf
    """By when they have to be reduced, as `monotonic` counts."""
    _reduced: dict[tuple[int, str, Packets], list[Entry]] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )

    def within(self, time: timedelta) -> "Rules":
        """Return the same rules, which are reduced within that time from now or not at all."""
        return replace(self, until=monotonic() + time.total_seconds())

    def of(
        self, hook: str, kind: str, packets: Packets, between: Between = EVERYWHERE
    ) -> Iterator[tuple[str, list[Entry]]]:
        """Yield where packets are judged at a hook, and how: each chain of a filter, all of NAT together.

        Args:
            hook: `input`, `forward` or another one of nft(8).
            kind: `filter` or `nat`.
            packets: Which packets.
            between: Which chains are looked at.

        Raises:
            Unavailable: They cannot be reduced in time.
        """
        bases = self._bases(hook, kind, packets, between)
        if kind == "filter":
            for _, table, name, policy in bases:
                place = f"chain {name} of table {table.name.split()[1]}"
                end = Entry(ALWAYS, policy, Rule(place, f"policy {policy}"))
                entries = [*self._entries(table, name, packets), end]
                yield place, self._marked(hook, packets, between, _reached(entries))
            return
        found: list[Entry] = []
        for _, table, name, _ in sorted(bases, key=lambda base: base[0]):
            found += _until_accepted(self._entries(table, name, packets))
        yield "nat", self._marked(hook, packets, between, _reached(found))

    def _entries(self, table: Table, chain: str, packets: Packets) -> list[Entry]:
        """Return the verdicts of a chain, which is reduced once: many rules ask what marks the packets."""
        key = (id(table), chain, packets)
        if key not in self._reduced:
            self._reduced[key] = table.entries(chain, packets, self.until)
        return self._reduced[key]

    def _bases(
        self, hook: str, kind: str, packets: Packets, between: Between
    ) -> list[tuple[int, Table, str, str]]:
        low, high = between.get(hook, (-inf, inf))
        return [
            (base[2], table, name, base[3])
            for table in self.tables
            for name, base in table.bases.items()
            if base[:2] == (hook, kind) and low <= base[2] <= high and _sees(table, packets.version)
        ]

    def _marked(self, hook: str, packets: Packets, between: Between, entries: list[Entry]) -> list[Entry]:
        """Return the entries, with what marks the packets on their way in each condition on a mark."""
        asking = {one for entry in entries for one in entry.when if BY_MARK in one}
        if not asking:
            return entries
        before = {hook, *_BEFORE.get(hook, _ARRIVING)}
        marks = [*self._marks(before, packets, between, MARKS)]
        for one in packets.other_ways:
            marks += self._marks(_PASSED, one, between, MARKS_CONNECTIONS)
        marked = {one: f"{one} {sorted(mattering(one, marks))}" for one in asking}
        return [
            replace(entry, when=frozenset(marked.get(one, one) for one in entry.when)) for entry in entries
        ]

    def _marks(
        self, hooks: Iterable[str], packets: Packets, between: Between, kind: str
    ) -> Iterator[tuple[str, str]]:
        """Yield what marks the packets at these hooks, and when."""
        for hook, of in product(hooks, ("filter", "nat")):
            if of == "nat" and not packets.meets_nat(hook):
                continue
            for _, table, name, _ in self._bases(hook, of, packets, between):
                for entry in self._entries(table, name, packets):
                    if entry.verdict.startswith(kind):
                        yield entry.verdict, f"if {sorted(entry.when)}"


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


def _reached(entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries without those behind one that decides on all of their packets."""
    order = _InOrder(entries)
    return [one for at, one in enumerate(entries) if not order.is_decided(one.when, at)]


def missing(wanted: Sequence[Entry], there: Sequence[Entry], counts: Callable[[Entry], bool]) -> Entry | None:
    """Return the first verdict that the other list has not, or has behind another one; None where it has all.

    Args:
        wanted: What happens to packets of one kind.
        there: What happens to those of the other.
        counts: Whether a verdict has to be there.
    """
    order, others = _InOrder(wanted), _InOrder(there)
    for at, entry in enumerate(wanted):
        if counts(entry) and not others.come_to(entry, order, at):
            return entry
    return None


class _InOrder:
    """Verdicts in their order, looked up by one of their conditions: hosts of clusters have thousands."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        often = Counter(one for entry in entries for one in entry.when)
        self._entries = entries
        self._by = defaultdict[str | None, list[int]](list)
        for at, entry in enumerate(entries):
            self._by[min(entry.when, key=lambda one: (often[one], one), default=None)].append(at)
        self._known_until = defaultdict[str, int](int)

    def is_decided(self, when: Conditions, until: int) -> bool:
        """Whether a verdict before that position decides on all packets that meet these conditions."""
        return any(self._entries[at].decides for at in self._met_by(when, until))

    def come_to(self, entry: Entry, order: "_InOrder", until: int) -> bool:
        """Whether they come to the same verdict as an entry, and before it to none that matters.

        Args:
            entry: An entry of the other list.
            order: That list.
            until: The position of the entry in it, which may only grow from call to call.
        """

        def is_between(other: Entry) -> bool:
            return other.verdict != entry.verdict and not other.goes_on and not order.knows(other, until)

        end = self._known_until[entry.verdict]
        while end < len(self._entries) and not is_between(self._entries[end]):
            end += 1
        self._known_until[entry.verdict] = end
        return any(
            self._entries[at].verdict == entry.verdict
            and (entry.verdict == DROP or not self._entries[at].is_unread)
            and not any(
                is_between(other) and not never_both(other.when, entry.when)
                for other in self._entries[end:at]
            )
            for at in self._met_by(entry.when, len(self._entries))
        )

    def knows(self, other: Entry, until: int) -> bool:
        """Whether the packets of an entry of another list come to the same here, or are decided on before."""
        return any(
            self._entries[at].decides
            or (self._entries[at].when, self._entries[at].verdict) == (other.when, other.verdict)
            for at in self._met_by(other.when, until)
        )

    def _met_by(self, when: Conditions, until: int) -> Iterator[int]:
        """Yield the positions before that one of entries that ask for nothing but these conditions."""
        for condition in (None, *when):
            for at in takewhile(until.__gt__, self._by.get(condition, ())):
                if self._entries[at].when <= when:
                    yield at
