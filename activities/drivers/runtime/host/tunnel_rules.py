"""Whether the host's own packet filter treats the users of each slot as those of the slot that serves.

Installers write rules that name a pool or a device: `-s 10.8.0.0/24 -j MASQUERADE`, `-i tun0 -j ACCEPT`. A
new slot has another pool and another device. Its users log in, its probe passes, and nothing leaves the
tunnel.

Routing rules (`ip rule`) that name a pool or a device do the same.

So every chain is reduced twice, for packets of one slot's users and for those of another. What is left for
one slot has to be there for the other, too.

Where each instance has a network of its own, the same is true of the instance's address: packets of users
are forwarded to it, before any tunnel. Where such a gateway has an inside, what tunnels carry passes through
that network namespace, so the users' pools are compared there.
"""

import asyncio
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import IPv4Network, ip_address, ip_network
from itertools import product
from typing import Any

from activities.drivers.programs import run
from activities.drivers.runtime.host.filter_listing import advice_on, read_rules, text_of
from activities.drivers.runtime.host.packet_filter import (
    ACCEPT,
    COMPARED_WITHIN,
    DROP,
    KEEPS,
    QUEUES,
    ROUTING,
    Entry,
    Rules,
    missing,
)
from activities.drivers.runtime.host.rule_conditions import (
    ALWAYS,
    BY_PROGRAM,
    ORIGINAL,
    STANDS_FOR,
    UNREAD,
    is_of_version,
)
from activities.drivers.runtime.host.rule_values import Conditions, Network, Values, networks_of
from policies.model.adoption import ADOPTED
from policies.model.fleet import Slot


