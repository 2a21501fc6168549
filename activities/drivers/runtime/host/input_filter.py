"""Whether the host's own packet filter takes users at a slot's port as it takes them at the gateway's.

Steering moves new users from the gateway's port to the port of a slot before the filter's input chains see
them, and a probe from the host itself passes through a cable of its own. So every chain is reduced twice, for
the first packet of an unknown user at the gateway's port and for the same packet at the slot's port. From
which address and by which device it comes is not known, so conditions on these stay: a rule that accepts
users at the gateway's port under some conditions has to accept them at the slot's port under no others.
"""

import asyncio
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from itertools import product
from math import inf
from typing import Any

from activities.drivers.programs import run
from activities.drivers.runtime.host.filter_listing import read_rules, text_of
from activities.drivers.runtime.host.packet_filter import (
    ACCEPT,
    COMPARED_WITHIN,
    DROP,
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
_STEERED_FROM = -105
"""The priority of the steering's chain: chains before it see the port that users dial."""
_PORTS = frozenset({"dport", "ct original proto-dst", "ct reply proto-src"})
_ADDRESSES = frozenset({"daddr", ORIGINAL["daddr"], "ct reply saddr"})
_DIFFER = _PORTS | _ADDRESSES | {"ct status"}
_KNOWN = frozenset({*_DIFFER, "l4proto", "iif", "ct state", "ct direction", "daddr type"})
_SHARED = frozenset(
    {
        *("saddr", "sport", "oif", "saddr type"),
        *(ORIGINAL["saddr"], "ct original proto-src", "ct reply daddr", "ct reply proto-dst"),
    }
)
"""What is not known of a user, and is the same at every port."""
_SENDERS = frozenset({"saddr", "iif", "oif"})


@dataclass(frozen=True)
class First:
    """The first packet of a user whom nobody knows, at one port of the gateway."""

    version: int
    transport: str
    port: int
    address: Address | None
    """The address that it is for, None where that is not known."""
    dialled: int
    """The port that the user dialled, which differs from `port` where steering redirects users."""
    dialled_at: Address | None
    """The address that the user dialled, None where that is not known."""

    @property
    def other_ways(self) -> Sequence["First"]:
        """Return none: it is the first packet of its connection."""
        return ()

    def has(self, header: str) -> bool:
        """Return whether the packet has the header."""
        return is_of_version(header, self.version) and header in {self.transport, *({header} - TRANSPORTS)}

    def reads(self, name: str) -> bool:
        """Return whether it is known what the packet has in that field."""
        return name in _KNOWN

    def shares(self, name: str) -> bool:
        """Return whether the field is one of the user, who is the same at every port."""
        return name in _SHARED or STANDS_FOR.get(name) in _SENDERS

    def differ_by(self, name: str) -> bool:
        """Return whether the field may have another value at another port of the gateway."""
        return name in _DIFFER

    def address_in(self, name: str) -> Network | None:
        """Return the address that the packet is for, or was dialled for."""
        address = self._address(name)
        return ip_network(address) if address is not None else None

    def _address(self, name: str) -> Address | None:
        at = {"daddr": self.address, ORIGINAL["daddr"]: self.dialled_at, "ct reply saddr": self.address}
        return at.get(name)

    def own(self, address: str) -> str:
        """Return the address: users' own ones are not known."""
        return address

    def meets(self, name: str, values: Values) -> list[Conditions]:
        """Return when the packet has one of these values in the field."""
        if name == "iif":
            return values.unread(name, [at for at, value in enumerate(values) if value == "lo"])
        try:
            found = any(self._is(name, value) for value in values)
        except (ValueError, TypeError, KeyError):
            return values.unread(f"{UNREAD}{name}")
        if name in _ADDRESSES and self._address(name) is None:
            return values.unread(name)
        return [ALWAYS] if found else []

    def _is(self, name: str, value: Any) -> bool:
        if name in _ADDRESSES:
            address = self._address(name)
            return any(address in network for network in networks_of(value) if address)
        if name in _PORTS:
            return _covers(value, self.dialled if name == "ct original proto-dst" else self.port)
        translated = {"dnat"} if self.dialled != self.port else set[str]()
        facts = {
            "l4proto": {self.transport, str(_PROTOCOLS[self.transport]), "all", "0"},
            "ct state": {"new", *translated},  # iptables asks for both by one name
            "ct status": translated,
            "ct direction": {"original"},
            "daddr type": {"local"},
        }
        return str(value) in facts[name]


def _covers(value: Any, port: int) -> bool:
    low, high = value["range"] if isinstance(value, dict) else (value, value)
    return int(low) <= port <= int(high)


@dataclass(frozen=True)
class _Arrival:
    """For which addresses users' packets come, None where that is not known."""

    version: int
    dialled: Address | None
    redirected: Address | None
    """The one that packets have which were redirected: the first one of the device by which they came."""

    def at(self, port: int, transport: str) -> First:
        """Return the packet of a user who dialled that port."""
        return First(self.version, transport, port, self.dialled, port, self.dialled)

    def redirected_to(self, port: int, dialled: First) -> First:
        """Return the packet as it is once steering has redirected it to that port."""
        return replace(dialled, port=port, address=self.redirected)


async def drops_users(
    gateway: Gateway, redirected: Iterable[str], serving: str | None = None, rules: Rules | None = None
) -> tuple[str, ...]:
    """Return which slots' ports the host's filter drops for users, each with the rules and what to do.

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
    for slots, dialled, since in ways:
        models = [dialled, *(one for name, one in slots.items() if name == serving)]
        for name, one in slots.items():
            lost = await asyncio.to_thread(_lost, rules, models, one, since)
            found |= {await _sentence(gateway, name, one, *each): None for each in lost}
    return tuple(found)


async def spares(gateway: Gateway, redirected: Iterable[str], rules: Rules) -> tuple[str, ...]:
    """Return which rules drop some users at the port that they dial, and nobody at the port of a slot.

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
    for slots, dialled, since in await _ways(gateway, redirected):
        for name, one in slots.items():
            for rule in await asyncio.to_thread(_spared, rules, dialled, one, since):
                kind = one.transport.upper()
                where = f"{kind} port {one.port} of slot {name} over IPv{one.version}"
                what = f"some users of {kind} port {dialled.port}, and nobody at {where}"
                found[f"`{await text_of(rule)}` ({rule.place}) drops {what}"] = None
    return tuple(found)


async def _ways(gateway: Gateway, redirected: Iterable[str]) -> list[tuple[dict[str, First], First, float]]:
    """Return by address and transport the packet at each slot, the one dialled, and since which chain."""
    if gateway.steering == "haproxy" or gateway.has_own_networks:
        return []  # users reach HAProxy there, or go through forward chains
    steered, found = set(redirected), list[tuple[dict[str, First], First, float]]()
    for arrival, transport in product(await _arrivals(gateway), _PROTOCOLS):
        dialled = arrival.at(gateway.port, transport)
        is_steered = transport in steered
        slots = {
            slot.name: arrival.redirected_to(slot.port, dialled)
            if is_steered
            else arrival.at(slot.port, transport)
            for slot in gateway.slots
        }
        found.append((slots, dialled, _STEERED_FROM if is_steered else -inf))
    return found


def _both(rules: Rules, model: First, sent: First, since: float) -> Iterator[tuple[list[Entry], list[Entry]]]:
    """Yield what each chain does with both packets."""
    for hook in ("prerouting", "input"):
        theirs, ours = (rules.of(hook, "filter", one, since) for one in (model, sent))
        yield from ((first, second) for (_, first), (_, second) in zip(theirs, ours, strict=True))


def _spared(rules: Rules, dialled: First, sent: First, since: float) -> list[Rule]:
    """Return which rules drop by the port that was dialled, in chains where none drops by the slot's."""
    return [
        entry.rule
        for theirs, ours in _both(rules, dialled, sent, since)
        if not any(_drops_by_port(entry) for entry in ours)
        for entry in theirs
        if _drops_by_port(entry)
    ]


def _drops_by_port(entry: Entry) -> bool:
    return entry.verdict == DROP and entry.asks and bool(entry.when)


def _lost(
    rules: Rules, models: Iterable[First], sent: First, since: float
) -> list[tuple[First, Entry, Entry]]:
    """Return which packets get in that do not at the slot's port, by which rule, and which one drops them."""
    for model in models:
        both = list(_both(rules, model, sent, since))
        if all(any(_accepts(entry) for entry in theirs) for theirs, _ in both):  # else users come another way
            missed = [(missing(theirs, ours, _accepts), theirs, ours) for theirs, ours in both]
            if found := [
                (model, one, _drop(theirs, ours)) for one, theirs, ours in missed if one is not None
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


async def _sentence(
    gateway: Gateway, slot: str, sent: First, model: First, accepts: Entry, drops: Entry
) -> str:
    users, what = (f"{sent.transport.upper()} port {port}" for port in (model.port, sent.port))
    where = f"{what} of slot {slot} over IPv{sent.version}"
    rule = f"`{await text_of(accepts.rule)}`"
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
            known = link["ifname"] != "lo" and (len(same) == 1 or address.version == _IPV4)
            return _Arrival(address.version, address, same[0] if known and same else None)
    return _Arrival(address.version, None, None)


def _is_first_of_its(address: Mapping[str, Any]) -> bool:
    """Whether the address is one of those that the kernel chooses from."""
    return "local" in address and not address.get("secondary")


_IPV4 = 4
