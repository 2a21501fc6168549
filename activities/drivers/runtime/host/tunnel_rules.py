"""Whether the host's own packet filter treats the users of each slot as those of the slot that serves.

Installers write rules that name a pool or a device: `-s 10.8.0.0/24 -j MASQUERADE`, `-i tun0 -j ACCEPT`. A
new slot has another pool and another device. Its users log in, its probe passes, and nothing leaves the
tunnel.

Routing rules (`ip rule`) that name a pool or a device do the same.

So every chain is reduced twice, for packets of one slot's users and for those of another. What is left for
one slot has to be there for the other, too.
"""

import asyncio
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import product
from typing import Any

from activities.drivers.programs import run
from activities.drivers.runtime.host.packet_filter import (
    ACCEPT,
    ALWAYS,
    DROP,
    ROUTING,
    TRANSLATE,
    UNREAD,
    Conditions,
    Entry,
    Network,
    Rules,
    is_of_version,
    left_unread,
    missing,
    networks_of,
    read_rules,
    text_of,
)
from policies.model.adoption import ADOPTED
from policies.model.fleet import Slot


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
            return [ALWAYS]
        return [] if network.prefixlen == network.max_prefixlen else [frozenset({self.within(network)})]

    def within(self, network: Network) -> str:
        """Return a part of the pool by its distance from the beginning, which another pool has as well."""
        return f"users +{int(network.network_address) - int(self.pool.network_address)}/{network.prefixlen}"

    def through(self, pattern: str) -> list[Conditions]:
        """Return when the users come by a device of that name, which may end with `*`: always or never."""
        if pattern.endswith("*"):
            return [ALWAYS] if self.device.startswith(pattern.removesuffix("*")) else []
        whole = pattern in self.live if self.live else pattern == self.device
        return [ALWAYS] if whole else []


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
    state: str | None = None
    """Of their connections (`new`, `established`), None for any."""

    @property
    def version(self) -> int:
        """Return the version of IP."""
        return self.users.version

    def has(self, header: str) -> bool:
        """Return whether the version of IP has the header."""
        return is_of_version(header, self.version)

    def reads(self, name: str) -> bool:
        """Return whether it is a field by which users of slots may differ on any way."""
        return name in AMONG or (name == "ct state" and self.state is not None)

    def differ_by(self, name: str) -> bool:
        """Return whether the field is one by which slots differ on this way."""
        return name in self.way

    def meets(self, name: str, values: Sequence[Any]) -> list[Conditions]:
        """Return when the packets have one of these values in the field: a list of ways to do so.

        The other end of a packet is nobody's user.
        """
        if name == "ct state" and self.state is not None:
            return [ALWAYS] if self.state in values else []
        if self.differ_by(name):
            return [one for value in values for one in self._own(name, value)]
        return left_unread(name, [value for value in values if not self._is_users(name, value)])

    def _own(self, name: str, value: Any) -> list[Conditions]:
        try:
            if name in {"iif", "oif"}:
                return self.users.through(str(value))
            return [one for network in networks_of(value) for one in self.users.at(network)]
        except (ValueError, TypeError, KeyError):
            return [frozenset({f"{UNREAD}{name} is {json.dumps(value, sort_keys=True)}"})]

    def _is_users(self, name: str, value: Any) -> bool:
        if name in {"iif", "oif"}:
            return any(one.through(str(value)) for one in self.all_users)
        with suppress(ValueError, TypeError, KeyError):
            return name in {"saddr", "daddr"} and all(
                any(one.at(network) and network.prefixlen >= one.pool.prefixlen for one in self.all_users)
                for network in networks_of(value)
            )
        return False


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
    (ROUTING, ROUTING, OUT),
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
            lost = missing(of_model, of_one, lambda entry: entry.verdict != DROP or _drops_some(entry))
            dropped = missing(of_one, of_model, _drops_some)
            entry = dropped if lost is None or (dropped and lost.rule.is_policy) else lost
            key = (entry.rule.place, entry.rule.text, entry.rule.handle) if entry else None
            if entry and key and key not in seen:
                seen.add(key)
                yield (one, model, entry) if entry is dropped else (model, one, entry)


def _drops_some(entry: Entry) -> bool:
    """Whether the rule drops packets, and not those of every slot."""
    return entry.verdict == DROP and (bool(entry.when) or entry.asks)


async def _sentence(has: Users, lacks: Users, entry: Entry, *, drops_more: bool) -> str:
    rule = f"`{await text_of(entry.rule)}` ({entry.rule.place})"
    if entry.is_unread:
        return (
            f"it is not known whether {rule} applies to users of slot {lacks.slot}; "
            f"write it with their pool {lacks.pool}, or with their devices {lacks.device}*"
        )
    does = {ACCEPT: "accepts packets of", DROP: "drops packets of", TRANSLATE: "translates addresses of"}
    otherwise = "routes packets of" if entry.rule.place == ROUTING else "redirects packets of"
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


def drops(rules: Rules, users: Iterable[Users]) -> Iterator[str]:
    """Yield which chains drop all packets that these users send, or all answers to them.

    A rule that drops some packets, such as those of one state or to one port, is no fault of the path.
    """
    users = tuple(users)
    for one, (way, state) in product(users, ((OUT, "new"), (BACK, "established"))):
        for place, entries in rules.of("forward", "filter", Looking(one, way, users, state)):
            if not any(entry.verdict == ACCEPT for entry in entries):
                yield f"{place} drops all that is forwarded for users of slot {one.slot} ({one.pool})"


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
