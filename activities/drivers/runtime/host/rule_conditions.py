"""When packets of one kind meet what a rule asks for: always, never, or under conditions left unread."""

import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache
from itertools import product
from typing import Protocol

from activities.drivers.runtime.host.rule_values import ANY, Conditions, Network, Values, networks_of

ALWAYS: Conditions = frozenset()
UNREAD = "unread: "
"""How a condition begins of which it is not known whether it asks for that by which the packets differ."""
HIDDEN = f"{UNREAD}rule of iptables in "
"""How it begins where nft(8) does not list the rule whole; family, table, chain and handle follow."""
BY_MARK = "by mark: "
"""How a condition begins that asks for a mark of packets: it depends on the rules that mark them."""
MARK_FIELDS = ("mark", "ct mark")
ORIGINAL = {"saddr": "ct original saddr", "daddr": "ct original daddr"}
"""The addresses that the first packet of a connection had."""
STANDS_FOR = {
    **dict.fromkeys(("iifgroup", "iifkind", "iiftype", "sdif", "--src-group", "iface src"), "iif"),
    **dict.fromkeys(("oifgroup", "oifkind", "oiftype", "--dst-group", "iface dst"), "oif"),
    "set src": "saddr",
    "set dst": "daddr",
    "rtclassid": "daddr",
    "--realm": "daddr",
}
"""Fields that are not evaluated and may stand for an address or a device, with the field of that one."""
BY_PROGRAM = frozenset(
    {
        "skuid",
        "skgid",
        "cgroup",
        "cgroupv2",
        "--uid-owner",
        "--gid-owner",
        "--suppl-groups",
        "--cgroup",
        "--path",
    }
)
"""Fields of the program that has the packet's socket: each slot's daemon is a unit of its own."""
VERSIONS = {"nfproto": {4: "ipv4", 6: "ipv6"}, "protocol": {4: "ip", 6: "ip6"}}
_MOST = 4096
"""Ways to meet a rule, and elements that have to do with the compared packets, which are compared at all."""


class TooManyError(Exception):
    """A rule cannot be compared; the text says what of it is too much."""


class Packets(Protocol):
    """Packets of one kind, as rules meet them. Fields are named as by `nftables_rules`."""

    @property
    def version(self) -> int:
        """Return their version of IP."""

    @property
    def other_ways(self) -> Sequence["Packets"]:
        """Return packets of the same connections on other ways, which the same filter sees."""

    def meets_nat(self, hook: str) -> bool:
        """Return whether chains of NAT at that hook may see them: such ones see first packets alone."""

    def has(self, header: str) -> bool:
        """Return whether they have the header, such as `ip6` or `udp`, as far as that is known."""

    def reads(self, name: str) -> bool:
        """Return whether conditions on that field are evaluated."""

    def shares(self, name: str) -> bool:
        """Return whether a field that is not evaluated is surely the same in all compared packets."""

    def differ_by(self, name: str) -> bool:
        """Return whether it is a field by which packets of the compared kinds differ."""

    def address_in(self, name: str) -> Network | None:
        """Return the network from which their address in that field is, None where that is not known."""

    def own(self, address: str) -> str:
        """Return how an address is named that belongs to them, such as one of their pool; else itself."""

    def meets(self, name: str, values: Values) -> list[Conditions]:
        """Return when they have one of these values in the field: a list of ways to do so."""


TRANSPORTS = frozenset(
    {"tcp", "udp", "udplite", "sctp", "dccp", "esp", "ah", "comp", "icmp", "icmpv6", "igmp"}
)
"""Headers that a packet has by its transport."""


def is_of_version(header: str, version: int) -> bool:
    """Return whether packets of that version of IP may have the header."""
    return {"ip": 4, "arp": 4, "icmp": 4, "ip6": 6, "icmpv6": 6}.get(header, version) == version


def both_of(some: Iterable[Conditions], more: Iterable[Conditions]) -> list[Conditions]:
    """Return when some of these are met, and some of those."""
    some, more = list(some), list(more)
    if len(some) * len(more) > _MOST:
        raise TooManyError(f"asks for more combinations of addresses than the {_MOST} that are compared")
    return [one | other for one, other in product(some, more)]


def unless(met: Sequence[Conditions]) -> list[Conditions]:
    """Return when none of these is met."""
    if ALWAYS in met:
        return []
    said = " or ".join(sorted(" and ".join(sorted(one)) for one in met))
    return [frozenset({f"not {said}"})] if met else [ALWAYS]


_OF_A_PACKET = re.compile(
    r"(not \(?)?([io]if|[sd]addr( type)?|[sd]?port|l4proto|ct state) is (?!.* (is|and) ).*|users \+\d+/\d+"
)
_AT = re.compile(r"(not )?\(?([io]if|[sd]addr) is (.*?)\)?")


