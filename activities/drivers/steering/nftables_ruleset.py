"""What the steering table says, as a value; how it is written and read in nftables' own words."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from activities.drivers.daemon.port import Dialled, Wandering
from activities.drivers.steering.homes import Home
from policies.model.fleet import Gateway

Address = IPv4Address | IPv6Address
Number = tuple[str, int]
"""Whose packet it is: the map that is asked by what the packet says, and what it says."""
LEARNED_FOR = timedelta(minutes=10)
"""Longer than any client needs to notice that its TCP is gone (dead peer detection: 10-90 s)."""

FAMILIES = {4: ("ip", "ipv4_addr"), 6: ("ip6", "ipv6_addr")}
OF_ADDRESSES, OF_PORTS = {"old4", "old6", "learned4", "learned6"}, {"trial", "steer"}
"""The maps that are asked by who sends a packet, and by where it is sent; all others by what is in it."""
SIZE = 65535
EVERYBODY = 100
"""The share, in percent of source addresses, that needs no hash."""


@dataclass(frozen=True)
class Ruleset:
    """The content of the table: homes are those of slots, addresses are users' source addresses."""

    steer: Home | None = None
    trial: Home | None = None
    trial_expires_in: timedelta | None = None
    lease: timedelta | None = None
    """Set only on a wish: the trial element is written anew with this timeout."""
    renewed: bool = False
    """Set only on a wish: the kernel refuses to write it when the element it replaces has ended."""
    share: int = EVERYBODY
    """Percent of source addresses that ask the trial map at all; EVERYBODY where there is no trial."""
    seed: int = 0
    old: Mapping[Address, Home] = field(default_factory=dict)
    old_expires: Mapping[Address, timedelta] = field(default_factory=dict)
    pinned_for: timedelta = timedelta(hours=8)
    briefly: frozenset[Address] = frozenset()
    """Set only on a wish: those of `old` that are pinned for `LEARNED_FOR`, as users of a trial are."""
    learned: Mapping[Address, Home] = field(default_factory=dict)
    numbers: Mapping[Number, Home] = field(default_factory=dict)
    """What packets carry whose sessions are not where new ones go."""
    draining: tuple[Home, ...] = ()
    """Homes whose users stay; UDP to a port among them teaches the table where a rebound address belongs."""
    generation: str = ""
    rules: tuple[str, ...] = ()
    """Its rules as the kernel lists them; never part of a wish."""

    def on_trial(
        self, home: Home, lease: timedelta, *, renew: bool = False, share: int = EVERYBODY, seed: int = 0
    ) -> "Ruleset":
        """Return the table with new sessions of so many addresses going there during the lease."""
        return replace(self, trial=home, lease=lease, renewed=renew, share=share, seed=seed)

    def permanently(self, home: Home) -> "Ruleset":
        """Return the table with new sessions going there, and no trial."""
        return replace(self, steer=home, trial=None, lease=None, share=EVERYBODY)

    def without_trial(self) -> "Ruleset":
        """Return the table with new sessions going to the permanent slot."""
        return replace(self, trial=None, lease=None, share=EVERYBODY)

    def pinning(
        self,
        old: Mapping[Address, Home],
        draining: tuple[Home, ...] | None = None,
        learned: Mapping[Address, Home] | None = None,
        pinned_for: timedelta | None = None,
        numbers: Mapping[Number, Home] | None = None,
        briefly: frozenset[Address] = frozenset(),
    ) -> "Ruleset":
        """Return the table with exactly these addresses and numbers pinned."""
        return replace(
            self,
            old=dict(old),
            numbers=dict(numbers or {}),
            draining=self.draining if draining is None else draining,
            learned=self.learned if learned is None else dict(learned),
            pinned_for=pinned_for or self.pinned_for,
            briefly=briefly,
        )

    def generated(self, generation: str) -> "Ruleset":
        """Return the table signed by who writes it."""
        return replace(self, generation=generation)


