"""What goes through a gateway's tunnels and through its host's other interfaces, as the kernel counts it.

A tunnel's device lives as long as its session, and its counters go with it. So what a device gained since it
was last read is added up here; what a session moved in its last seconds before its end is in no sum.
An instance in a network of its own has its tunnels there, and its process leads to them. Where it has no
device for them, since the kernel itself wraps what they carry, nothing is said.
"""

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from operator import add
from pathlib import Path
from typing import NamedTuple

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from policies.lines import lines_in
from policies.model.fleet import Gateway

NET_DEV = Path("/proc/net/dev")
MOST_INTERFACES = 32
"""Interfaces beside tunnels that are shown: a host of many containers must not fill Prometheus."""

OWN = ("lo",)
OF_TUNNELS = re.compile(r"ipsec\d+")
"""Devices of tunnels in an instance's own network, as charon calls them."""
DIRECTIONS = ("received", "sent")


class Traffic(NamedTuple):
    """What one direction has counted: bytes, packets, packets with errors, packets dropped."""

    bytes: int = 0
    packets: int = 0
    errors: int = 0
    drops: int = 0

    def gained_since(self, before: "Traffic") -> "Traffic":
        """Return what was added since; a device that was made anew under its name began at zero."""
        if self.bytes < before.bytes or self.packets < before.packets:
            return self
        return Traffic(*(max(0, now - then) for now, then in zip(self, before, strict=True)))

    def plus(self, other: "Traffic") -> "Traffic":
        """Return both together."""
        return Traffic(*map(add, self, other))


Both = tuple[Traffic, Traffic]
"""Received and sent, as this host sees it: what a tunnel has received came from its user."""

NOTHING: Both = (Traffic(), Traffic())


Networks = Callable[[], Mapping[str, tuple[str, Path]]]
"""Tells by slot which process runs in a network of its own: its name, which no later one has, and its folder
in `/proc`."""


def nobodys_networks() -> Mapping[str, tuple[str, Path]]:
    """Return no network: nothing runs in one of its own."""
    return {}


def read_devices(text: str) -> dict[str, Both]:
    """Return the counters of every interface in the words of `/proc/net/dev` (proc(5))."""
    found = {}
    for line in lines_in(text)[2:]:
        name, _, counted = line.partition(":")
        numbers = [int(number) for number in counted.split()]
        found[name.strip()] = (Traffic(*numbers[:4]), Traffic(*numbers[8:12]))
    return found


@dataclass(frozen=True)
class _Sum:
    """The tunnels of one slot: what each had counted when last read, and what all of them have gained."""

    before: Mapping[str, Both]
    both: Both


class Interfaces(Collector):
    """Adds up tunnels by slot, and shows other interfaces as they are."""

    def __init__(
        self, gateway: Gateway, devices: Path = NET_DEV, networks: Networks = nobodys_networks
    ) -> None:
        """Read from this file; what tunnels had counted before the first reading is nobody's."""
        self._devices = devices
        self._networks = networks
        self._patterns = {
            slot.name: re.compile(rf"{re.escape(slot.device)}\d*")  # one for each session, or one for all
            for slot in gateway.slots
            if slot.address is None  # whose tunnels are in a network of their own, and not seen from here
        }
        self._tunnels: dict[str, _Sum] = {}
        self._others: dict[str, Both] = {}
        self._lock = threading.Lock()

    def read(self) -> None:
        """Take in what was counted until now.

        Raises:
            OSError: The kernel does not say.
        """
        found = read_devices(self._devices.read_text())
        elsewhere = self._in_own_networks()
        others = [name for name in found if name not in OWN and not self._is_tunnel(name)]
        with self._lock:
            for slot, pattern in self._patterns.items():
                self._add(slot, {name: both for name, both in found.items() if pattern.fullmatch(name)})
            for slot, mine in elsewhere.items():
                self._add(slot, mine)
            self._others = {name: found[name] for name in sorted(others)[:MOST_INTERFACES]}

    def describe(self) -> Iterable[Metric]:
        """Name nothing in advance: which interfaces there are is the host's affair."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield the sums of the tunnels and the counters of the others, as they were last read."""
        with self._lock:
            tunnels, others = {slot: one.both for slot, one in self._tunnels.items()}, self._others
        yield from _families("vpngw_tunnel", "through the tunnels of a slot", "slot", tunnels)
        yield from _families("vpngw_interface", "through an interface of the host", "device", others)

    def _add(self, slot: str, mine: Mapping[str, Both]) -> None:
        known = self._tunnels.get(slot)
        self._tunnels[slot] = _Sum(mine, NOTHING if known is None else _added(known, mine))

    def _in_own_networks(self) -> dict[str, dict[str, Both]]:
        """Return the tunnels' devices by slot, by names that a later instance's do not have."""
        found = {}
        for slot, (process, folder) in self._networks().items():
            with suppress(OSError):  # it has just ended
                devices = read_devices((folder / "net/dev").read_text())
                mine = {f"{process} {n}": both for n, both in devices.items() if OF_TUNNELS.fullmatch(n)}
                if mine:
                    found[slot] = mine
        return found

    def _is_tunnel(self, name: str) -> bool:
        return any(pattern.fullmatch(name) for pattern in self._patterns.values())


def _added(known: _Sum, now: Mapping[str, Both]) -> Both:
    received, sent = known.both
    for name, (into, out) in now.items():
        if (before := known.before.get(name, NOTHING)) == (into, out):
            continue  # as most of thousands have it
        received = received.plus(into.gained_since(before[0]))
        sent = sent.plus(out.gained_since(before[1]))
    return received, sent


def _families(prefix: str, where: str, label: str, counted: Mapping[str, Both]) -> Iterator[Metric]:
    for what, text in (
        ("bytes", "Bytes"),
        ("packets", "Packets"),
        ("errors", "Packets with errors"),
        ("drops", "Packets dropped"),
    ):
        family = CounterMetricFamily(f"{prefix}_{what}", f"{text} {where}", labels=(label, "direction"))
        for name, both in counted.items():
            for direction, traffic in zip(DIRECTIONS, both, strict=True):
                family.add_metric([name, direction], getattr(traffic, what))
        yield family
