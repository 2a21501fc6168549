"""Whether the host's own packet filter takes users at a slot's port as it takes them at the gateway's.

Steering moves new users from the gateway's port to the port of a slot before the filter's input chains see
them, and a probe from the host itself passes through a cable of its own. So every chain is reduced twice, for
the first packet of an unknown user at the gateway's port and for the same packet at the slot's port. Chains
for what the host sends are reduced for the first reply to each. From which address and by which device it
comes is not known, so conditions on these stay: a rule that accepts users at the gateway's port under some
conditions has to accept them at the slot's port under no others.
"""

import asyncio
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from itertools import product
from math import inf
from typing import Any

from activities.drivers.programs import run
from activities.drivers.runtime.host.filter_listing import advice_on, read_rules, text_of
from activities.drivers.runtime.host.packet_filter import (
    ACCEPT,
    COMPARED_WITHIN,
    DROP,
    EVERYWHERE,
    ROUTING,
    ROUTING_OWN,
    UNTRACKED,
    ZONE,
    Between,
    Entry,
    Rule,
    Rules,
    missing,
)
from activities.drivers.runtime.host.rule_conditions import (
    ALWAYS,
    ORIGINAL,
    STANDS_FOR,
    TRANSPORTS,
    UNREAD,
    is_of_version,
)
from activities.drivers.runtime.host.rule_values import Conditions, Network, Values, networks_of
from policies.model.fleet import Gateway

Address = IPv4Address | IPv6Address
_PROTOCOLS = {"tcp": 6, "udp": 17}
_NONE = (inf, inf)
_AT_THE_SLOT: Between = {
    "ingress": _NONE,
    "prerouting": (-105, inf),
    "postrouting": (-inf, 99),
    "egress": _NONE,
}
"""Where steered packets and their replies have the slot's port.

Chains before the steering's own see the port that users dial, and so do chains from `srcnat` on.
"""
_BEFORE_TRACKING: Between = dict.fromkeys(("prerouting", "output"), (-inf, -201))
_HOOKS = (
    *((hook, False) for hook in ("ingress", "prerouting", "input")),
    *((hook, True) for hook in ("output", "postrouting", "egress")),
)
"""Hooks that packets of users pass, and whether it is the replies that do so."""
_PORTS = frozenset({"dport", "port", "ct original proto-dst", "ct reply proto-src"})
_ADDRESSES = frozenset({"daddr", ORIGINAL["daddr"], "ct reply saddr"})
_DIFFER = _PORTS | _ADDRESSES | {"ct status"}
_KNOWN = frozenset({*_DIFFER, "l4proto", "iif", "sport", "ct state", "ct direction", "daddr type"})
_SHARED = frozenset(
    {
        *("saddr", "sport", "oif", "saddr type"),
        *(ORIGINAL["saddr"], "ct original proto-src", "ct reply daddr", "ct reply proto-dst"),
    }
)
"""What is not known of a user, and is the same at every port."""
_SENDERS = frozenset({"saddr", "iif", "oif"})
_ENDS = {"saddr": "daddr", "sport": "dport", "iif": "oif", "saddr type": "daddr type"}
_OTHER_END = _ENDS | {there: here for here, there in _ENDS.items()}
"""By field of a packet, the one that has the same in the reply to it."""
_OWNERS = frozenset({"skuid", "skgid", "--uid-owner", "--gid-owner"})
_ROOT = frozenset({"0", "root"})
"""By which user and group the sockets of every daemon are opened, before it may become another one."""
_OF_USERS = 1024
"""The first port from which programs of users send, except for IKE."""
_IKE = 500