def transaction(
    wanted: Ruleset,
    before: Ruleset,
    gateway: Gateway,
    dialled: Sequence[Dialled],
    wandering: Sequence[Wandering] = (),
    mid_session: str = "",
) -> str:
    """Return one `nft -f` script: declarations that change nothing when repeated, rules, element changes."""
    ports = sorted({one.port for one in dialled})
    lines = [*_declarations(gateway, wandering), *_rules(wanted, gateway, dialled, wandering, mid_session)]
    lines += _trial(wanted, before, ports)
    if wanted.steer != before.steer:
        elements = ", ".join(f"{port} : {wanted.steer}" for port in ports)
        lines += ["flush map inet penstock steer"] if before.steer else []
        lines += [f"add element inet penstock steer {{ {elements} }}"] if wanted.steer else []
    lines += _numbered(wanted.numbers, before.numbers)
    lasting = dict.fromkeys(wanted.briefly, LEARNED_FOR)
    lines += _elements("old", wanted.old, before, lasting, wanted.pinned_for)
    lines += _elements("learned", wanted.learned, before, {}, LEARNED_FOR)
    return "\n".join(lines) + "\n"


def count_of_rules(
    wanted: Ruleset,
    gateway: Gateway,
    dialled: Sequence[Dialled],
    wandering: Sequence[Wandering] = (),
    mid_session: str = "",
) -> int:
    """Return how many rules the table has when it is written so."""
    return sum(1 for _ in _rules(wanted, gateway, dialled, wandering, mid_session))


def parse(listing: str, gateway: Gateway) -> Ruleset:
    """Return what `nft -j list table` printed as a value."""
    found = json.loads(listing)["nftables"]
    maps = {entry["map"]["name"]: list(_pairs(entry["map"])) for entry in found if "map" in entry}
    rules = [entry["rule"] for entry in found if "rule" in entry]
    of_numbers = maps.keys() - OF_ADDRESSES - OF_PORTS
    numbers = {(name, int(key) % 2**64): home for name in of_numbers for key, home, _ in maps[name]}
    old = [*maps.get("old4", []), *maps.get("old6", [])]
    learned = [*maps.get("learned4", []), *maps.get("learned6", [])]
    trial = next((pair for pair in maps.get("trial", []) if pair[0] == gateway.port), None)
    share, seed = next(_shares(rules), (EVERYBODY, 0)) if trial else (EVERYBODY, 0)
    comments = [rule["comment"].split(" ") for rule in rules if "comment" in rule]
    return Ruleset(
        steer=next((port for key, port, _ in maps.get("steer", []) if key == gateway.port), None),
        trial=trial[1] if trial else None,
        trial_expires_in=trial[2] if trial else None,
        share=share,
        seed=seed,
        old={ip_address(key): port for key, port, _ in old},
        old_expires={ip_address(key): left for key, _, left in old if left is not None},
        learned={ip_address(key): port for key, port, _ in learned},
        numbers=numbers,
        draining=tuple(sorted({int(words[1]) for words in comments if words[0] == "learn"})),
        generation=next((words[1] for words in comments if words[0] == "by" and len(words) > 1), ""),
        rules=tuple(json.dumps([rule["expr"], rule.get("comment")]) for rule in rules),
    )


def _declarations(gateway: Gateway, wandering: Sequence[Wandering]) -> Iterator[str]:
    homes = "ipv4_addr" if gateway.has_own_networks else "inet_service"
    yield "add table inet penstock"
    for version in _versions(gateway):
        kind = FAMILIES[version][1]
        yield _map(f"old{version}", kind, homes, f"flags timeout; size {SIZE};")
        yield _map(f"learned{version}", kind, homes, f"flags dynamic, timeout; size {SIZE};")
    sent = "ip daddr" if gateway.has_own_networks else "tcp dport"
    for one in wandering:
        yield f"add map inet penstock {one.name} {{ typeof {one.number} : {sent}; size {2 * SIZE}; }}"
    yield _map("trial", "inet_service", homes, "flags timeout;")
    yield _map("steer", "inet_service", homes, "")
    # Before every other dstnat chain: at equal priority the one registered last would win.
    yield _chain("prerouting", "dstnat - 5")
    if gateway.has_own_networks:
        yield _chain("postrouting", "srcnat - 5")
    for chain in ("prerouting", "postrouting")[: 1 + gateway.has_own_networks]:
        yield f"flush chain inet penstock {chain}"


