"""Steering by a HAProxy that carries users' connections to an instance.

It is for gateways whose kernel translates nothing and whose clients follow no redirect. HAProxy has the
users' port and every slot's port; instances listen on loopback and learn by the PROXY protocol (version 2)
who their users are. UDP goes to the instance itself. Who has a session elsewhere than where new sessions go
is led back by the source address, from a map that HAProxy also reads at its start: its end breaks every
user's TCP, and they come back to their own sessions.
"""

import logging
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from ipaddress import IPv6Address, ip_address
from pathlib import Path

from activities.drivers.disk import write_whole
from activities.drivers.steering.haproxy_process import HaproxyProcess
from activities.drivers.steering.haproxy_socket import HaproxySocket
from activities.drivers.steering.haproxy_steering import FOLDER, MAP, HaproxySteering, section
from activities.drivers.steering.haproxy_switch import (
    change_map,
    leases,
    read_map,
    replace_map,
    rules,
    summary_of_map,
)
from activities.drivers.steering.orders import Sessions, SteeringOrders
from activities.drivers.steering.pins import Address, homes_of
from activities.drivers.steering.port import Means
from activities.drivers.steering.switch import EVERYBODY, Switch
from policies.model.fleet import Gateway
from policies.steering import PROMISES

PINS = "pins.map"
INSTANCES = "127.0.0.1"
"""Where instances take connections, which come from HAProxy alone."""
PER_SESSION = 2
"""Connections: the user's, and that to the instance."""
SPARE = 1000
"""Connections of users who are logging in, and of probes."""
LOOK_EVERY = timedelta(seconds=8)
"""Who refreshes every two seconds reads entries every ten at most, also where there are as many as told."""
FEW = 100
"""Entries that are changed one by one; where more differ, all are given anew."""
_log = logging.getLogger(__name__)


def balancer_of(orders: SteeringOrders, means: Means) -> HaproxySteering:
    """Return the steering of one gateway by a HAProxy in front of its slots."""
    process = HaproxyProcess(means.root / FOLDER, orders.gateway.name)
    return HaproxySteering(orders, process, Balancer(orders.gateway, process))


class Balancer:
    """What HAProxy does with users: it carries their connections."""

    promises = PROMISES["haproxy"]

    def __init__(self, gateway: Gateway, process: HaproxyProcess) -> None:
        """Take the process that does it."""
        self._gateway = gateway
        self._process = process
        self._file = process.folder / PINS
        self._unsaved: str | None = None
        """The map that HAProxy has and its file has not: the disk took no file."""
        self._compared: tuple[str, str] | None = None
        """What HAProxy said of its map when its entries were those it was told."""
        self._looked = 0.0
        """When that was, by this process' clock."""
        self._looked_for: tuple[str | None, str | None, int] | None = None
        """Who was to get new sessions at that time."""

    def configuration(self) -> str:
        """Return HAProxy's configuration."""
        return configuration(self._gateway, self._process.folder)

    async def prepare(self) -> None:
        """Ensure that there is a map of addresses."""
        self._file.touch()

    async def renew(self, haproxy: HaproxySocket) -> bool:  # noqa: ARG002 - instances show their own
        """Return that HAProxy shows no certificate."""
        return False

    async def follow(self, live: Sessions, switch: Switch, leaving: frozenset[str]) -> int:
        """Lead everybody back whose session is not where new sessions go; keep what cannot be known.

        While a trial lasts, each session is pinned to where it is: the trial may end with nobody alive.
        """
        before = self._read()
        away = {
            name: sessions
            for name, sessions in live.items()
            if name not in leaving and (switch.trial is not None or name != switch.steer)
        }
        unknown = {name for name, sessions in away.items() if sessions is None}
        kept = {address: name for address, name in before.items() if name in unknown}
        wanted = {**homes_of(away), **kept}
        if wanted != before:
            await self._lead(before, wanted)
        else:
            self._save(self._unsaved)
            await self._compare_in_time(switch)
        target = None if switch.share != EVERYBODY else switch.trial or switch.steer
        return sum(name != target for name in wanted.values())

    async def heal(self, haproxy: HaproxySocket) -> bool:
        """Ensure that HAProxy leads back whom it was told to; return whether it had forgotten.

        Entries are read where it says that they are others than they were: 10,000 of them cost it most of a
        second, and this is asked every second. `follow` reads them every ten.
        """
        return not await self._is_as_compared(haproxy) and await self._compare(haproxy)

    async def _is_as_compared(self, haproxy: HaproxySocket) -> bool:
        """Whether it says the same of its map as when its entries were those it was told."""
        return self._compared is not None and await summary_of_map(haproxy, self._file) == self._compared

    async def _compare(self, haproxy: HaproxySocket) -> bool:
        """Ensure that its entries are those that it was told; return whether they were others."""
        kept, told = await self._listed(haproxy)
        if kept == told:
            return False
        await replace_map(haproxy, self._file, self._text)
        return True

    async def _compare_in_time(self, switch: Switch) -> None:
        """Do so by its entries after each order and every few seconds, and by how many it has in between."""
        order = (switch.steer, switch.trial, switch.share)
        if order == self._looked_for and time.monotonic() - self._looked < LOOK_EVERY.total_seconds():
            await self.heal(self._process.socket)
        else:
            self._looked_for = order
            await self._compare(self._process.socket)

    async def _lead(self, before: dict[Address, str], wanted: dict[Address, str]) -> None:
        """Have it lead these back: by the entries that differ, where they are few and it has all others."""
        haproxy, known = self._process.socket, self._compared
        self._compared = None
        few = known is not None and len(before.items() ^ wanted.items()) <= FEW
        if few and await summary_of_map(haproxy, self._file) == known:
            await change_map(haproxy, self._file, _written(before), _written(wanted))
        else:
            await replace_map(haproxy, self._file, _lines(wanted))
        self._save(_lines(wanted))

    async def disagrees(self, switch: Switch) -> str:
        """Return how many users it leads elsewhere than it was told to, who come back to their sessions.

        Without a trial, whoever is led to where new sessions go may as well be led nowhere. What `follow` has
        just looked at is not listed again.
        """
        if await self._is_as_compared(self._process.socket):
            return ""
        kept, told = await self._listed(self._process.socket)
        anybody = switch.steer if switch.trial is None else None
        wrong = sum(
            kept.get(address, anybody) != told.get(address, anybody) for address in kept.keys() | told.keys()
        )
        return f"{wrong} of the addresses with a session are led elsewhere than it was told" if wrong else ""

    async def _listed(self, haproxy: HaproxySocket) -> tuple[dict[Address, str], dict[Address, str]]:
        """Return whom it leads back, and whom it was told to; note how it sums that up where both agree."""
        summary = await summary_of_map(haproxy, self._file)
        kept = {ip_address(key): name for key, name in (await read_map(haproxy, self._file)).items()}
        told = self._read()
        if kept == told:
            self._compared, self._looked = summary, time.monotonic()
        return kept, told

    @property
    def _text(self) -> str:
        return self._file.read_text() if self._unsaved is None else self._unsaved

    def _read(self) -> dict[Address, str]:
        lines = (line.split() for line in self._text.splitlines())
        return {ip_address(written): name for written, name in lines}

    def _save(self, lines: str | None) -> None:
        """Have HAProxy's next start read this, too; where the disk takes no file, it is told after its start.

        The room that is reserved on the disk is for the way back alone.
        """
        if lines is None:
            return
        self._unsaved = lines
        try:
            write_whole(self._file, lines)
            self._unsaved = None
        except OSError as error:
            _log.warning("where sessions of %s are is not kept on disk: %s", self._gateway.name, error)