@dataclass(frozen=True)
class Users:
    """The users of a slot by one version of IP, as rules meet them."""

    slot: str
    pool: Network
    device: str
    """How its devices' names begin."""
    live: frozenset[str] = frozenset()
    """Its devices that are there and serve all of its users, not a single one."""
    has_cable: bool = False
    """Whether `device` is the one device, a cable to the network that the slot's instance has of its own."""
    outside: bool = False
    """Whether `pool` is the instance's address in that network, to which users' packets are forwarded."""

    @property
    def where(self) -> str:
        """Return how rules may name them."""
        kind, device = ("address" if self.outside else "pool"), ("device" if self.has_cable else "devices")
        return f"{kind} {self.pool} or their {device} {self.device}{'' if self.has_cable else '*'}"

    def is_compared_with(self, other: "Users") -> bool:
        """Return whether rules have to do for them what they do for these."""
        alike = self.version == other.version and self.outside is other.outside
        return alike and self.slot != other.slot

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
_ADDRESSES = frozenset({"saddr", "daddr"})
_OPENED = {ORIGINAL["saddr"]: "opened by the user", ORIGINAL["daddr"]: "opened to the user"}
"""When users have the address of a connection's first packet that is asked for."""
_WHOLE = 15 / 16
"""The share of a pool that stands for all of it: a few addresses of a network are no user's."""
_SHARED = frozenset(
    {
        *("sport", "dport", "port", "--vport", "--vaddr"),
        *(f"ct {way} proto-{end}" for way in ("original", "reply") for end in ("src", "dst")),
        *("ct state", "ct status", "ct direction", "l4proto", "saddr type", "daddr type"),
        *BY_PROGRAM,
    }
)
"""What users of every slot send and get alike."""


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

    @property
    def other_ways(self) -> Sequence["Looking"]:
        """Return packets on the way out of the tunnel and on the way back, which have the same mark."""
        return [replace(self, way=way) for way in (OUT, BACK) if way != self.way]

    def meets_nat(self, hook: str) -> bool:
        """Return whether they may be the first packets of their connections."""
        del hook
        return self.state != "established"

    def has(self, header: str) -> bool:
        """Return whether the version of IP has the header."""
        return is_of_version(header, self.version)

    def reads(self, name: str) -> bool:
        """Return whether it is a field by which users of slots may differ on any way."""
        return name in AMONG or name in _OPENED or (name == "ct state" and self.state is not None)

    def shares(self, name: str) -> bool:
        """Return whether the field tells nothing of users, or stands for the other end of a packet."""
        beyond = name.startswith(("@th ", "@ih "))
        return beyond or name in _SHARED or (name in STANDS_FOR and STANDS_FOR[name] not in self.way)

    def differ_by(self, name: str) -> bool:
        """Return whether the field is one by which slots differ on this way."""
        return name in self.way or name in _OPENED

    def address_in(self, name: str) -> Network | None:
        """Return their pool where it is by that field that slots differ on this way."""
        return self.users.pool if name in _ADDRESSES and name in self.way else None

    def own(self, address: str) -> str:
        """Return an address of their pool by its distance from the beginning; else itself."""
        with suppress(ValueError):
            if (network := ip_network(address)).version == self.version and network.overlaps(self.users.pool):
                return self.users.within(network)
        return address

    def meets(self, name: str, values: Values) -> list[Conditions]:
        """Return when the packets have one of these values in the field: a list of ways to do so.

        The other end of a packet is nobody's user.
        """
        if name == "ct state" and self.state is not None:
            return [ALWAYS] if self.state in values else []
        if name in _OPENED:
            near = Values(values[at] for at in values.around(self.users.pool))
            own = [one | {_OPENED[name]} for one in self._own(name, near)]
            return own + values.unread(name, self._of_users(name, values))
        if self.differ_by(name):
            return self._own(name, values)
        return values.unread(name, self._of_users(name, values))

    def _own(self, name: str, values: Values) -> list[Conditions]:
        """Return when they have one of the values; a set may have a network as all of its addresses."""
        if name not in {"iif", "oif"} and values.share_of(self.users.pool) >= _WHOLE:
            return [ALWAYS]
        return [one for value in values for one in self._own_one(name, value)]

    def _own_one(self, name: str, value: Any) -> list[Conditions]:
        try:
            if name in {"iif", "oif"}:
                return self.users.through(str(value))
            return [one for network in networks_of(value) for one in self.users.at(network)]
        except (ValueError, TypeError, KeyError):
            return [frozenset({f"{UNREAD}{name} is {json.dumps(value, sort_keys=True)}"})]

    def _of_users(self, name: str, values: Values) -> set[int]:
        """Return which of the values users of a slot have in the field."""
        if name in {"iif", "oif"}:
            return {at for at, one in enumerate(values) if any(by.through(str(one)) for by in self.all_users)}
        if name not in _ADDRESSES and name not in _OPENED:
            return set()
        near = {at for by in self.all_users for at in values.around(by.pool)}
        return {at for at in near if self._is_users(values[at])}

    def _is_users(self, value: Any) -> bool:
        with suppress(ValueError, TypeError, KeyError):
            return all(
                any(one.at(network) and network.prefixlen >= one.pool.prefixlen for one in self.all_users)
                for network in networks_of(value)
            )
        return False


# --- what is found ------------------------------------------------------------------------

_WAYS = (
    *product(("forward", "prerouting", "postrouting"), ("filter",), (OUT, BACK, AMONG)),
    ("input", "filter", OUT),
    ("output", "filter", BACK),
    *product(("prerouting", "postrouting"), ("nat",), (OUT, BACK)),
    *product((ROUTING,), (ROUTING,), (OUT, BACK, AMONG)),
)
_OF_THE_HOST = ("input", "output")
"""Chains for what users and the host itself send to each other."""
_NOT_OUTSIDE = ("postrouting", "nat", OUT)
"""What an instance sends by itself is translated by the steering, before rules of the host see it."""


@dataclass(frozen=True)
class Plane:
    """A network namespace through which users' packets pass."""

    rules: Rules
    users: tuple[Users, ...]
    """Those of whom packets pass here."""