def _map(name: str, kind: str, homes: str, more: str) -> str:
    return f"add map inet penstock {name} {{ type {kind} : {homes}; {more} }}"


def _chain(hook: str, priority: str) -> str:
    return f"add chain inet penstock {hook} {{ type nat hook {hook} priority {priority}; policy accept; }}"


def _versions(gateway: Gateway) -> Sequence[int]:
    """Return the versions of IP by which users come: instances' own networks have IPv4 only."""
    return (4,) if gateway.has_own_networks else tuple(FAMILIES)


def _rules(
    wanted: Ruleset,
    gateway: Gateway,
    dialled: Sequence[Dialled],
    wandering: Sequence[Wandering],
    mid_session: str,
) -> Iterator[str]:
    families = {}
    for version in _versions(gateway):
        mine = [str(address) for address in gateway.addresses if address.version == version]
        if mine:
            families[version] = f"{FAMILIES[version][0]} daddr {{ {', '.join(mine)} }}"
    add = "add rule inet penstock prerouting"
    sent = "dnat ip to " if gateway.has_own_networks else "redirect to :"
    ways = [(version, daddr, way) for version, daddr in families.items() for way in dialled]
    for version, daddr in families.items():
        yield from _teaching(wanted, version, daddr, dialled, mid_session)
    for daddr in families.values():
        for one in wandering:
            users = f"udp dport {_carried_at(dialled)} {one.of_a_session}".strip()
            yield f"{add} {daddr} {users} {sent}{one.number} map @{one.name}"
    for asked in ("old", "learned"):
        for version, daddr, (by, port) in ways:
            source, users = f"{FAMILIES[version][0]} saddr", f"{by} dport {port}"
            yield f"{add} {daddr} {users} {sent}{source} map @{asked}{version}"
    for asked in ("trial", "steer"):
        for version, daddr, (by, port) in ways:
            comment, users = f'comment "by {wanted.generation}"', f"{by} dport {port}"
            some = _share(wanted, FAMILIES[version][0]) if asked == "trial" else ""
            yield f"{add} {daddr} {users} {some}{sent}{by} dport map @{asked} {comment}"
    yield from _outward(gateway)


def _carried_at(dialled: Sequence[Dialled]) -> int:
    """Return the port at which users' packets come once they have a session."""
    return [one.port for one in dialled if one.transport == "udp"][-1]


def _teaching(
    wanted: Ruleset, version: int, daddr: str, dialled: Sequence[Dialled], mid_session: str
) -> Iterator[str]:
    """Have UDP to a draining instance's own port say where its sender belongs.

    The kernel asks only for flows that it does not know. One that begins in the middle of a session is of a
    client whose address or port has changed, which its daemon does not answer: refused, it connects again
    at once, and not when it finds out by itself (dead peer detection: 10-90 s).
    One that begins with a handshake teaches, too: so does a client whose own address has changed. Where users
    dial UDP nobody is told so: whatever comes to an instance's own port there is a stranger's.
    """
    if any(by == "udp" for by, _ in dialled):
        return
    family, seconds = FAMILIES[version][0], int(LEARNED_FOR.total_seconds())
    for port in [home for home in wanted.draining if isinstance(home, int)]:
        element = f"{{ {family} saddr timeout {seconds}s : {port} }}"
        learns = f'update @learned{version} {element} comment "learn {port}"'
        yield f"add rule inet penstock prerouting {daddr} udp dport {port} {learns}"
        if mid_session:
            refused = f"{mid_session} reject with icmpx port-unreachable"
            yield f"add rule inet penstock prerouting {daddr} udp dport {port} {refused}"