def _written(led: Mapping[Address, str]) -> dict[str, str]:
    return {str(address): name for address, name in led.items()}


def _lines(led: Mapping[Address, str]) -> str:
    return "".join(f"{address} {name}\n" for address, name in sorted(_written(led).items()))


def configuration(gateway: Gateway, folder: Path) -> str:
    """Return HAProxy's whole configuration."""
    doors = (
        section(
            f"frontend door-{slot.name}",
            [*_binds(gateway, slot.port), f"default_backend slot-{slot.name}"],
        )
        for slot in gateway.slots
    )
    slots = (
        section(f"backend slot-{slot.name}", [f"server {slot.name} {INSTANCES}:{slot.port} send-proxy-v2"])
        for slot in gateway.slots
    )
    return "\n".join(
        [
            section("global", _process(gateway, folder)),
            section("defaults", _times()),
            section("frontend users", _users(gateway, folder)),
            *doors,
            *slots,
            "\n".join(leases()),
            "",
        ]
    )


def _process(gateway: Gateway, folder: Path) -> Iterator[str]:
    yield f"stats socket {folder / 'haproxy.sock'} mode 600 level admin"
    yield f"maxconn {PER_SESSION * gateway.capacity + SPARE}"
    yield "user haproxy"
    yield "group haproxy"


def _times() -> Iterator[str]:
    yield "mode tcp"
    yield "timeout connect 5s"
    # Longer than any client is silent: both ends look for dead peers themselves.
    yield "timeout client 1h"
    yield "timeout server 1h"
    yield "option clitcpka"


def _users(gateway: Gateway, folder: Path) -> Iterator[str]:
    yield from _binds(gateway, gateway.port)
    yield from rules(folder / MAP, "tcp-request content")
    yield f"tcp-request content set-var(txn.slot) src,map_ip({folder / PINS})"
    yield "tcp-request content reject unless { var(txn.slot) -m found }"
    yield "use_backend slot-%[var(txn.slot)]"


def _binds(gateway: Gateway, port: int) -> Iterator[str]:
    for address in gateway.addresses:
        yield f"bind {f'[{address}]' if isinstance(address, IPv6Address) else address}:{port}"