async def planes_of(
    slots: Sequence[Slot], inside: str | None = None, rules: Rules | None = None
) -> tuple[Plane, ...]:
    """Return where packets of users of these slots pass: the host, and the gateway's inside if it has one.

    Args:
        slots: Whose users.
        inside: The network namespace behind the instances, None where there is none.
        rules: The host's packet filter where it was read already.

    Raises:
        Unavailable: The packet filter cannot be read.
    """
    every = await _users_of(slots)
    rules = rules or await read_rules()
    if inside is None:
        return (Plane(rules, every),)
    within = tuple(one for one in every if one.has_cable and not one.outside)
    here = tuple(one for one in every if one not in within)
    return Plane(rules, here), Plane(await read_rules(inside), within)


def models_among(slots: Iterable[Slot], serving: str | None) -> tuple[str, ...]:
    """Return the slots whose users get through: the one that serves and what was adopted, else all."""
    names = [slot.name for slot in slots]
    return tuple(name for name in names if name in {serving, ADOPTED}) or tuple(names)


async def uncovered(planes: Iterable[Plane], models: Iterable[str], judged: Iterable[str]) -> tuple[str, ...]:
    """Return where the packet filter does less for users of a slot than for those of another one.

    Args:
        planes: Where packets of users of a gateway's slots pass, with the slot of what was adopted.
        models: Names of slots whose users get through.
        judged: Names of slots that have to be treated as these.

    Raises:
        Unavailable: The rules are too many to be compared within the time that the check has.
    """
    names = list(judged)
    bounded = [replace(plane, rules=plane.rules.within(COMPARED_WITHIN)) for plane in planes]
    pairs = [
        (plane, model, one)
        for name, plane in product(models, bounded)
        for model, one in product(plane.users, plane.users)
        if model.slot == name and one.slot in names and one.is_compared_with(model)
    ]

    def differences() -> list[tuple[Users, Users, Entry, bool]]:
        return [
            (has, lacks, entry, has is one)
            for plane, model, one in pairs
            for has, lacks, entry in _differences(plane, model, one)
        ]

    found = await asyncio.to_thread(differences)  # hosts of clusters have thousands of rules
    return tuple(dict.fromkeys([await _sentence(*one[:3], not_there=one[3]) for one in found]))


def _differences(plane: Plane, model: Users, one: Users) -> Iterator[tuple[Users, Users, Entry]]:
    """Yield whose packets meet a verdict, whose do not, and the rule: one for each chain that differs."""
    seen = set[tuple[str, ...]]()
    pairs = [
        (hook, way, of_model, of_one)
        for hook, kind, way in _WAYS
        if not (one.outside and (hook, kind, way) == _NOT_OUTSIDE)
        for (_, of_model), (_, of_one) in zip(
            plane.rules.of(hook, kind, Looking(model, way, plane.users)),
            plane.rules.of(hook, kind, Looking(one, way, plane.users)),
            strict=True,
        )
    ]
    effects = [(way, of_one, entry) for _, way, _, of_one in pairs for entry in of_one if entry.is_effect]
    for hook, way, of_model, of_one in pairs:
        elsewhere = [entry for at, chain, entry in effects if at == way and chain is not of_one]
        lost = missing(of_model, of_one, partial(_counts, hook, elsewhere))
        dropped = missing(of_one, of_model, _drops_some)
        added = missing(of_one, of_model, partial(_is_added, of_model))
        if added and lost is None:
            lost = missing(of_model, of_one, lambda entry: entry.verdict == KEEPS)
        dropped = dropped or added
        entry = dropped if lost is None or (dropped and lost.rule.is_policy) else lost
        key = entry.rule.key if entry else None
        if entry and key and key not in seen:
            seen.add(key)
            yield (one, model, entry) if entry is dropped else (model, one, entry)


def _counts(hook: str, elsewhere: Iterable[Entry], entry: Entry) -> bool:
    """Whether a verdict has to be there for the other slot, too.

    What is not understood in chains for the host itself is for its other clients. An effect is as good in
    another chain, and one that is not understood is none.
    """
    if entry.is_mark or entry.verdict == KEEPS:
        return False
    if entry.is_unread and (hook in _OF_THE_HOST or entry.is_effect):
        return False
    if entry.is_effect:
        return not any(other.verdict == entry.verdict and other.when <= entry.when for other in elsewhere)
    return entry.verdict != DROP or _drops_some(entry)


