"""Whether the host's own packet filter treats the users of each slot as those of the slot that serves.

Installers write rules that name a pool or a device: `-s 10.8.0.0/24 -j MASQUERADE`, `-i tun0 -j ACCEPT`. A
new slot has another pool and another device. Its users log in, its probe passes, and nothing leaves the
tunnel.

Routing rules (`ip rule`) that name a pool or a device do the same, and are read as one more chain.

So every chain is reduced twice, for packets of one slot's users and for those of another. Rules that meet
neither pool nor device are gone then. Conditions on anything else stay, unread: they are the same for both.
What is left for one slot has to be there for the other, too.
"""

import asyncio
import json
import re
import shlex
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network, summarize_address_range
from itertools import product
from pathlib import Path
from typing import Any

from activities.drivers.programs import run
from activities.drivers.runtime.host.input_filter import ACCEPT, DEEPEST, DROP, OLDER_TABLES, RETURN
from activities.drivers.runtime.host.translated import OURS
from policies.lines import lines_in
from policies.model.adoption import ADOPTED
from policies.model.errors import Unavailable
from policies.model.fleet import Slot

Network = IPv4Network | IPv6Network
Conditions = frozenset[str]
TRANSLATE = "translate"
_ALWAYS: Conditions = frozenset()
SIXTH = Path("/proc/thread-self/net/if_inet6")
"""Is there where the kernel has IPv6."""
_ROUTING = "ip rule"
"""The routing rules of the host, which lead packets of a pool or a device to a table of routes."""
_UNREAD = "unread: "
"""How a condition begins of which it is not known whether it asks for pools or devices."""
_FAMILIES = {4: ("ip", "inet"), 6: ("ip6", "inet")}
_PREFIXES = {"ip": "iptables", "ip6": "ip6tables"}


@dataclass(frozen=True)
class Users:
    """The users of a slot by one version of IP, as rules meet them."""

    slot: str
    pool: Network
    device: str
    """How its devices' names begin."""
    live: frozenset[str]
    """Its devices that are there and serve all of its users, not a single one."""

    @property
    def version(self) -> int:
        """Return the version of IP."""
        return self.pool.version

    def at(self, network: Network) -> list[Conditions]:
        """Return when the users are in that network: always, never (empty), or some of them.

        A rule for a single user is no rule for the others: programs of daemons make such ones at each login.
        """
        if network.version != self.version or not network.overlaps(self.pool):
            return []
        if network.prefixlen <= self.pool.prefixlen:
            return [_ALWAYS]
        return [] if network.prefixlen == network.max_prefixlen else [frozenset({self.within(network)})]

    def within(self, network: Network) -> str:
        """Return a part of the pool by its distance from the beginning, which another pool has as well."""
        return f"users +{int(network.network_address) - int(self.pool.network_address)}/{network.prefixlen}"

    def through(self, pattern: str) -> list[Conditions]:
        """Return when the users come by a device of that name, which may end with `*`: always or never."""
        if pattern.endswith("*"):
            return [_ALWAYS] if self.device.startswith(pattern.removesuffix("*")) else []
        whole = pattern in self.live if self.live else pattern == self.device
        return [_ALWAYS] if whole else []


OUT = ("saddr", "iif")
BACK = ("daddr", "oif")
AMONG = (*OUT, *BACK)
"""By which fields slots differ: on the way out of a tunnel, back into it, and from user to user of a slot."""