@dataclass(frozen=True)
class First:
    """The first packet of a user whom nobody knows, at one port of the gateway, or the first reply to it."""

    version: int
    transport: str
    port: int
    address: Address | None
    """The address that it is for, None where that is not known."""
    dialled: int
    """The port that the user dialled, which differs from `port` where steering redirects users."""
    dialled_at: Address | None
    """The address that the user dialled, None where that is not known."""
    is_reply: bool = False
    """Whether it is the reply, which has that port and that address as its source."""
    device: str | None = None
    """The one that has the address that the user dialled, None where that is not known."""

    @property
    def other_ways(self) -> Sequence["First"]:
        """Return the first packet of the connection for the reply, and none for that one."""
        return [replace(self, is_reply=False)] if self.is_reply else ()

    def meets_nat(self, hook: str) -> bool:
        """Return whether chains of NAT see it: no reply, and none that the steering's own has redirected."""
        return not self.is_reply and (hook != "prerouting" or self.dialled == self.port)

    def has(self, header: str) -> bool:
        """Return whether the packet has the header."""
        return is_of_version(header, self.version) and header in {self.transport, *({header} - TRANSPORTS)}

    def reads(self, name: str) -> bool:
        """Return whether it is known what the packet has in that field."""
        return self._inward(name) in _KNOWN or name in _OWNERS

    def shares(self, name: str) -> bool:
        """Return whether the field is one of the user, who is the same at every port."""
        return self._inward(name) in _SHARED or self._inward(STANDS_FOR.get(name, "")) in _SENDERS

    def differ_by(self, name: str) -> bool:
        """Return whether the field may have another value at another port of the gateway."""
        return self._inward(name) in _DIFFER

    def address_in(self, name: str) -> Network | None:
        """Return the address that the packet is for, or was dialled for."""
        address = self._address(self._inward(name))
        return ip_network(address) if address is not None else None

    def _address(self, inward: str) -> Address | None:
        at = {"daddr": self.address, ORIGINAL["daddr"]: self.dialled_at, "ct reply saddr": self.address}
        return at.get(inward)

    def _inward(self, name: str) -> str:
        """Return in which field the user's own packet has what this one has in that field."""
        return _OTHER_END.get(name, name) if self.is_reply else name

    def own(self, address: str) -> str:
        """Return the address: users' own ones are not known."""
        return address

    def meets(self, name: str, values: Values) -> list[Conditions]:
        """Return when the packet has one of these values in the field."""
        if name in _OWNERS:
            return values.unread(f"{UNREAD * (not {*map(str, values)} <= _ROOT)}{name}")
        inward = self._inward(name)
        try:
            if nobody := _OF_NO_USER.get(inward):
                return values.unread(name, [at for at, value in enumerate(values) if nobody(value)])
            found = any(self._is(inward, value) for value in values)
        except (ValueError, TypeError, KeyError):
            return values.unread(f"{UNREAD}{name}")
        if inward in _ADDRESSES and self._address(inward) is None:
            return values.unread(name)
        return [ALWAYS] if found else []

    def _is(self, inward: str, value: Any) -> bool:
        if inward in _ADDRESSES:
            address = self._address(inward)
            return any(address in network for network in networks_of(value) if address)
        if inward in _PORTS:
            return _covers(value, self.dialled if inward == "ct original proto-dst" else self.port)
        translated = {"dnat"} if self.dialled != self.port else set[str]()
        facts = {
            "l4proto": {self.transport, str(_PROTOCOLS[self.transport]), "all", "0"},
            "ct state": {"established" if self.is_reply else "new", *translated},  # one name in iptables
            "ct status": {*translated, *(("seen-reply", "confirmed") if self.is_reply else ())},
            "ct direction": {"reply" if self.is_reply else "original"},
            "daddr type": {"local"},
        }
        return str(value) in facts[inward]


def _covers(value: Any, port: int) -> bool:
    low, high = _ends_of(value)
    return low <= port <= high


def _ends_of(value: Any) -> tuple[int, int]:
    low, high = value["range"] if isinstance(value, dict) else (value, value)
    return int(low), int(high)


def _is_of_services(value: Any) -> bool:
    return _ends_of(value)[1] < _OF_USERS and not _covers(value, _IKE)


_OF_NO_USER: Mapping[str, Callable[[Any], bool]] = {"iif": "lo".__eq__, "sport": _is_of_services}
"""By field, which values no user from outside has in it; the others are not known."""


@dataclass(frozen=True)
class _Anyone(First):
    """The packet of a user whose address no rule names, and who comes by the device of the gateway's address.

    What else differs from user to user is not known of it.
    """

    def reads(self, name: str) -> bool:
        """Return whether it is known what the packet has in that field."""
        return self._inward(name) == "saddr" or super().reads(name)

    def shares(self, name: str) -> bool:
        """Return that no field is the same for all users."""
        del name
        return False

    def differ_by(self, name: str) -> bool:
        """Return whether the field may have another value for another user, or at another port."""
        return self._inward(name) == "saddr" or super().differ_by(name)

    def meets(self, name: str, values: Values) -> list[Conditions]:
        """Return when the packet has one of these values in the field."""
        inward = self._inward(name)
        if inward == "saddr":
            return []
        if inward == "iif" and self.device:
            return [ALWAYS] if any(fnmatchcase(self.device, str(value)) for value in values) else []
        if inward == "iif" or (inward in _ADDRESSES and self._address(inward) is None):
            return values.unread(f"{UNREAD}{name}")
        return super().meets(name, values)


