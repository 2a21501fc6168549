"""The values that a rule asks a field of packets for: its own few ones, or all elements of a set.

Lists of attackers have a hundred thousand addresses. The few that have to do with one network are looked up,
and all of them together are one condition.
"""

import json
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network, summarize_address_range
from socket import AF_INET, AF_INET6, inet_pton
from typing import Any, overload

Network = IPv4Network | IPv6Network
Conditions = frozenset[str]
_Prefixes = Sequence[tuple[int, ...]]
ANY = "*"
"""The value that every packet has in a field."""
_WRITTEN_OUT = 16
"""Values that a condition has as they are; more of them are there as their digest."""


class Values(Sequence[Any]):
    """Values in the form that nft(8) gives them; those of several fields together are rows."""

    def __init__(self, values: Iterable[Any] = (), of: str = "") -> None:
        """Take the values, and the name of the set whose elements they are."""
        self._values = [_plain(value) for value in values]
        self._texts = dict[frozenset[int], str]()
        self.of = of

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._values)

    @overload
    def __getitem__(self, at: int) -> Any: ...
    @overload
    def __getitem__(self, at: slice) -> list[Any]: ...
    def __getitem__(self, at: int | slice) -> Any:
        """Return one of them."""
        return self._values[at]

    def __contains__(self, value: object) -> bool:
        """Return whether it is one of them."""
        return value in self._values

    @cached_property
    def keys(self) -> "Values":
        """Return the keys, where these are the pairs of a map."""
        return Values((pair[0] for pair in self._values), self.of)

    @cached_property
    def by_target(self) -> list[tuple[Any, "Values"]]:
        """Return each target with all keys that lead there, where these are the pairs of a map."""
        found = dict[str, tuple[Any, list[Any]]]()
        for key, target in self._values:
            found.setdefault(json.dumps(target, sort_keys=True), (target, []))[1].append(key)
        return [(target, Values(keys, self.of)) for target, keys in found.values()]

    @cached_property
    def columns(self) -> tuple["Values", ...]:
        """Return the values of each field, where these are rows; a row that ends early asks for no more."""
        rows = [_row(value) for value in self._values]
        most = max(map(len, rows), default=0)
        return tuple(Values(row[at] if at < len(row) else ANY for row in rows) for at in range(most))

    def around(self, network: Network) -> list[int]:
        """Return which of them share an address with the network, or are not understood."""
        return sorted({at for *_, at in self._near(network)}.union(self._listed[1]))

    def share_of(self, network: Network) -> float:
        """Return which share of the network's addresses they have: 1 for all of them."""
        begin, end, found = int(network.network_address), int(network.broadcast_address) + 1, 0
        for first, length, _ in sorted(self._near(network)):
            behind = min(end, first + (1 << network.max_prefixlen - length))
            found += max(0, behind - max(begin, first))
            begin = max(begin, behind)
        return found / network.num_addresses

    def _near(self, network: Network) -> Sequence[tuple[int, ...]]:
        """Return the prefixes that share an address with the network."""
        listed, lengths = self._listed[0][network.version]
        first, last = int(network.network_address), int(network.broadcast_address)
        found = [*listed[bisect_left(listed, (first,)) : bisect_right(listed, (last, _LONGEST))]]
        for length in (one for one in lengths if one < network.prefixlen):
            wider = first >> network.max_prefixlen - length << network.max_prefixlen - length
            begin = bisect_left(listed, (wider, length))
            found += listed[begin : bisect_left(listed, (wider, length + 1), begin)]
        return found

    @cached_property
    def _listed(self) -> tuple[Mapping[int, tuple[_Prefixes, frozenset[int]]], Sequence[int]]:
        """By version of IP, the prefixes with their positions, and their lengths; then what is no address."""
        found, others = dict[int, list[tuple[int, ...]]]({4: [], 6: []}), list[int]()
        for at, value in enumerate(self._values):
            try:
                for version, first, length in _prefixes_of(value):
                    found[version].append((first, length, at))
            except (ValueError, TypeError, KeyError):
                others.append(at)
        return {
            version: (sorted(listed), frozenset(one[1] for one in listed))
            for version, listed in found.items()
        }, others

    def unread(self, name: str, without: Collection[int] = ()) -> list[Conditions]:
        """Return a condition that is not evaluated: the field has one of these values, except for some."""
        key = frozenset(without)
        if key not in self._texts:
            said = sorted(
                json.dumps(value, sort_keys=True) for at, value in enumerate(self._values) if at not in key
            )
            text = " or ".join(said)
            many = f"one of {len(said)}: {sha256(text.encode()).hexdigest()}"
            self._texts[key] = many if len(said) > _WRITTEN_OUT else text
        return [frozenset({f"{name} is {self._texts[key]}"})] if self._texts[key] else []


_LONGEST = 129
"""A prefix behind all that there are."""


def _plain(value: Any) -> Any:
    return value["elem"]["val"] if isinstance(value, dict) and "elem" in value else value


def _row(value: Any) -> Sequence[Any]:
    if isinstance(value, dict) and "concat" in value:
        return list(value["concat"])
    return value if isinstance(value, tuple) else (value,)


def _prefixes_of(value: Any) -> Iterable[tuple[int, int, int]]:
    """Return version, first address and length of each prefix; an address alone is by far the most usual."""
    if not isinstance(value, str):
        return [(one.version, int(one.network_address), one.prefixlen) for one in networks_of(value)]
    address, _, written = value.partition("/")
    version, most = (6, 128) if ":" in address else (4, 32)
    try:
        number = int.from_bytes(inet_pton(AF_INET6 if version == 6 else AF_INET, address))  # noqa: PLR2004
    except OSError as error:
        raise ValueError(value) from error
    length = int(written) if written else most
    return [(version, number >> most - length << most - length, length)]


def networks_of(value: Any) -> list[Network]:
    """Return the addresses that a rule names, as networks; TypeError where it names none."""
    value = _plain(value)
    if isinstance(value, dict) and "prefix" in value:
        return [ip_network(f"{value['prefix']['addr']}/{value['prefix']['len']}", strict=False)]
    if isinstance(value, dict) and "range" in value:
        first, last = map(ip_address, value["range"])
        return [*summarize_address_range(first, last)]
    if not isinstance(value, str):
        raise TypeError(value)
    return [ip_network(value, strict=False)]
