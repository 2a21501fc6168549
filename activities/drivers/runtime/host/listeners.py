"""Who listens for users on a gateway's own port: a daemon that nobody prepared, or nobody.

Read from the kernel's tables of sockets in this network namespace (proc(5), /proc/PID/net/tcp and udp), and
from the descriptors of processes, which name their sockets by inode.
"""

import asyncio
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address

from activities.drivers.daemon.port import Dialled
from activities.drivers.runtime.host.containers import WHAT_TO_DO, publishes
from activities.drivers.runtime.host.process import PROC
from activities.drivers.runtime.host.translated import sent_elsewhere
from policies.model.fleet import Gateway

TABLES = PROC / "thread-self/net"
_LISTENS, _UNCONNECTED = "0A", "07"
_KINDS = {"tcp": _LISTENS, "udp": _UNCONNECTED}
"""The state of a socket that takes whoever comes, by transport."""


@dataclass(frozen=True)
class Listener:
    """A socket that takes users' connections or first packets, and the processes that hold it."""

    address: IPv4Address | IPv6Address
    port: int
    inode: str
    transport: str
    processes: tuple[int, ...] = ()
    """Empty where it belongs to a process that is not seen from here: one of a container's namespace."""


def listeners_for_users(gateway: Gateway, dialled: Iterable[Dialled]) -> tuple[Listener, ...]:
    """Return what takes users on the ports that they dial, at the gateway's addresses or at all of them."""
    found = [
        one
        for transport, port in dialled
        for one in _listening(transport)
        if one.port == port and (one.address.is_unspecified or one.address in gateway.addresses)
    ]
    holders = _holders({one.inode for one in found}) if found else {}
    return tuple(replace(one, processes=tuple(sorted(holders.get(one.inode, ())))) for one in found)


async def serves_already(
    gateway: Gateway, dialled: Sequence[Dialled], own: Collection[int] = ()
) -> tuple[str, ...]:
    """Return why this host is not empty though no slot serves: what takes users' connections here.

    The processes `own` are of the gateway's steering, and have no users.
    """
    found = await asyncio.to_thread(listeners_for_users, gateway, dialled)
    listeners = tuple(one for one in found if not set(one.processes) & set(own))
    if container := await in_a_container(gateway, dialled, listeners):
        return (f"{gateway.name} serves already: {container}",)
    instead = "take it over as it runs: penstock fleet adopt"
    if gateway.has_own_networks:
        instead = f"a {gateway.daemon} of its own is not taken over yet, so stop and disable it first"
    return tuple(
        f"{gateway.name} serves already: {_holder(one)} listens on {one.address} port {one.port}, so this "
        f"host is not empty and its users would be thrown out; {instead}"
        for one in listeners[:1]
    )


async def in_a_container(
    gateway: Gateway, dialled: Sequence[Dialled], listeners: Sequence[Listener]
) -> str | None:
    """Return why what serves users is in a container, as far as the ports that they dial show it.

    Raises:
        Unavailable: the host's packet filter does not say where it sends users.
    """
    if sent := await sent_elsewhere(gateway, dialled):
        return f"{sent}: {WHAT_TO_DO}"
    holders = [(one.port, pid) for one in listeners for pid in one.processes]
    for port, pid in holders:
        if publishes(path_of(pid)):
            return f"port {port} of {gateway.name} is published by {program_of(pid)}: {WHAT_TO_DO}"
    return None


def path_of(pid: int) -> str:
    """Return where the program is that the process runs, in its own root."""
    try:
        return str((PROC / str(pid) / "exe").readlink()).removesuffix(" (deleted)")
    except OSError:
        return "unknown"


def _holder(listener: Listener) -> str:
    held = listener.processes
    return program_of(held[0]) if held else "a process that is not seen from here"


def program_of(pid: int) -> str:
    """Return what the process is called, with its number."""
    with suppress(OSError):
        return f"{(PROC / str(pid) / 'comm').read_text().strip()} (process {pid})"
    return f"process {pid}"


def _listening(transport: str) -> Iterator[Listener]:
    for table in (transport, f"{transport}6"):
        try:
            lines = (TABLES / table).read_text().splitlines()[1:]
        except OSError:  # a kernel without that family
            continue
        for fields in (line.split() for line in lines):
            if fields[3] == _KINDS[transport]:
                address, _, port = fields[1].partition(":")
                yield Listener(_address(address), int(port, 16), fields[9], transport)


def _address(written: str) -> IPv4Address | IPv6Address:
    """Read an address as the kernel writes it: words of 32 bits, each in this processor's own order."""
    words = [int(written[at : at + 8], 16).to_bytes(4, "little") for at in range(0, len(written), 8)]
    if len(words) == 1:
        return IPv4Address(words[0])
    address = IPv6Address(b"".join(words))
    return address.ipv4_mapped or address


def _holders(inodes: Collection[str]) -> dict[str, set[int]]:
    """Return the processes that have these sockets open, by inode, in one pass over /proc."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[str, set[int]] = {}
    for process in PROC.iterdir():
        if not process.name.isdigit():
            continue
        with suppress(OSError):  # it has ended meanwhile, or is not ours to look at
            for descriptor in (process / "fd").iterdir():
                with suppress(OSError):
                    if inode := wanted.get(str(descriptor.readlink())):
                        found.setdefault(inode, set()).add(int(process.name))
    return found