@dataclass(frozen=True)
class _Arrival:
    """For which addresses users' packets come, None where that is not known."""

    version: int
    dialled: Address | None
    redirected: Address | None
    """The one that packets have which were redirected: the first one of the device by which they came."""
    device: str | None = None
    """The one that has the address that users dial."""

    def at(self, port: int, transport: str) -> First:
        """Return the packet of a user who dialled that port."""
        return First(self.version, transport, port, self.dialled, port, self.dialled, device=self.device)

    def redirected_to(self, port: int, dialled: First) -> First:
        """Return the packet as it is once steering has redirected it to that port."""
        return replace(dialled, port=port, address=self.redirected)


async def drops_users(
    gateway: Gateway, redirected: Iterable[str], serving: str | None = None, rules: Rules | None = None
) -> tuple[str, ...]:
    """Return which slots' ports the host's filter drops for users, each with the rules and what to do.

    Packets that the kernel does not track are dropped, too: steering redirects none of them.

    Args:
        gateway: Whose slots.
        redirected: Transports of users whom steering redirects to a slot's port.
        serving: The slot that serves: its users get in, too.
        rules: The packet filter where it was read already.

    Raises:
        Unavailable: The packet filter cannot be read, or not be compared in time.
    """
    ways, found = await _ways(gateway, redirected), dict[str, None]()
    if not ways:
        return ()
    rules = (rules or await read_rules()).within(COMPARED_WITHIN)
    for slots, dialled, between in ways:
        if between is not EVERYWHERE:
            untracked = await asyncio.to_thread(_untracked, rules, [dialled, *slots.values()])
            found |= {await _not_tracked(*each): None for each in untracked}
        models = [dialled, *(one for name, one in slots.items() if name == serving)]
        for name, one in slots.items():
            lost = await asyncio.to_thread(_lost, rules, models, one, between)
            found |= {await _sentence(gateway, name, one, *each): None for each in lost}
            led = await asyncio.to_thread(_led_elsewhere, rules, models, one, between)
            found |= {_routed(name, one, *each): None for each in led}
    return tuple(found)


async def spares(gateway: Gateway, redirected: Iterable[str], rules: Rules) -> tuple[str, ...]:
    """Return which rules drop some users at the port that they dial whom none drops at the port of a slot.

    Bans and limits that are written for the users' port are such rules: they see nobody whom steering
    redirects. Whether a host has them may change from minute to minute, so no upgrade waits for them.

    Args:
        gateway: Whose slots.
        redirected: Transports of users whom steering redirects to a slot's port.
        rules: The packet filter.

    Raises:
        Unavailable: The packet filter cannot be compared in time.
    """
    rules, found = rules.within(COMPARED_WITHIN), dict[str, None]()
    for slots, dialled, between in await _ways(gateway, redirected):
        for name, one in slots.items():
            for rule in await asyncio.to_thread(_spared, rules, dialled, one, between):
                kind = one.transport.upper()
                where = f"{kind} port {one.port} of slot {name} over IPv{one.version}"
                what = f"some users of {kind} port {dialled.port} whom no rule drops at {where}"
                found[f"`{await text_of(rule)}` ({rule.place}) drops {what}"] = None
    return tuple(found)


async def _ways(gateway: Gateway, redirected: Iterable[str]) -> list[tuple[dict[str, First], First, Between]]:
    """Return by address and transport the packet at each slot, the one dialled, and where they differ."""
    if gateway.steering == "haproxy":
        return []  # users reach HAProxy there
    compared = () if gateway.has_own_networks else gateway.slots  # users of others pass forward chains
    steered, found = set(redirected), list[tuple[dict[str, First], First, Between]]()
    for arrival, transport in product(await _arrivals(gateway), _PROTOCOLS):
        dialled = arrival.at(gateway.port, transport)
        is_steered = transport in steered
        slots = {
            slot.name: arrival.redirected_to(slot.port, dialled)
            if is_steered
            else arrival.at(slot.port, transport)
            for slot in compared
        }
        if slots or is_steered:
            found.append((slots, dialled, _AT_THE_SLOT if is_steered else EVERYWHERE))
    return found