@dataclass(frozen=True)
class Looking:
    """Packets of a slot's users on one of these ways; `all_users` are those of every slot."""

    users: Users
    way: tuple[str, ...]
    all_users: tuple[Users, ...]

    def asked(self, name: str) -> bool:
        """Whether the field is one by which slots differ on this way."""
        return name in self.way

    def meets(self, name: str, values: Sequence[Any]) -> list[Conditions]:
        """Return when the packets have one of these values in the field: a list of ways to do so.

        The other end of a packet is nobody's user.
        """
        if self.asked(name):
            return [one for value in values for one in self._own(name, value)]
        others = [value for value in values if not self._is_users(name, value)]
        said = sorted(json.dumps(value, sort_keys=True) for value in others)
        return [frozenset({f"{name} is {' or '.join(said)}"})] if said else []

    def _own(self, name: str, value: Any) -> list[Conditions]:
        try:
            if name in {"iif", "oif"}:
                return self.users.through(str(value))
            return [one for network in networks_of(value) for one in self.users.at(network)]
        except (ValueError, TypeError, KeyError):
            return [frozenset({f"{_UNREAD}{name} is {json.dumps(value, sort_keys=True)}"})]

    def _is_users(self, name: str, value: Any) -> bool:
        if name in {"iif", "oif"}:
            return any(one.through(str(value)) for one in self.all_users)
        with suppress(ValueError, TypeError, KeyError):
            return name in {"saddr", "daddr"} and all(
                any(one.at(network) and network.prefixlen >= one.pool.prefixlen for one in self.all_users)
                for network in networks_of(value)
            )
        return False


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
    """Whether a rule on the way to it asks for pools or devices."""


@dataclass(frozen=True)
class Rule:
    """A rule as its tool lists it; `handle` is set where nft(8) has to be asked for its text."""

    place: str
    text: str = ""
    handle: int | None = None
    expr: Sequence[Mapping[str, Any]] = ()
    chain: str = ""

    @cached_property
    def words(self) -> list[str]:
        """Return the words of one that iptables-save(8) prints, behind its chain."""
        return shlex.split(self.text)[2:]

    @property
    def is_policy(self) -> bool:
        """Whether it is what a chain does with all that no rule has decided."""
        return self.text.startswith("policy ")

    def stands_in(self, place: str) -> bool:
        """Whether the rule is one of that chain itself, and of none that it follows."""
        return place.startswith(f"chain {self.chain} of table ")


@dataclass
class Table:
    """One table: its chains by name, and those that packets meet, with hook, type, priority and policy."""

    name: str
    kind: str
    chains: dict[str, list[Rule]] = field(default_factory=dict)
    bases: dict[str, tuple[str, str, int, str]] = field(default_factory=dict)
    sets: dict[str, list[Any]] = field(default_factory=dict)

    def entries(self, chain: str, looking: Looking, depth: int = 0) -> list[Entry]:
        """Return the verdicts on these packets in order, with those of chains that are followed."""
        found: list[Entry] = []
        still: Conditions = _ALWAYS
        for rule in self.chains.get(chain, ()) if depth <= DEEPEST else ():
            steps, asks = _steps(self, rule, looking)
            for step in steps:
                when = step.when | still
                inner = [Entry(_ALWAYS, step.verdict, rule, asks)] if step.verdict not in {"", RETURN} else []
                if step.chain:
                    inner = self.entries(step.chain, looking, depth + 1)
                found += [
                    Entry(when | one.when, one.verdict, rule if asks else one.rule, asks or one.asks)
                    for one in inner
                ]
                if any(not one.when for one in inner) and not when:
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

    def of(self, hook: str, kind: str, looking: Looking) -> Iterator[tuple[str, list[Entry]]]:
        """Yield where packets are judged at a hook, and how: each chain of a filter, all of NAT together."""
        bases = [
            (base[2], table, name, base[3])
            for table in self.tables
            for name, base in table.bases.items()
            if base[:2] == (hook, kind) and _sees(table, looking.users.version)
        ]
        if kind == "filter":
            for _, table, name, policy in bases:
                place = f"chain {name} of table {table.name.split()[1]}"
                end = Entry(_ALWAYS, policy, Rule(place, f"policy {policy}"))
                yield place, [*table.entries(name, looking), end]
            return
        found: list[Entry] = []
        for _, table, name, _ in sorted(bases, key=lambda base: base[0]):
            found += _until_accepted(table.entries(name, looking))
        yield "nat", found