@lru_cache(2**16)
def is_steady(condition: str) -> bool:
    """Return whether a packet that meets it at one rule surely meets it at the next ones, too.

    Limits and marks may be others there, and so may what is not understood.
    """
    return _OF_A_PACKET.fullmatch(condition) is not None


def never_both(some: Conditions, more: Conditions) -> bool:
    """Return whether surely no packet meets all of these and all of those.

    A packet comes and leaves by one device each, and has one address at each end.
    """
    return any(
        of == other and _are_apart(places, others, (negated, also))
        for (negated, of, places), (also, other, others) in product(_ends(some), _ends(more))
    )


def _are_apart(some: Sequence[str], more: Sequence[str], negated: tuple[bool, bool]) -> bool:
    if negated == (False, False):
        return not any(_is_within(one, other) or _is_within(other, one) for one, other in product(some, more))
    some, more = (more, some) if negated[0] else (some, more)
    return not all(negated) and all(any(_is_within(one, other) for other in more) for one in some)


def _is_within(one: str, other: str) -> bool:
    return one == other or (other.endswith("*") and one.startswith(other[:-1]))


def _ends(when: Conditions) -> list[tuple[bool, str, tuple[str, ...]]]:
    return [found for found in map(_place, when) if found]


@lru_cache(2**16)
def _place(condition: str) -> tuple[bool, str, tuple[str, ...]] | None:
    """Return whether it is negated, its field, and the devices or networks, which may end with `*`."""
    if not is_steady(condition) or not (found := _AT.fullmatch(condition)):
        return None
    negated, of, text = found.groups()
    try:
        values = json.loads(f"[{text.replace(' or ', ', ')}]")
        places = (
            values if of.endswith("if") else [_bits(one) for value in values for one in networks_of(value)]
        )
    except (ValueError, TypeError, KeyError):
        return None
    return bool(negated), of, tuple(map(str, places))


def _bits(network: Network) -> str:
    bits = f"{int(network.network_address):0{network.max_prefixlen}b}"
    return f"IPv{network.version} {bits[: network.prefixlen]}*"


def named(text: str, fields: Collection[str], packets: Packets) -> str:
    """Return how a condition is named that asks for these fields of packets.

    Only what surely does not tell the compared packets apart may be left unread as if it were the same for
    both. Each module of rules knows the fields that tell no packets apart, and leaves them out.
    """
    if [*fields] == [text] and (packets.reads(text) or text in VERSIONS):
        return text
    known = all(
        one in MARK_FIELDS
        or one in VERSIONS
        or packets.shares(one)
        or (packets.reads(one) and not packets.differ_by(one))
        for one in fields
    )
    return f"{UNREAD * (not known)}{BY_MARK * any(one in MARK_FIELDS for one in fields)}{text}"


def one_of(name: str, values: Values, packets: Packets) -> list[Conditions]:
    """Return when the packets have one of these values in the field, or in what `named` has named."""
    if ANY in values:
        return [ALWAYS]
    if name in VERSIONS:
        return [ALWAYS] if VERSIONS[name][packets.version] in values else []
    if not packets.reads(name):
        return values.unread(name)
    if packets.address_in(name):
        near = candidates([name], [values], packets)
        if not near:
            return []
        values = values if len(near) == len(values) else Values(values[at] for at in near)
    return packets.meets(name, values)


def together(names: Sequence[str], values: Values, packets: Packets) -> list[Conditions]:
    """Return when several fields have the values of a row; which one makes no difference if none differs."""
    columns = values.columns
    if not any(map(packets.differ_by, names)):
        ways = [one_of(name, column, packets) for name, column in zip(names, columns, strict=False)]
        return values.unread(", ".join(names)) if all(ways) else []
    rows, found = candidates(names, columns, packets), list[Conditions]()
    if len(rows) > _MOST:
        raise TooManyError(
            f"asks for {len(rows)} elements of {values.of or 'a set'}; at most {_MOST} are compared"
        )
    spread = next((at for at, name in enumerate(names) if packets.address_in(name)), 0)
    alike = defaultdict[str, list[int]](list)  # a set has a row for each address of a network
    for row in rows:
        alike[json.dumps([one[row] for at, one in enumerate(columns) if at != spread])].append(row)
    for some in alike.values():
        met = [ALWAYS]
        for at, (name, column) in enumerate(zip(names, columns, strict=False)):
            asked = Values(column[row] for row in (some if at == spread else some[:1]))
            met = both_of(met, one_of(name, asked, packets))
        found += met
    return found


def candidates(names: Sequence[str], columns: Sequence[Values], packets: Packets) -> Sequence[int]:
    """Return which values, or rows of them, the packets may have by their addresses."""
    rows = None
    for name, column in zip(names, columns, strict=False):
        if network := packets.address_in(name):
            around = column.around(network)
            rows = around if rows is None else sorted({*rows} & {*around})
    return range(max(map(len, columns), default=0)) if rows is None else rows
