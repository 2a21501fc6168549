"""What the steering table says, as a value; how it is written and read in nftables' own words."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from activities.drivers.daemon.port import Wandering
from policies.model.fleet import Gateway

Address = IPv4Address | IPv6Address
LEARNED_FOR = timedelta(minutes=10)
"""Longer than any client needs to notice that its TCP is gone (dead peer detection: 10-90 s)."""

FAMILIES = {4: ("ip", "ipv4_addr"), 6: ("ip6", "ipv6_addr")}
SIZE = 65535
EVERYBODY = 100
"""The share, in percent of source addresses, that needs no hash."""


@dataclass(frozen=True)
class Ruleset:
    """The content of the table: ports are slots' ports, addresses are users' source addresses."""

    steer: int | None = None
    trial: int | None = None
    trial_expires_in: timedelta | None = None
    lease: timedelta | None = None
    """Set only on a wish: the trial element is written anew with this timeout."""
    renewed: bool = False
    """Set only on a wish: the kernel refuses to write it when the element it replaces has ended."""
    share: int = EVERYBODY
    """Percent of source addresses that ask the trial map at all; EVERYBODY where there is no trial."""
    seed: int = 0
    old: Mapping[Address, int] = field(default_factory=dict)
    old_expires: Mapping[Address, timedelta] = field(default_factory=dict)
    pinned_for: timedelta = timedelta(hours=8)
    learned: Mapping[Address, int] = field(default_factory=dict)
    wandering: Mapping[int, int] = field(default_factory=dict)
    """Ports by the numbers of sessions that live elsewhere than where new ones go."""
    draining: tuple[int, ...] = ()
    """Ports whose UDP teaches the table where a rebound address belongs."""
    generation: str = ""
    rules: tuple[str, ...] = ()
    """Its rules as the kernel lists them; never part of a wish."""

    def on_trial(
        self, port: int, lease: timedelta, *, renew: bool = False, share: int = EVERYBODY, seed: int = 0
    ) -> "Ruleset":
        """Return the table with new sessions of so many addresses going to the port during the lease."""
        return replace(self, trial=port, lease=lease, renewed=renew, share=share, seed=seed)

    def permanently(self, port: int) -> "Ruleset":
        """Return the table with new sessions going to the port, and no trial."""
        return replace(self, steer=port, trial=None, lease=None, share=EVERYBODY)

    def without_trial(self) -> "Ruleset":
        """Return the table with new sessions going to the permanent slot."""
        return replace(self, trial=None, lease=None, share=EVERYBODY)

    def pinning(
        self,
        old: Mapping[Address, int],
        draining: tuple[int, ...] | None = None,
        learned: Mapping[Address, int] | None = None,
        pinned_for: timedelta | None = None,
        wandering: Mapping[int, int] | None = None,
    ) -> "Ruleset":
        """Return the table with exactly these addresses and numbers pinned."""
        return replace(
            self,
            old=dict(old),
            wandering=dict(wandering or {}),
            draining=self.draining if draining is None else draining,
            learned=self.learned if learned is None else dict(learned),
            pinned_for=pinned_for or self.pinned_for,
        )

    def generated(self, generation: str) -> "Ruleset":
        """Return the table signed by who writes it."""
        return replace(self, generation=generation)


TCP = ("tcp",)
"""By which protocols users come, where the product has no others."""


def transaction(
    wanted: Ruleset,
    before: Ruleset,
    gateway: Gateway,
    transports: Sequence[str] = TCP,
    wandering: Wandering | None = None,
) -> str:
    """Return one `nft -f` script: declarations that change nothing when repeated, rules, element changes."""
    lines = [*_declarations(wandering), *_rules(wanted, gateway, transports, wandering)]
    lines += _trial(wanted, before, gateway.port)
    if wanted.steer != before.steer:
        lines += ["flush map inet penstock steer"] if before.steer else []
        lines += (
            [f"add element inet penstock steer {{ {gateway.port} : {wanted.steer} }}"] if wanted.steer else []
        )
    lines += _elements("old", wanted.old, before, wanted.pinned_for)
    lines += _elements("learned", wanted.learned, before, LEARNED_FOR)
    lines += _numbers(wanted.wandering, before.wandering) if wandering else []
    return "\n".join(lines) + "\n"


def count_of_rules(
    wanted: Ruleset, gateway: Gateway, transports: Sequence[str] = TCP, wandering: Wandering | None = None
) -> int:
    """Return how many rules the table has when it is written so."""
    return sum(1 for _ in _rules(wanted, gateway, transports, wandering))


def parse(listing: str, gateway: Gateway) -> Ruleset:
    """Return what `nft -j list table` printed as a value."""
    found = json.loads(listing)["nftables"]
    maps = {entry["map"]["name"]: list(_pairs(entry["map"])) for entry in found if "map" in entry}
    rules = [entry["rule"] for entry in found if "rule" in entry]
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
        wandering={number: port for number, port, _ in maps.get("wandering", [])},
        draining=tuple(sorted({int(words[1]) for words in comments if words[0] == "learn"})),
        generation=next((words[1] for words in comments if words[0] == "by" and len(words) > 1), ""),
        rules=tuple(json.dumps([rule["expr"], rule.get("comment")]) for rule in rules),
    )


def _declarations(wandering: Wandering | None) -> Iterator[str]:
    yield "add table inet penstock"
    for version, (_, kind) in FAMILIES.items():
        yield _map(f"old{version}", kind, f"flags timeout; size {SIZE};")
        yield _map(f"learned{version}", kind, f"flags dynamic, timeout; size {SIZE};")
    yield _map("trial", "inet_service", "flags timeout;")
    yield _map("steer", "inet_service", "")
    if wandering:
        yield f"add map inet penstock wandering {{ typeof {wandering.number} : tcp dport; size {SIZE}; }}"
    # Before every other dstnat chain: at equal priority the one registered last would win.
    yield (
        "add chain inet penstock prerouting { type nat hook prerouting priority dstnat - 5; policy accept; }"
    )
    yield "flush chain inet penstock prerouting"


def _map(name: str, kind: str, more: str) -> str:
    return f"add map inet penstock {name} {{ type {kind} : inet_service; {more} }}"


def _rules(
    wanted: Ruleset, gateway: Gateway, transports: Sequence[str], wandering: Wandering | None
) -> Iterator[str]:
    families = {}
    for version in FAMILIES:
        mine = [str(address) for address in gateway.addresses if address.version == version]
        if mine:
            families[version] = f"{FAMILIES[version][0]} daddr {{ {', '.join(mine)} }}"
    add = "add rule inet penstock prerouting"
    ways = [(version, daddr, by) for version, daddr in families.items() for by in transports]
    seconds = int(LEARNED_FOR.total_seconds())
    for version, daddr in families.items():
        for port in wanted.draining:
            element = f"{{ {FAMILIES[version][0]} saddr timeout {seconds}s : {port} }}"
            yield f'{add} {daddr} udp dport {port} update @learned{version} {element} comment "learn {port}"'
    for daddr in families.values() if wandering else ():
        found = (
            f"{wandering.of_a_session} redirect to :{wandering.number} map @wandering" if wandering else ""
        )
        yield f"{add} {daddr} udp dport {gateway.port} {found}"
    for asked in ("old", "learned"):
        for version, daddr, by in ways:
            source, users = f"{FAMILIES[version][0]} saddr", f"{by} dport {gateway.port}"
            yield f"{add} {daddr} {users} redirect to :{source} map @{asked}{version}"
    for asked in ("trial", "steer"):
        for version, daddr, by in ways:
            comment, users = f'comment "by {wanted.generation}"', f"{by} dport {gateway.port}"
            some = _share(wanted, FAMILIES[version][0]) if asked == "trial" else ""
            yield f"{add} {daddr} {users} {some}redirect to :{by} dport map @{asked} {comment}"


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


def _trial(wanted: Ruleset, before: Ruleset, users_port: int) -> Iterator[str]:
    """Renew by deleting and adding in one transaction: kernels before 6.12 cannot update a timeout."""
    if wanted.trial is not None and wanted.lease is None:
        return
    if wanted.renewed:
        yield f"delete element inet penstock trial {{ {users_port} }}"
    elif before.trial is not None:
        yield "flush map inet penstock trial"
    if wanted.trial is not None and wanted.lease is not None:
        milliseconds = int(wanted.lease.total_seconds() * 1000)
        yield f"add element inet penstock trial {{ {users_port} timeout {milliseconds}ms : {wanted.trial} }}"


def _elements(name: str, wanted: Mapping[Address, int], before: Ruleset, lasting: timedelta) -> Iterator[str]:
    present: Mapping[Address, int] = getattr(before, name)
    expires = before.old_expires if name == "old" else {}
    stale = [
        address
        for address, port in present.items()
        if wanted.get(address) != port or expires.get(address, lasting) < lasting / 2
    ]
    missing = [address for address in wanted if address not in present or address in stale]
    seconds = int(lasting.total_seconds())
    for version in FAMILIES:
        gone = [str(address) for address in stale if address.version == version]
        if gone:
            yield f"delete element inet penstock {name}{version} {{ {', '.join(gone)} }}"
        new = [f"{a} timeout {seconds}s : {wanted[a]}" for a in missing if a.version == version]
        if new:
            yield f"add element inet penstock {name}{version} {{ {', '.join(new)} }}"


def _numbers(wanted: Mapping[int, int], present: Mapping[int, int]) -> Iterator[str]:
    stale = [number for number, port in present.items() if wanted.get(number) != port]
    missing = [number for number, port in wanted.items() if present.get(number) != port]
    if stale:
        yield f"delete element inet penstock wandering {{ {', '.join(map(str, stale))} }}"
    if missing:
        new = ", ".join(f"{number} : {wanted[number]}" for number in missing)
        yield f"add element inet penstock wandering {{ {new} }}"


def _pairs(listed: Mapping[str, Any]) -> Iterator[tuple[Any, int, timedelta | None]]:
    """Yield key, port and remaining time of each element of a listed map."""
    for key, port in listed.get("elem", []):
        element = key.get("elem") if isinstance(key, dict) else None
        if element is None:
            yield key, port, None
        else:
            left = element.get("expires")
            yield element["val"], port, None if left is None else timedelta(seconds=left)