def _sees(table: Table, version: int) -> bool:
    return table.name.split()[0] in _FAMILIES[version]


def _until_accepted(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Yield the entries of a chain of NAT, in which `accept` ends this chain alone."""
    still: Conditions = _ALWAYS
    for entry in entries:
        if entry.verdict != ACCEPT:
            yield replace(entry, when=entry.when | still)
        elif not entry.when:
            return
        else:
            still |= {f"not ({' and '.join(sorted(entry.when))})"}


# --- what is found ------------------------------------------------------------------------

_WAYS = (
    ("forward", "filter", OUT),
    ("forward", "filter", BACK),
    ("forward", "filter", AMONG),
    ("input", "filter", OUT),
    ("prerouting", "filter", OUT),
    ("postrouting", "filter", BACK),
    ("prerouting", "nat", OUT),
    ("postrouting", "nat", OUT),
    (_ROUTING, _ROUTING, OUT),
)


def models_among(slots: Iterable[Slot], serving: str | None) -> tuple[str, ...]:
    """Return the slots whose users get through: the one that serves and what was adopted, else all."""
    names = [slot.name for slot in slots]
    return tuple(name for name in names if name in {serving, ADOPTED}) or tuple(names)


async def uncovered(slots: Sequence[Slot], models: Iterable[str], judged: Iterable[str]) -> tuple[str, ...]:
    """Return where the packet filter does less for users of a slot than for those of another one.

    Args:
        slots: Those of a gateway, with the one of what was adopted.
        models: Names of slots whose users get through.
        judged: Names of slots that have to be treated as these.

    Raises:
        Unavailable: The packet filter cannot be read.
    """
    rules, users, names = await read_rules(), await users_of(slots), list(judged)
    pairs = [
        (model, one)
        for name in models
        for model in users
        for one in users
        if model.slot == name and one.slot in names and one.slot != name and one.version == model.version
    ]

    def differences() -> list[tuple[Users, Users, Entry, bool]]:
        return [
            (has, lacks, entry, has is one)
            for model, one in pairs
            for has, lacks, entry in _differences(rules, model, one, users)
        ]

    found = await asyncio.to_thread(differences)  # hosts of clusters have thousands of rules
    return tuple(dict.fromkeys([await _sentence(*one[:3], drops_more=one[3]) for one in found]))


def _differences(
    rules: Rules, model: Users, one: Users, every: tuple[Users, ...]
) -> Iterator[tuple[Users, Users, Entry]]:
    """Yield whose packets meet a verdict, whose do not, and the rule: one for each chain that differs."""
    seen = set[tuple[str, str, int | None]]()
    for hook, kind, way in _WAYS:
        theirs = rules.of(hook, kind, Looking(model, way, every))
        ours = rules.of(hook, kind, Looking(one, way, every))
        for (_, of_model), (_, of_one) in zip(theirs, ours, strict=True):
            lost = _missing(of_model, of_one, drops_alone=False)
            dropped = _missing(of_one, of_model, drops_alone=True)
            entry = dropped if lost is None or (dropped and lost.rule.is_policy) else lost
            key = (entry.rule.place, entry.rule.text, entry.rule.handle) if entry else None
            if entry and key and key not in seen:
                seen.add(key)
                yield (one, model, entry) if entry is dropped else (model, one, entry)


def _missing(wanted: Sequence[Entry], there: Sequence[Entry], *, drops_alone: bool) -> Entry | None:
    """Return the first verdict that the other list has not, or has behind another one; None where it has all.

    Args:
        wanted: What happens to packets of some users.
        there: What happens to those of the others.
        drops_alone: Whether only what drops packets counts.
    """
    known = set[tuple[Conditions, str]]()
    for entry in wanted:
        drops = entry.verdict == DROP
        unread = not drops and any(one.startswith(_UNREAD) for one in entry.when)
        counts = bool(entry.when) or entry.asks if drops else not drops_alone
        if counts and (unread or not _covered(entry, there, known)):
            return entry
        known.add((entry.when, entry.verdict))
    return None


def _covered(entry: Entry, there: Sequence[Entry], known: set[tuple[Conditions, str]]) -> bool:
    """Whether the others come to the same verdict, and to none before it that is not known for both."""
    for other in there:
        if other.verdict == entry.verdict:
            if other.when <= entry.when:
                return True
        elif (other.when, other.verdict) not in known:
            return False
    return False


async def _sentence(has: Users, lacks: Users, entry: Entry, *, drops_more: bool) -> str:
    rule = f"`{await text_of(entry.rule)}` ({entry.rule.place})"
    if any(one.startswith(_UNREAD) for one in entry.when):
        return (
            f"it is not known whether {rule} applies to users of slot {lacks.slot}; "
            f"write it with their pool {lacks.pool}, or with their devices {lacks.device}*"
        )
    does = {ACCEPT: "accepts packets of", DROP: "drops packets of", TRANSLATE: "translates addresses of"}
    otherwise = "routes packets of" if entry.rule.place == _ROUTING else "redirects packets of"
    what = does.get(entry.verdict, otherwise)
    if drops_more:
        return (
            f"{rule} drops packets of users of slot {has.slot} ({has.pool}), and none does so for users of "
            f"slot {lacks.slot}; let these packets pass"
        )
    return (
        f"{rule} {what} users of slot {has.slot} ({has.pool}), and none does so as early for users of "
        f"slot {lacks.slot}; add one for their pool {lacks.pool} or their devices {lacks.device}*"
    )


async def text_of(rule: Rule) -> str:
    """Return the rule as its tool writes it."""
    if rule.handle is None:
        return rule.text
    family, table, chain = rule.text.split(" ", 2)
    said = await run(["nft", "-a", "list", "chain", family, table, chain])
    marked = f" # handle {rule.handle}"
    lines = (line.strip() for line in lines_in(said.out))
    found = next((line.removesuffix(marked) for line in lines if line.endswith(marked)), "")
    return re.sub(r" ?counter packets \d+ bytes \d+", "", found) or f"rule {rule.handle}"


def drops(rules: Rules, users: Iterable[Users]) -> Iterator[str]:
    """Yield what drops these users' packets on the way through: chains, and rules that stand in them."""
    users = tuple(users)
    for one in users:
        for way in (OUT, BACK):
            for place, entries in rules.of("forward", "filter", Looking(one, way, users)):
                if not any(
                    entry.verdict == ACCEPT and (way is BACK or _takes_new(entry)) for entry in entries
                ):
                    yield f"{place} drops all that is forwarded for users of slot {one.slot} ({one.pool})"
                own = (entry for entry in entries if entry.verdict == DROP and entry.when)
                yield from (
                    f"a rule in {place} drops what is forwarded"
                    for entry in own
                    if way is OUT and entry.rule.stands_in(place)
                )


def _takes_new(entry: Entry) -> bool:
    """Whether the rule takes more than replies: on the way out, users begin what they send."""
    states = (one.lower() for one in entry.when if "state" in one.lower())
    return all("new" in one or one.startswith(("!", "not")) for one in states)


def translates(rules: Rules, users: Iterable[Users]) -> bool:
    """Whether a rule translates addresses of these users on their way out."""
    found = (rules.of("postrouting", "nat", Looking(one, OUT, (one,))) for one in users)
    return any(entry.verdict == TRANSLATE for ways in found for _, entries in ways for entry in entries)


async def users_of(slots: Iterable[Slot]) -> tuple[Users, ...]:
    """Return the users of the slots, with the devices that have addresses of their pools."""
    said = await run(["ip", "-j", "address", "show"])
    links: list[dict[str, Any]] = json.loads(said.out or "[]") if said.status == 0 else []
    found = [(link["ifname"], one) for link in links for one in link.get("addr_info", ())]
    shared = [(name, ip_address(one["local"])) for name, one in found if _is_shared(one)]
    return tuple(
        Users(slot.name, pool, slot.device, frozenset(name for name, address in shared if address in pool))
        for slot in slots
        for pool in slot.pools
    )


def _is_shared(address: Mapping[str, Any]) -> bool:
    """Whether the device with this address serves many users: it has a network, or an end of the pool's own.

    ocserv makes a device for each user, whose address is the other end. OpenVPN makes one; with `topology
    net30` the other end is the address behind its own.
    """
    if "local" not in address:
        return False
    local = ip_address(address["local"])
    if "address" in address:
        return int(ip_address(address["address"])) == int(local) + 1
    return int(address.get("prefixlen", 0)) < local.max_prefixlen


# --- reading it ---------------------------------------------------------------------------


async def read_rules() -> Rules:
    """Return the packet filter of this network namespace.

    Raises:
        Unavailable: A tool does not list it, or is missing where the kernel has rules of its kind.
    """
    said = await run(["nft", "-j", "list", "ruleset"])
    if said.status:
        raise Unavailable(f"nft cannot list the packet filter: {said.last_words}")
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
            for table in _of_saved(family, f"{prefix}-nft", (await run([program])).out):
                if table.name.split()[1] in translated:
                    tables[table.name, "nftables"] = table
        for table in await _older(family, prefix):
            tables[table.name, table.kind] = table
    return Rules((*tables.values(), *[await _routing(family) for family in _families()]))


def _families() -> tuple[str, ...]:
    """Return the versions of IP that the kernel has."""
    return tuple(_PREFIXES) if SIXTH.exists() else ("ip",)


async def _routing(family: str) -> Table:
    """Return the routing rules of a version of IP, as one chain."""
    said = await run(["ip", "-j", "-4" if family == "ip" else "-6", "rule", "show"])
    if said.status:
        raise Unavailable(f"ip cannot list the routing rules: {said.last_words}")
    rules = [Rule(_ROUTING, _written(one), expr=(one,)) for one in json.loads(said.out or "[]")]
    return Table(f"{family} rule", _ROUTING, {_ROUTING: rules}, {_ROUTING: (_ROUTING, _ROUTING, 0, ACCEPT)})


def _written(said: Mapping[str, Any]) -> str:
    """Return a routing rule as a person types it."""
    length = f"/{said['srclen']}" if "srclen" in said else ""
    negated, device = "not " * ("not" in said), f" iif {said['iif']}" if "iif" in said else ""
    return f"{negated}from {said['src']}{length}{device} lookup {said.get('table', said.get('action', ''))}"


async def _older(family: str, prefix: str) -> Iterable[Table]:
    """Return the tables of the older kernel interface, which is asked only where it has some."""
    try:
        names = OLDER_TABLES[4 if family == "ip" else 6].read_text().split()
    except OSError:
        return ()
    program = f"{prefix}-legacy-save"
    if not names:
        return ()
    if not shutil.which(program):
        raise Unavailable(f"the host has rules of {prefix}-legacy, and {program} is not installed")
    said = await run([program])
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
                tables[one["family"], one["table"]].sets[f"@{one['name']}"] = one.get("elem", [])
    for one in (entry["chain"] for entry in listed if "chain" in entry):
        if "hook" in one and (one["family"], one["table"]) in tables:
            base = (one["hook"], one.get("type", ""), one.get("prio", 0), one.get("policy", ACCEPT))
            tables[one["family"], one["table"]].bases[one["name"]] = base
    for one in (entry["rule"] for entry in listed if "rule" in entry):
        if (one["family"], one["table"]) in tables:
            where = f"{one['family']} {one['table']} {one['chain']}"
            place = f"nftables, chain {one['chain']} of table {one['family']} {one['table']}"
            rule = Rule(place, where, one["handle"], one["expr"], one["chain"])
            tables[one["family"], one["table"]].chains.setdefault(one["chain"], []).append(rule)
    return tables.values()


_SAVED_PRIORITIES = {"prerouting": -100, "postrouting": 100}


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
                hook = chain.lower()
                of = "nat" if made[-1].name.endswith(" nat") else "filter"
                ends = DROP if policy == "DROP" else ACCEPT
                made[-1].bases[chain] = (hook, of, _SAVED_PRIORITIES.get(hook, 0), ends)
        elif line.startswith("-A "):
            chain = line.split(" ", 2)[1]
            place = f"{kind}, table {made[-1].name.split()[1]}"
            made[-1].chains.setdefault(chain, []).append(Rule(place, line.strip(), chain=chain))
    return made


def _steps(table: Table, rule: Rule, looking: Looking) -> tuple[list[Step], bool]:
    """Return what the rule does with these packets, and whether it asks for their pool or device."""
    if rule.place == _ROUTING:
        return _of_routing(rule, looking)
    return _of_words(rule, looking) if rule.handle is None else _of_expression(table, rule, looking)


def networks_of(value: Any) -> list[Network]:
    """Return the addresses that a rule names, as networks; TypeError where it names none."""
    if isinstance(value, dict) and "elem" in value:
        value = value["elem"]["val"]
    if isinstance(value, dict) and "prefix" in value:
        return [ip_network(f"{value['prefix']['addr']}/{value['prefix']['len']}", strict=False)]
    if isinstance(value, dict) and "range" in value:
        first, last = map(ip_address, value["range"])
        return [*summarize_address_range(first, last)]
    if not isinstance(value, str):
        raise TypeError(value)
    return [ip_network(value, strict=False)]


def _both(some: Iterable[Conditions], more: Iterable[Conditions]) -> list[Conditions]:
    return [one | other for one, other in product(some, more)]


def _unless(met: Sequence[Conditions]) -> list[Conditions]:
    """Return when none of these is met."""
    if _ALWAYS in met:
        return []
    said = " or ".join(sorted(" and ".join(sorted(one)) for one in met))
    return [frozenset({f"not {said}"})] if met else [_ALWAYS]


# --- ip rule ------------------------------------------------------------------------------

_LEADS = frozenset({"priority", "not", "src", "srclen", "iif", "table", "action", "iif_detached", "protocol"})


def _of_routing(rule: Rule, looking: Looking) -> tuple[list[Step], bool]:
    """Return to which routes the rule leads the packets; where it finds none there, the next one counts."""
    (said,) = rule.expr
    when, asks = [_ALWAYS], said["src"] != "all" or "iif" in said
    if said["src"] != "all":
        network = (
            {"prefix": {"addr": said["src"], "len": said["srclen"]}} if "srclen" in said else said["src"]
        )
        when = _both(when, looking.meets("saddr", [network]))
    if "iif" in said:
        when = _both(when, looking.meets("iif", [said["iif"]]))
    if more := {name: said[name] for name in said if name not in _LEADS}:
        when = _both(when, [frozenset({json.dumps(more, sort_keys=True)})])
    if "not" in said:
        when = _unless(when)
    to = f"routes of {said.get('table', '')} {said.get('action', '')}"
    return [Step(one | {"no route before"}, to) for one in when], asks


# --- nftables -----------------------------------------------------------------------------

_DECIDES_NOTHING = frozenset(
    {"counter", "log", "mangle", "set", "notrack", "comment", "add", "update", "tproxy"}
)
_VERSIONS = {"nfproto": {4: "ipv4", 6: "ipv6"}, "protocol": {4: "ip", 6: "ip6"}}


def _of_expression(table: Table, rule: Rule, looking: Looking) -> tuple[list[Step], bool]:
    when, asks, steps = [_ALWAYS], False, list[Step]()
    for part in rule.expr:
        (kind, value), *_ = part.items()
        if kind == "match":
            met, asked = _matched(table, value, looking)
            when, asks = _both(when, met), asks or asked
        elif kind == "vmap":
            for key, verdict in _pairs(table, value["data"]):
                met, asked = _valued(value["key"], [key], looking)
                asks = asks or asked
                steps += [replace(one, when=both) for one in _verdict(verdict) for both in _both(when, met)]
        elif kind in {"snat", "dnat", "redirect"} and (chosen := _chosen(value)):
            for key, _ in _pairs(table, chosen["data"]):
                met, asked = _valued(chosen["key"], [key], looking)
                asks = asks or asked
                name = TRANSLATE if kind == "snat" else f"{kind} {json.dumps(value, sort_keys=True)}"
                steps += [Step(both, name) for both in _both(when, met)]
        elif kind == "xt" and value.get("type") != "target":
            when = _both(when, [frozenset({f"{_UNREAD}{rule.text} {rule.handle}"})])
        elif kind not in _DECIDES_NOTHING and not (verdicts := [*_verdict({kind: value})]):
            when = _both(when, [frozenset({json.dumps(part, sort_keys=True)})])
        elif kind not in _DECIDES_NOTHING:
            steps += [replace(one, when=both) for one in verdicts for both in when]
    return steps, asks


def _chosen(value: Any) -> dict[str, Any] | None:
    """Return the map by which a translation chooses its target, None where it has none."""
    for of in ("addr", "port"):
        found = value.get(of) if isinstance(value, dict) else None
        if isinstance(found, dict) and "map" in found:
            return dict(found["map"])
    return None


def _pairs(table: Table, data: Any) -> list[tuple[Any, Any]]:
    pairs = table.sets.get(data, []) if isinstance(data, str) else data.get("set", [])
    return [(one[0], one[1]) for one in pairs]


def _verdict(said: Mapping[str, Any]) -> Iterator[Step]:
    (kind, value), *_ = said.items()
    if kind in {"accept", "queue"}:
        yield Step(_ALWAYS, ACCEPT)
    elif kind in {"drop", "reject"}:
        yield Step(_ALWAYS, DROP)
    elif kind == "return":
        yield Step(_ALWAYS, RETURN)
    elif kind in {"jump", "goto"}:
        yield Step(_ALWAYS, chain=value["target"], comes_back=kind == "jump")
    elif kind in {"masquerade", "snat"}:
        yield Step(_ALWAYS, TRANSLATE)
    elif kind in {"dnat", "redirect"}:
        yield Step(_ALWAYS, f"{kind} {json.dumps(value, sort_keys=True)}")
    elif kind == "xt" and value.get("name") in {"MASQUERADE", "SNAT", "NETMAP"}:
        yield Step(_ALWAYS, TRANSLATE)
    elif kind == "xt" and value.get("name") in {"DNAT", "REDIRECT"}:
        yield Step(_ALWAYS, value["name"])


def _matched(table: Table, match: Mapping[str, Any], looking: Looking) -> tuple[list[Conditions], bool]:
    """Return when the packets meet a match, and whether it asks for their pool or device."""
    left, right = match["left"], match["right"]
    names = [_field(one) for one in (left["concat"] if _is_concat(left) else [left])]
    if not any(name in AMONG or name in _VERSIONS for name in names):
        return [frozenset({json.dumps(match, sort_keys=True)})], False
    if match["op"] not in {"==", "!=", "in"}:
        return [frozenset({f"{_UNREAD}{json.dumps(match, sort_keys=True)}"})], True
    met, asked = _valued(left, _elements(table, right), looking)
    return (_unless(met) if match["op"] == "!=" else met), asked


def _is_concat(value: Any) -> bool:
    return isinstance(value, dict) and "concat" in value


def _elements(table: Table, right: Any) -> list[Any]:
    if isinstance(right, str) and right.startswith("@"):
        return table.sets.get(right, [])
    return right["set"] if isinstance(right, dict) and "set" in right else [right]


def _valued(left: Any, values: Sequence[Any], looking: Looking) -> tuple[list[Conditions], bool]:
    """Return when the field, or several together, have one of these values."""
    plain = [one["elem"]["val"] if isinstance(one, dict) and "elem" in one else one for one in values]
    if not _is_concat(left):
        return _one(_field(left), plain, looking), looking.asked(_field(left))
    names, found = [_field(one) for one in left["concat"]], list[Conditions]()
    for value in plain:
        met = [_ALWAYS]
        for name, part in zip(names, value["concat"] if _is_concat(value) else [value], strict=False):
            met = _both(met, _one(name, [part], looking))
        found += met
    return found, any(map(looking.asked, names))


def _one(name: str, values: Sequence[Any], looking: Looking) -> list[Conditions]:
    if "*" in values:
        return [_ALWAYS]
    if name in _VERSIONS:
        return [_ALWAYS] if _VERSIONS[name][looking.users.version] in values else []
    return looking.meets(name, values)


def _field(left: Any) -> str:
    """Return what is looked at, by the name that pools and devices have here."""
    kind, asked = next(iter(left.items())) if isinstance(left, dict) and left else ("", left)
    if kind == "payload" and asked.get("protocol") in {"ip", "ip6"} and asked["field"] in {"saddr", "daddr"}:
        return str(asked["field"])
    if kind == "meta":
        return str(asked.get("key")).removesuffix("name")
    return json.dumps(left, sort_keys=True)


# --- iptables -----------------------------------------------------------------------------

_TARGETS = {
    "ACCEPT": ACCEPT,
    "DROP": DROP,
    "REJECT": DROP,
    "RETURN": RETURN,
    "QUEUE": ACCEPT,
    "NFQUEUE": ACCEPT,
    "MASQUERADE": TRANSLATE,
    "SNAT": TRANSLATE,
    "NETMAP": TRANSLATE,
}
_FIELDS = {"-s": "saddr", "-d": "daddr", "-i": "iif", "-o": "oif"}
_RANGES = {"--src-range": "saddr", "--dst-range": "daddr"}
_SIDES = {"saddr": "src", "daddr": "dst"}


def _of_words(rule: Rule, looking: Looking) -> tuple[list[Step], bool]:
    """Return what a rule does that iptables-save(8) prints."""
    when, asks = [_ALWAYS], False
    for negated, option, values in options_of(rule.words):
        value = " ".join(values)
        if option in {"-j", "-g"}:
            target = values[0] if values else ""
            verdict = _TARGETS.get(target, f"{value}" if target in {"DNAT", "REDIRECT"} else "")
            chain = "" if verdict or target in _NO_CHAINS else target
            return [Step(one, verdict, chain, option == "-j") for one in when if verdict or chain], asks
        if option in {"-m", "--comment"}:
            continue
        name = _FIELDS.get(option) or _RANGES.get(option)
        if name is None:
            said = f"{'! ' * negated}{option} {value}"
            hidden = option == "--match-set" and any(
                looking.asked(of) and side in values[-1] for of, side in _SIDES.items()
            )
            when = _both(when, [frozenset({f"{_UNREAD * hidden}{said}"})])
            continue
        met = looking.meets(name, [_saved_value(option, value)])
        asks = asks or looking.asked(name)
        when = _both(when, _unless(met) if negated else met)
    return [], asks


def _saved_value(option: str, value: str) -> Any:
    if option in _RANGES:
        return {"range": value.split("-")}
    return f"{value[:-1]}*" if option in {"-i", "-o"} and value.endswith("+") else value


_NO_CHAINS = frozenset(
    {
        "LOG",
        "NFLOG",
        "MARK",
        "CONNMARK",
        "CT",
        "TCPMSS",
        "SET",
        "AUDIT",
        "CLASSIFY",
        "DSCP",
        "TTL",
        "HL",
        "TRACE",
    }
    | {
        "CHECKSUM",
        "TPROXY",
        "NOTRACK",
        "ULOG",
        "TEE",
        "SECMARK",
        "CONNSECMARK",
        "TOS",
        "ECN",
        "IDLETIMER",
        "LED",
    }
)


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
