"""The way through this host: read of kernel, packet filter and routes, and tried with a tunnel."""

import asyncio
import json
import re
from collections.abc import Awaitable, Iterable, Sequence
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from activities.drivers.daemon.port import Environment
from activities.drivers.programs import run
from activities.drivers.runtime.host.filter_listing import read_rules
from activities.drivers.runtime.host.input_filter import spares
from activities.drivers.runtime.host.packet_filter import Rules
from activities.drivers.runtime.host.routes import routes
from activities.drivers.runtime.host.slot_folders import SlotFolders
from activities.drivers.runtime.host.tunnel_rules import (
    drops,
    models_among,
    planes_of,
    translates,
    uncovered,
)
from activities.steering_table import SteeringTable
from policies.model.adoption import ADOPTED
from policies.model.errors import PenstockError
from policies.model.fleet import Slot
from policies.model.instance import Steering
from policies.model.path import MOST, PathFacts, TriedTunnel

SETTINGS = Path("/proc/sys/net")
RULES, UNITS = Path("/etc/nftables.conf"), Path("/etc/systemd/system")
"""What Debian's nftables.service loads, and where its unit is enabled."""
_FLUSH = re.compile(r"(^|;)\s*flush\s+ruleset\b")
ASKED = "penstock.invalid"
"""A name that nobody has (RFC 2606): a server that says so answers."""


class GatewayPath:
    """Walks the way through one gateway; nothing is changed."""

    def __init__(self, folders: SlotFolders, table: SteeringTable) -> None:
        """Take the slots, whose daemon tries tunnels, and where new sessions go."""
        self._folders = folders
        self._table = table

    async def walk(self) -> PathFacts:
        """Return what is true of it now; what cannot be read is not known."""
        gateway = self._folders.gateway
        slots = [slot for slot in gateway.slots if slot.name != ADOPTED]
        adopted = self._folders.adopted
        slots += [adopted.slot] if adopted is not None else []
        running = [slot for slot in slots if self._folders.of(slot.name).process() is not None]
        wanted = {slot.name for slot in gateway.slots if self._folders.of(slot.name).state.get("wanted")}
        names = {slot.name for slot in running}
        steering, unread = await self._steering()
        serves = steering.trial or steering.serving if steering is not None else None
        environments = [
            self._folders.of(slot.name).chroot for slot in running if slot.name == (serves or slot.name)
        ]
        target = self._folders.daemon.target(environments[0]) if environments else ""
        return PathFacts(
            gateway=gateway.name,
            running=tuple(sorted(names))[:MOST],
            ended=tuple(sorted(wanted - names))[:MOST],
            devices_down=_first(await _or_none(_down(running))),
            steering=None if steering is None else bool(steering.primed and steering.serving),
            steering_unread=unread,
            steered_to=serves,
            forwards4=_is_set("ipv4/ip_forward"),
            forwards6=_is_set("ipv6/conf/all/forwarding") if any(slot.pool6 for slot in slots) else None,
            **await self._filtered(running, serves),
            misrouted=_first(await _or_none(_misrouted(running))),
            flushes=flushes(RULES, UNITS),
            tracked=_number("netfilter/nf_conntrack_count"),
            trackable=_number("netfilter/nf_conntrack_max"),
            target=target,
            target_is_here=await _is_here(target) if target else False,
            tried=tuple([await self._try(environment) for environment in environments]),
        )

    async def _filtered(self, running: Sequence[Slot], serves: str | None) -> dict[str, Any]:
        """Return the facts of the packet filter, and what it does for users of one slot alone."""
        own, inside = self._folders.gateway.slots, self._folders.gateway.inside
        judged = [slot for slot in own if slot.name != ADOPTED]
        slots = list(dict.fromkeys([*judged, *running]))
        facts = dict[str, Any](drops=None, translates=None, uncovered=None, spared=None)
        try:
            rules = await read_rules()
            planes = await planes_of(running, inside, rules)
            facts["drops"] = await asyncio.to_thread(lambda: _first(dict.fromkeys(drops(planes))))
            facts["translates"] = await asyncio.to_thread(translates, planes)
            planes = await planes_of(slots, inside, rules)
            names = [slot.name for slot in judged]
            facts["uncovered"] = _first(await uncovered(planes, models_among(slots, serves), names))
        except (PenstockError, OSError, ValueError, KeyError) as error:
            facts["uncovered_unread"] = str(error)
            return facts
        facts["spared"] = _first(await _or_none(self._spared(rules)))
        return facts

    async def _spared(self, rules: Rules) -> tuple[str, ...]:
        gateway = self._folders.gateway
        dialled = self._folders.daemon.dialled(gateway)
        return await spares(gateway, {one.transport for one in dialled}, rules)

    async def _steering(self) -> tuple[Steering | None, str]:
        """Return where new sessions go, or why that cannot be read."""
        try:
            return await self._table.read(), ""
        except (PenstockError, OSError, ValueError, KeyError) as error:
            return None, str(error) or type(error).__name__

    async def _try(self, environment: Environment) -> TriedTunnel:
        """Hold one session of the probe's user, ping, and ask the DNS servers that it is given."""
        try:
            return await self._folders.daemon.try_tunnel(environment, [ASKED])
        except PenstockError as error:
            return TriedTunnel(slot=environment.slot.name, words=str(error))


def flushes(rules: Path, units: Path) -> bool | None:
    """Return whether the file of nftables.service removes all tables; None where it cannot be read.

    None, too, where the unit is not enabled: every package of nftables brings such a file. What the file
    includes is not read.
    """
    try:
        if not any(units.glob("*.wants/nftables.service")):
            return None
        lines = rules.read_text(errors="replace").splitlines()
    except OSError:
        return None
    return any(_FLUSH.search(line.partition("#")[0]) for line in lines)


async def _or_none(asking: Awaitable[Any]) -> Any:
    """Return the answer, None for one that could not be had: the other looks go on."""
    try:
        return await asking
    except (PenstockError, OSError, ValueError, KeyError):
        return None


def _first(found: Iterable[str] | None) -> tuple[str, ...] | None:
    return None if found is None else tuple(found)[:MOST]


def _number(name: str) -> int | None:
    with suppress(OSError, ValueError):
        return int((SETTINGS / name).read_text())
    return None


def _is_set(name: str) -> bool | None:
    found = _number(name)
    return None if found is None else found > 0


async def _links() -> list[dict[str, Any]]:
    said = await run(["ip", "-j", "address", "show"])
    found: list[dict[str, Any]] = json.loads(said.out or "[]")
    return found


async def _down(slots: list[Slot]) -> list[str]:
    prefixes = tuple(slot.device for slot in slots)
    links = await _links() if prefixes else []
    return [one["ifname"] for one in links if one["ifname"].startswith(prefixes) and "UP" not in one["flags"]]


async def _misrouted(slots: list[Slot]) -> list[str]:
    """Return routes for users' addresses that lead to another device than their slot's."""
    return [
        f"{route.network} of slot {slot.name} leads to {route.device}"
        for slot in slots
        for route in await routes()
        for pool in slot.pools
        if route.network.version == pool.version
        and route.network.subnet_of(pool)  # type: ignore[arg-type] # both are of one version
        and not route.device.startswith((slot.device, "lo", "probe"))
    ]


async def _is_here(target: str) -> bool:
    """Whether the host itself has the address."""
    links = await _or_none(_links()) or []
    own = {entry["local"] for one in links for entry in one.get("addr_info", ()) if "local" in entry}
    with suppress(ValueError):
        return str(ip_address(target)) in own
    return False