def _both(
    rules: Rules, model: First, sent: First, between: Between
) -> Iterator[tuple[First, list[Entry], list[Entry]]]:
    """Yield the first of two packets that pass a chain, or replies to them, and what it does with both."""
    for hook, is_reply in _HOOKS:
        both = [replace(one, is_reply=is_reply) for one in (model, sent)]
        theirs, ours = (rules.of(hook, "filter", one, between) for one in both)
        yield from ((both[0], one, other) for (_, one), (_, other) in zip(theirs, ours, strict=True))


def _spared(rules: Rules, dialled: First, sent: First, between: Between) -> list[Rule]:
    """Return which rules drop by the port that was dialled, where none drops the same at the slot's."""
    return [
        entry.rule
        for _, theirs, ours in _both(rules, dialled, sent, between)
        for same in [{entry.when for entry in ours if entry.verdict == DROP}]
        for entry in theirs
        if _drops_by_port(entry) and entry.when not in same
    ]


def _drops_by_port(entry: Entry) -> bool:
    return entry.verdict == DROP and entry.asks and bool(entry.when)


def _lost(
    rules: Rules, models: Iterable[First], sent: First, between: Between
) -> list[tuple[First, Entry, Entry]]:
    """Return which packets pass that do not at the slot's port, by which rule, and which one drops them."""
    for model in models:
        both = list(_both(rules, model, sent, between))
        if all(any(map(_accepts, theirs)) for _, theirs, _ in both):  # else users come another way
            missed = [(one, missing(theirs, ours, _accepts), theirs, ours) for one, theirs, ours in both]
            if found := [
                (one, entry, _drop(theirs, ours)) for one, entry, theirs, ours in missed if entry is not None
            ]:
                return found
    return []


def _accepts(entry: Entry) -> bool:
    return entry.verdict == ACCEPT


def _drop(theirs: Sequence[Entry], ours: Sequence[Entry]) -> Entry:
    """Return the first rule that drops packets at the slot's port alone; the last one where none does."""
    known = {(entry.when, entry.verdict) for entry in theirs}
    return next(
        (one for one in ours if one.verdict == DROP and (one.when, one.verdict) not in known), ours[-1]
    )


def _led_elsewhere(
    rules: Rules, models: Iterable[First], sent: First, between: Between
) -> list[tuple[First, Entry, bool]]:
    """Return which replies routing rules lead otherwise, by which rule, and whether it leads the slot's."""
    for model in models:
        theirs, ours = (
            [one for _, entries in rules.of(ROUTING_OWN, ROUTING, replies, between) for one in entries]
            for replies in (replace(one, is_reply=True) for one in (model, sent))
        )
        lost = missing(theirs, ours, _leads)
        other = lost or missing(ours, theirs, _leads)
        if other is None:
            continue
        differing = (
            (model, entry, is_the_slots)
            for some, others, is_the_slots in ((theirs, ours, False), (ours, theirs, True))
            for there in [{(one.when, one.verdict) for one in others}]
            for entry in some
            if (entry.when, entry.verdict) not in there
        )
        return [next(differing, (model, other, lost is None))]  # else only their order differs
    return []


def _leads(_: Entry) -> bool:
    return True  # a routing rule always leads packets somewhere


def _untracked(rules: Rules, sent: Sequence[First]) -> list[tuple[First, Entry]]:
    """Return which packets of any user, or replies, are surely not tracked together, by which verdict.

    Steering translates tracked packets alone, and the reply to one that it has translated back. A reply in
    another zone is none to it.
    """
    dialled, *at_slots = sent
    theirs = _of_tracking(rules, "prerouting", dialled)
    found = [(dialled, entry) for entry in theirs if entry.verdict == UNTRACKED and _is_sure(entry)]
    for one in (replace(one, is_reply=True) for one in at_slots):
        ours = _of_tracking(rules, "output", one)
        found += [(one, entry) for entry in ours if entry.verdict == UNTRACKED and _is_sure(entry)]
        for packets, some, others in ((dialled, theirs, ours), (one, ours, theirs)):
            zones = {entry.verdict for entry in others}
            found += [
                (packets, entry)
                for entry in some
                if entry.verdict.startswith(ZONE) and _is_sure(entry) and entry.verdict not in zones
            ]
    return found


