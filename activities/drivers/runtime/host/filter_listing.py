"""The host's packet filter as its tools list it, of the host or of one of its network namespaces."""

import json
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

from activities.drivers.programs import Completed, run
from activities.drivers.runtime.host.iptables_rules import SavedRule
from activities.drivers.runtime.host.nftables_rules import NftRule
from activities.drivers.runtime.host.own_network import NAMES
from activities.drivers.runtime.host.packet_filter import (
    ACCEPT,
    DROP,
    ROUTING,
    ROUTING_OWN,
    IpSet,
    Rule,
    Rules,
    Table,
)
from activities.drivers.runtime.host.routing_rules import RoutingRule, written
from activities.drivers.runtime.host.rule_values import ANY, Values
from activities.drivers.runtime.host.translated import OURS
from policies.lines import lines_in
from policies.model.errors import Unavailable

READ_WITHIN = timedelta(seconds=5)
OLDER_TABLES = {
    4: Path("/proc/thread-self/net/ip_tables_names"),
    6: Path("/proc/thread-self/net/ip6_tables_names"),
}
SIXTH = Path("/proc/thread-self/net/if_inet6")
"""Is there where the kernel has IPv6."""
_PREFIXES = {"ip": "iptables", "ip6": "ip6tables"}
_LISTED = re.compile(r"^(.*[^{]) # handle \d+$", re.MULTILINE)
"""A rule in a listing of nft(8) with handles."""
_NAMED = 3
_DEVICES = re.compile(r"hook \w+ devices? (.*?) priority")
AT_DEVICES = {"ingress": "iifname", "egress": "oifname"}
"""By hook whose chains see the packets of some devices alone, how a rule asks for the device."""
_SAVED_PRIORITIES = {"raw": -300, "mangle": -150, "nat": -100, "filter": 0, "security": 50}


async def read_rules(namespace: str | None = None) -> Rules:
    """Return the packet filter of this network namespace, or of the one with that name.

    Raises:
        Unavailable: A tool does not list it, or is missing where the kernel has rules of its kind.
    """
    nft = await _run(namespace, "nft", "-j", "list", "ruleset")
    if nft.status:
        raise Unavailable(f"nft cannot list the packet filter{_in(namespace)}: {nft.last_words}")
    listed = json.loads(nft.out or '{"nftables": []}')["nftables"]
    tables = {(one.name, one.kind): one for one in _of_nft(listed)}
    for table in tables.values():
        for name in [name for name, base in table.bases.items() if base[0] in AT_DEVICES]:
            await _bind(table, name, namespace)
    for family, prefix in _PREFIXES.items():
        for table in [one for one in tables.values() if one.name.startswith(f"{family} ")]:
            await _write_by_iptables(table, f"{prefix}-nft", namespace)
        for table in await _older(family, prefix, namespace):
            tables[table.name, table.kind] = table
    routing = [await _routing(family, namespace) for family in _families()]
    ipsets = await _ipsets(namespace, tables.values())
    masquerades = await _masquerades(namespace)
    for table in tables.values():
        table.ipsets, table.masquerades = ipsets, masquerades
    return Rules(tuple(_placed(table, namespace) for table in (*tables.values(), *routing)))


async def _bind(table: Table, chain: str, namespace: str | None) -> None:
    """Have a chain of some devices accept the packets of others: nft lists the devices in its text alone."""
    said = await _run(namespace, "nft", "list", "chain", *table.name.split(), chain)
    found = _DEVICES.search(said.out)
    devices = [one.strip('"') for one in re.split(r"[{}=,\s]+", found[1]) if one] if found else []
    key = AT_DEVICES[table.bases[chain][0]]
    others = {"op": "!=", "left": {"meta": {"key": key}}, "right": {"set": devices}}
    rule = NftRule(
        f"nftables, chain {chain} of table {table.name}", expr=[{"match": others}, {"accept": None}]
    )
    table.chains[chain] = [rule, *table.chains.get(chain, ())]


async def _write_by_iptables(table: Table, prefix: str, namespace: str | None) -> None:
    """Replace each rule that nft does not list whole by what iptables-save(8) prints at its place.

    Of all others nft's listing is right: iptables writes a rule of nft that asks for a set without the set.
    """
    hidden = {name: rules for name, rules in table.chains.items() if any(map(_is_hidden, rules))}
    if not hidden or not shutil.which(f"{prefix}-save"):
        return
    family, of = table.name.split()
    said = await _run(namespace, f"{prefix}-save", "-t", of)
    saved = {name: rules for one in _of_saved(family, prefix, said.out) for name, rules in one.chains.items()}
    for name, rules in hidden.items():
        lines = saved.get(name, [])
        if len(lines) != len(rules):  # it writes no table with a rule that it cannot write, but other chains
            alone = (await _run(namespace, prefix, "-t", of, "-S", name)).out
            lines = [
                one
                for made in _of_saved(family, prefix, f"*{of}\n{alone}")
                for one in made.chains.get(name, ())
            ]
        if len(lines) == len(rules):
            both = zip(rules, lines, strict=True)
            table.chains[name] = [line if _is_hidden(rule) else rule for rule, line in both]