def _is_added(of_model: Iterable[Entry], entry: Entry) -> bool:
    """Whether it is a translation that the other slot has not, or not without an exception.

    One by which packets leave through one device alone is as good as one by any device.
    """
    return entry.translates and not any(
        other.verdict == entry.verdict and not any(map(_is_exception, other.when - entry.when))
        for other in of_model
    )


def _is_exception(condition: str) -> bool:
    return condition.startswith(("not ", "! "))


def _drops_some(entry: Entry) -> bool:
    """Whether the rule drops packets, and not those of every slot."""
    return entry.verdict == DROP and (bool(entry.when) or entry.asks)


async def _sentence(has: Users, lacks: Users, entry: Entry, *, not_there: bool) -> str:
    if entry.hidden_in:
        return await advice_on(entry.hidden_in, entry.rule.namespace)
    rule = f"`{await text_of(entry.rule)}` ({entry.rule.place})"
    if entry.is_unread:
        return (
            f"it is not known whether {rule} applies to users of slot {lacks.slot}; "
            f"write it with their {lacks.where}"
        )
    does = {ACCEPT: "accepts packets of", DROP: "drops packets of", KEEPS: "keeps addresses of"}
    otherwise = "routes packets of" if entry.rule.place.startswith(ROUTING) else "redirects packets of"
    if entry.is_effect:
        otherwise = "queues packets of" if entry.verdict.startswith(QUEUES) else "changes packets of"
    if entry.translates:
        otherwise = "translates addresses of"
    what = does.get(entry.verdict, otherwise)
    if not_there and entry.verdict == DROP:
        return (
            f"{rule} drops packets of users of slot {has.slot} ({has.pool}), and none does so for users of "
            f"slot {lacks.slot}; let these packets pass"
        )
    if not_there and entry.translates:
        return (
            f"{rule} {what} users of slot {has.slot} ({has.pool}), and none does so for users of slot "
            f"{lacks.slot}; have addresses of both slots translated alike"
        )
    return (
        f"{rule} {what} users of slot {has.slot} ({has.pool}), and none does so as early for users of "
        f"slot {lacks.slot}; add one for their {lacks.where}"
    )


def drops(planes: Iterable[Plane]) -> Iterator[str]:
    """Yield which chains drop all packets that users send, or all answers to them.

    A rule that drops some packets, such as those of one state or to one port, is no fault of the path.
    """
    for plane, state in product(planes, ("new", "established")):
        for one in plane.users:
            begins, answers = (BACK, OUT) if one.outside else (OUT, BACK)
            packets = Looking(one, begins if state == "new" else answers, plane.users, state)
            for place, entries in plane.rules.of("forward", "filter", packets):
                if not any(entry.verdict == ACCEPT for entry in entries):
                    yield f"{place} drops all that is forwarded for users of slot {one.slot} ({one.pool})"


def translates(planes: Iterable[Plane]) -> bool:
    """Whether a rule translates addresses of users' packets on their way out of the tunnels."""
    return any(
        entry.translates
        for plane in planes
        for one in plane.users
        if not one.outside
        for _, entries in plane.rules.of("postrouting", "nat", Looking(one, OUT, (one,)))
        for entry in entries
    )


async def _users_of(slots: Iterable[Slot]) -> tuple[Users, ...]:
    """Return the users of the slots, with the devices that have addresses of their pools."""
    said = await run(["ip", "-j", "address", "show"])
    links: list[dict[str, Any]] = json.loads(said.out or "[]") if said.status == 0 else []
    found = [(link["ifname"], one) for link in links for one in link.get("addr_info", ())]
    shared = [(name, ip_address(one["local"])) for name, one in found if _is_shared(one)]
    users = [
        Users(
            slot.name,
            pool,
            slot.device,
            frozenset(name for name, address in shared if address in pool),
            has_cable=slot.address is not None,
        )
        for slot in slots
        for pool in slot.pools
    ]
    users += [
        Users(slot.name, IPv4Network(slot.address), slot.device, has_cable=True, outside=True)
        for slot in slots
        if slot.address is not None
    ]
    return tuple(users)


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