def _outward(gateway: Gateway) -> Iterator[str]:
    """Have what an instance begins to send, also when its flow was forgotten, come from the gateway."""
    if gateway.has_own_networks:
        own = ", ".join(str(slot.address) for slot in gateway.slots)
        yield f"add rule inet penstock postrouting ip saddr {{ {own} }} snat ip to {gateway.address4}"


def _share(wanted: Ruleset, family: str) -> str:
    if wanted.share == EVERYBODY:
        return ""
    return f"jhash {family} saddr mod {EVERYBODY} seed {wanted.seed:#x} < {wanted.share} "


def _shares(rules: Iterable[Mapping[str, Any]]) -> Iterator[tuple[int, int]]:
    """Yield share and seed of each rule that asks a map for some addresses only."""
    matches = (part["match"] for rule in rules for part in rule["expr"] if "match" in part)
    for match in matches:
        if isinstance(match["left"], dict) and "jhash" in match["left"]:
            yield match["right"], match["left"]["jhash"]["seed"]


def _trial(wanted: Ruleset, before: Ruleset, ports: Sequence[int]) -> Iterator[str]:
    """Renew by deleting and adding in one transaction: kernels before 6.12 cannot update a timeout."""
    if wanted.trial is not None and wanted.lease is None:
        return
    if wanted.renewed:
        yield f"delete element inet penstock trial {{ {', '.join(map(str, ports))} }}"
    elif before.trial is not None:
        yield "flush map inet penstock trial"
    if wanted.trial is not None and wanted.lease is not None:
        milliseconds = int(wanted.lease.total_seconds() * 1000)
        elements = ", ".join(f"{port} timeout {milliseconds}ms : {wanted.trial}" for port in ports)
        yield f"add element inet penstock trial {{ {elements} }}"


def _elements(
    name: str,
    wanted: Mapping[Address, Home],
    before: Ruleset,
    lasting: Mapping[Address, timedelta],
    others: timedelta,
) -> Iterator[str]:
    """Yield what makes the map have these elements; `others` is for how long, where `lasting` has no time."""
    present: Mapping[Address, Home] = getattr(before, name)
    expires = before.old_expires if name == "old" else {}

    def seconds(address: Address) -> int:
        return int(lasting.get(address, others).total_seconds())

    stale = [
        address
        for address, port in present.items()
        if wanted.get(address) != port
        or (address in expires and expires[address].total_seconds() < seconds(address) / 2)
    ]
    missing = [address for address in wanted if address not in present or address in stale]
    for version in FAMILIES:
        gone = [str(address) for address in stale if address.version == version]
        if gone:
            yield f"delete element inet penstock {name}{version} {{ {', '.join(gone)} }}"
        new = [f"{a} timeout {seconds(a)}s : {wanted[a]}" for a in missing if a.version == version]
        if new:
            yield f"add element inet penstock {name}{version} {{ {', '.join(new)} }}"


def _numbered(wanted: Mapping[Number, Home], present: Mapping[Number, Home]) -> Iterator[str]:
    stale = sorted(number for number, home in present.items() if wanted.get(number) != home)
    missing = sorted(number for number, home in wanted.items() if present.get(number) != home)
    for name in sorted({name for name, _ in (*stale, *missing)}):
        gone = [f"{number:#x}" for where, number in stale if where == name]
        if gone:
            yield f"delete element inet penstock {name} {{ {', '.join(gone)} }}"
        new = [f"{number:#x} : {wanted[name, number]}" for where, number in missing if where == name]
        if new:
            yield f"add element inet penstock {name} {{ {', '.join(new)} }}"


def _pairs(listed: Mapping[str, Any]) -> Iterator[tuple[Any, Home, timedelta | None]]:
    """Yield key, home and remaining time of each element of a listed map."""
    for key, value in listed.get("elem", []):
        element = key.get("elem") if isinstance(key, dict) else None
        home = IPv4Address(value) if isinstance(value, str) else int(value)
        if element is None:
            yield key, home, None
        else:
            left = element.get("expires")
            yield element["val"], home, None if left is None else timedelta(seconds=left)
