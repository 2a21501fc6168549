"""Instances that do not report their sessions: for how long, and what the kernel shows of users meanwhile.

Users of an instance that takes logins by TCP have a connection to its port as long as they have a session, so
that the kernel knows of each of them. Of other instances it does not.
"""

import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from activities.drivers.daemon.port import Daemon
from activities.drivers.runtime.host.process import PROC, Alive
from policies.lines import lines_in
from policies.model.drain import Silence
from policies.model.fleet import Gateway, Slot

UNSEEN = 60.0
"""Seconds after which an instance may have answered meanwhile: its silence begins anew."""

_ESTABLISHED, _LISTENS = "01", "0A"
_NOBODYS = "0"
"""The inode of a connection that no process has accepted yet."""


@dataclass(frozen=True)
class Users:
    """What the kernel shows of an instance's users at one moment."""

    connections: int
    """Connections to its port that a process has accepted and no peer has closed."""
    packets: int
    """Packets that came out of tunnels since they exist."""


@dataclass
class _Silent:
    process: str
    since: float
    seen: float
    deserted_since: float | None
    packets: int


class Silences:
    """The silence of each slot's instance, as long as this agent runs; after a restart it begins anew."""

    def __init__(self, gateway: Gateway, daemon: Daemon, clock: Callable[[], float] = time.monotonic) -> None:
        """Take the gateway, and the daemon that says by what users dial."""
        self._gateway = gateway
        self._daemon = daemon
        self._clock = clock
        self._silent: dict[str, _Silent] = {}

    def end(self, slot: str) -> None:
        """Note that the slot's instance has answered, or has ended."""
        self._silent.pop(slot, None)

    def note(self, slot: Slot, running: Alive, unread: str = "") -> Silence:
        """Note that the slot's instance reports no sessions now; return for how long it has not.

        `unread` is what is known of an answer that it gives in another form.
        """
        now, users = self._clock(), self._users(slot, running)
        before = self._silent.get(slot.name)
        if before is None or before.process != running.name or now - before.seen > UNSEEN:
            before = _Silent(running.name, now, now, None, -1)
        before.seen = now
        if users is None or users.connections > 0:
            before.deserted_since = None
        elif before.deserted_since is None or users.packets != before.packets:
            before.deserted_since = now
        before.packets = users.packets if users is not None else -1
        self._silent[slot.name] = before
        deserted = None
        if users is not None:
            since = now if before.deserted_since is None else before.deserted_since
            deserted = timedelta(seconds=now - since)
        return Silence(lasts=timedelta(seconds=now - before.since), deserted=deserted, unread=unread)

    def _users(self, slot: Slot, running: Alive) -> Users | None:
        """Return what the kernel shows, None where users dial by more than TCP or nothing is seen here."""
        dialled = self._daemon.dialled(self._gateway)
        if running.pid is None or {one.transport for one in dialled} != {"tcp"}:
            return None
        with suppress(OSError):  # it has just ended
            return users_of(PROC / str(running.pid) / "net", slot)
        return None


def users_of(tables: Path, slot: Slot) -> Users | None:
    """Return what these tables show of a slot's users, None where nothing listens on its port there."""
    states = []
    for name in ("tcp", "tcp6"):
        with suppress(FileNotFoundError):  # a kernel without IPv6 has no such table
            for line in lines_in((tables / name).read_text())[1:]:
                fields = line.split()
                if int(fields[1].rpartition(":")[2], 16) == slot.port:
                    states.append((fields[3], fields[9]))
    if not any(state == _LISTENS for state, _ in states):
        return None
    connections = sum(state == _ESTABLISHED and inode != _NOBODYS for state, inode in states)
    device = re.compile(rf"\s*{re.escape(slot.device)}\d*:\s*\d+\s+(?P<packets>\d+)\s")
    found = [device.match(line) for line in lines_in((tables / "dev").read_text())]
    return Users(connections, sum(int(one["packets"]) for one in found if one is not None))