def _is_hidden(rule: Rule) -> bool:
    return isinstance(rule, NftRule) and rule.is_hidden


async def advice_on(chain: str, namespace: str | None) -> str:
    """Return what to do about a chain, by family, table and name, with rules of which nft lists a part."""
    family, table, name = chain.split(" ")
    program = f"{_PREFIXES[family]}-nft-save"
    if not shutil.which(program):
        return f"install {program}: nft does not list the rules of chain {name} of table {table} whole"
    said = (await _run(namespace, "nft", "-a", "list", "chain", family, table, name)).out
    others = [one.strip() for one in _LISTED.findall(said) if "counter" not in one]  # iptables always counts
    rules = "; ".join(f"`{one}`" for one in others[:_NAMED]) or "rules that iptables did not make"
    return (
        f"{program} cannot write chain {name} of table {table} because of {rules}, so it is not known what "
        "its other rules do with users; write these with iptables or in another table"
    )


async def text_of(rule: Rule) -> str:
    """Return the rule as its tool writes it."""
    if not isinstance(rule, NftRule):
        return rule.text
    family, table, chain = rule.text.split(" ", 2)
    said = await _run(rule.namespace, "nft", "-a", "list", "chain", family, table, chain)
    marked = f" # handle {rule.handle}"
    lines = (line.strip() for line in lines_in(said.out))
    found = next((line.removesuffix(marked) for line in lines if line.endswith(marked)), "")
    return re.sub(r" ?counter packets \d+ bytes \d+", "", found) or f"rule {rule.handle}"


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
    lengths = dict[str, str]()
    for line in lines_in((await _run(namespace, "ipset", "save")).out):
        verb, name, what, *more = line.split()
        if verb == "create":
            kinds[name] = tuple(what.partition(":")[2].split(","))
            options = dict(pairwise(more))
            lengths[name] = options.get("netmask", "")
            unread |= {name} if "bitmask" in options else set()
        else:
            elements.setdefault(name, []).append(_of_ipset(kinds[name], what, lengths[name]))
            unread |= {name} if "nomatch" in more else set()
    return {
        name: IpSet(of, Values(elements.get(name, ()), f"set {name} of ipset"))
        for name, of in kinds.items()
        if name not in unread
    }


def _of_ipset(kinds: tuple[str, ...], written: str, length: str = "") -> Any:
    """Return an element as a value of one field, or as a row of several ones.

    Where the set has a netmask, each address is the network of that length.
    """
    parts = [
        f"{part}/{length}" if length and kind == "ip" and "/" not in part else part
        for kind, part in zip(kinds, written.split(","), strict=False)
    ]
    if len(kinds) == 1:
        return int(written) if kinds == ("port",) else parts[0]
    row = list[Any]()
    for kind, part in zip(kinds, parts, strict=False):
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
    rules: list[Rule] = [
        RoutingRule(ROUTING, written(one), listed=one) for one in json.loads(said.out or "[]")
    ]
    bases = {hook: (hook, ROUTING, 0, ACCEPT) for hook in (ROUTING, ROUTING_OWN)}
    return Table(f"{family} rule", ROUTING, dict.fromkeys(bases, rules), bases)


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
            of = "nat" if one.get("type") == "nat" else "filter"  # what is of type `route` filters, too
            base = (one["hook"], of, one.get("prio", 0), one.get("policy", ACCEPT))
            tables[one["family"], one["table"]].bases[one["name"]] = base
    for one in (entry["rule"] for entry in listed if "rule" in entry):
        if (one["family"], one["table"]) in tables:
            where = f"{one['family']} {one['table']} {one['chain']}"
            place = f"nftables, chain {one['chain']} of table {one['family']} {one['table']}"
            parts = [part if isinstance(part, dict) else {"text": part} for part in one["expr"]]
            rule = NftRule(place, where, handle=one["handle"], expr=parts)
            tables[one["family"], one["table"]].chains.setdefault(one["chain"], []).append(rule)
    return tables.values()


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
                at_source = (hook, of) == ("postrouting", "nat")
                priority = _SAVED_PRIORITIES[of] * (-1 if at_source else 1)
                ends = DROP if policy == "DROP" else ACCEPT
                made[-1].bases[chain] = (hook, "nat" if of == "nat" else "filter", priority, ends)
        elif line.startswith("-A "):
            chain = line.split(" ", 2)[1]
            place = f"{kind}, table {made[-1].name.split()[1]}"
            made[-1].chains.setdefault(chain, []).append(SavedRule(place, line.strip()))
    return made