def _of_tracking(rules: Rules, hook: str, sent: First) -> list[Entry]:
    packets = _Anyone(**vars(sent))
    return [one for _, entries in rules.of(hook, "filter", packets, _BEFORE_TRACKING) for one in entries]


def _is_sure(entry: Entry) -> bool:
    """Return whether some packets of each connection meet the conditions: a connection has all flags."""
    return not entry.is_unread and all("flags" in condition for condition in entry.when)


def _routed(slot: str, sent: First, model: First, entry: Entry, is_the_slots: bool) -> str:
    users, own = (
        f"replies from {one.transport.upper()} port {one.port}{f' of {one.address}' if one.address else ''}"
        for one in (model, sent)
    )
    own += f" of slot {slot} over IPv{sent.version}"
    some, others = (own, users) if is_the_slots else (users, own)
    rule, advice = f"`{entry.rule.text}` ({entry.rule.place})", "have both led, and marked for it, alike"
    if entry.is_unread:
        return f"it is not known whether {rule} leads {others} as it leads {some}; {advice}"
    return f"{rule} leads {some}, and not {others}; {advice}"


async def _not_tracked(sent: First, entry: Entry) -> str:
    what = f"{'replies from ' * sent.is_reply}{sent.transport.upper()} port {sent.port}"
    rule = f"`{await text_of(entry.rule)}` ({entry.rule.place})"
    if entry.verdict.startswith(ZONE):
        way = "packets from users and replies, or exempt"
        return (
            f"{rule} has the kernel track {what} over IPv{sent.version} in a zone, and not what goes the "
            f"other way, so no reply is translated back; set the zone for {way} {what} from it"
        )
    return (
        f"{rule} keeps the kernel from tracking {what} over "
        f"IPv{sent.version}, and steering moves tracked connections only; exempt {what} from that rule"
    )


async def _sentence(
    gateway: Gateway, slot: str, sent: First, model: First, accepts: Entry, drops: Entry
) -> str:
    if accepts.hidden_in:
        return await advice_on(accepts.hidden_in, accepts.rule.namespace)
    way = "replies from " * model.is_reply
    users, what = (f"{way}{sent.transport.upper()} port {port}" for port in (model.port, sent.port))
    where, rule = f"{what} of slot {slot} over IPv{sent.version}", f"`{await text_of(accepts.rule)}`"
    if model.is_reply:
        what += f" (`--sport {sent.port}` in iptables, `{sent.transport} sport {sent.port}` in nftables)"
    if accepts.is_unread:
        return (
            f"it is not known whether {rule} of {gateway.name} ({accepts.rule.place}) accepts {where}; "
            f"add a rule that accepts {what}"
        )
    return (
        f"the packet filter of {gateway.name} accepts {users} ({rule}) and drops {where} "
        f"(`{await text_of(drops.rule)}`, {drops.rule.place}); accept {what} under the same conditions"
    )


async def _arrivals(gateway: Gateway) -> list[_Arrival]:
    said = await run(["ip", "-j", "address", "show"])
    links: list[dict[str, Any]] = json.loads(said.out or "[]") if said.status == 0 else []
    return [_arrival(address, links) for address in gateway.addresses]


def _arrival(address: Address, links: Iterable[Mapping[str, Any]]) -> _Arrival:
    """Return where users' packets for that address arrive.

    A redirected packet gets the first address of its device. Which one that is of several of IPv6, or of a
    device other than the one that has the address, is not known.
    """
    for link in links:
        own = [ip_address(one["local"]) for one in link.get("addr_info", ()) if _is_first_of_its(one)]
        every = {one.get("local") for one in link.get("addr_info", ())}
        if str(address) in every:
            same = [one for one in own if one.version == address.version and not one.is_link_local]
            device = link["ifname"] if link["ifname"] != "lo" else None
            known = device is not None and (len(same) == 1 or address.version == _IPV4)
            return _Arrival(address.version, address, same[0] if known and same else None, device)
    return _Arrival(address.version, None, None)


def _is_first_of_its(address: Mapping[str, Any]) -> bool:
    """Whether the address is one of those that the kernel chooses from."""
    return "local" in address and not address.get("secondary")


_IPV4 = 4
