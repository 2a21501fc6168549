"""People with real tunnels: one client in one site's namespace each, pinging all the time.

A session is *lost* when its client ends without our asking, or comes back by itself with another session:
the gateway threw the user out. A user whose client has ended logs in again a second later, as people do; the
loss stays counted.
"""

import asyncio
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deploy.lab.credentials import Credentials
from deploy.lab.daemons.port import LabDaemon, Tunnel
from deploy.lab.pings import Pings
from deploy.lab.topology import Host

LOGIN_WITHIN = 20.0
_TICK = 0.05


@dataclass
class Tally:
    """What happened to one user's sessions so far."""

    logins: int = 0
    failed_logins: int = 0
    planned_logouts: int = 0
    lost: int = 0
    reconnects: int = 0
    last_exit: int | None = None
    last_line: str = ""
    """The client's own last words at its last end, or at its last failed login."""


class User:
    """One person at one site, with one tunnel to one gateway; an idle one sends nothing through it."""

    def __init__(
        self,
        site: Host,
        gateway: Host,
        daemon: LabDaemon,
        credentials: Credentials,
        folder: Path,
        url: str,
        *,
        idle: bool = False,
    ) -> None:
        self.name = site.name
        self.gateway = gateway
        self.tally = Tally()
        self.since: float | None = None
        self.address = ""
        self._site = site
        self._daemon = daemon
        self._credentials = credentials
        self._idle = idle
        self._events = folder / "events"
        self._url = url
        self._folder = folder
        self._seen = 0
        """Of its sessions, so many were counted as logins."""
        self._changing = asyncio.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        self._events.write_text("")
        self._client = self._new_client()
        self.pings = Pings(site.namespace, folder / "pings.jsonl")

    @property
    def up(self) -> bool:
        """Say whether the user has a session now."""
        return self.since is not None and self._client.process.pid is not None

    async def live(self) -> None:
        """Log in, and again whenever the session was lost or the login failed; until cancelled."""
        while True:
            async with self._changing:
                await self._see()
            await asyncio.sleep(_TICK if self.up else 1.0)

    async def come_back(self) -> None:
        """End the day and begin the next: stop pinging, log out, log in anew with whatever serves now.

        When the login fails it is tried again, every second, by `live`.
        """
        async with self._changing:
            await self._leave()
            if self.tally.logins:
                await asyncio.sleep(self._daemon.night)
            await self._connect()

    async def leave(self) -> None:
        """Log out for good; `live` must have been cancelled."""
        async with self._changing:
            await self._leave()
        self.pings.close()

    def view(self) -> dict[str, Any]:
        """Return everything known, as JSON."""
        self.tally.reconnects = len(self._event_lines("reconnect"))
        return {
            "name": self.name,
            "gateway": self.gateway.name,
            "up": self.up,
            "since": self.since,
            "address": self.address,
            "udp": self._client.over_udp() if self.up else False,
            **asdict(self.tally),
            "pings": asdict(self.pings.count),
        }

    async def _see(self) -> None:
        if self.up:
            again = self._connects() - self._seen
            self._seen += again
            self.tally.lost += again
            self.tally.logins += again
            return
        if self.since is not None:
            self.since = None
            self.tally.lost += 1
            self._note_end()
            await asyncio.sleep(1.0)
        await self._connect()

    async def _connect(self) -> None:
        before = self._connects()
        self._client = self._new_client()
        self._client.start()
        deadline = time.monotonic() + LOGIN_WITHIN
        while self._connects() == before:
            if self._client.process.exit_code is not None or time.monotonic() > deadline:
                await asyncio.to_thread(self._client.process.stop, self._client.leaves_by)
                self.tally.failed_logins += 1
                self._note_end()
                return
            await asyncio.sleep(0.02)
        self._seen = before + 1
        self.tally.logins += 1
        self.since = time.time()
        self.address = self._event_lines("connect")[-1].split()[1]
        if not self._idle:
            self.pings.start()

    async def _leave(self) -> None:
        await self.pings.pause()
        if not self.up:
            return  # not our doing: `_see` counts it as lost
        self.since = None
        code = await asyncio.to_thread(self._client.process.stop, self._client.leaves_by)
        if code == 0:
            self.tally.planned_logouts += 1
        else:
            self.tally.lost += 1  # the gateway was quicker than we
        self._note_end()

    def _new_client(self) -> Tunnel:
        return self._daemon.tunnel(self._site, self._url, self._credentials, self._folder)

    def _note_end(self) -> None:
        self.tally.last_exit = self._client.process.exit_code
        self.tally.last_line = next(iter(self._client.process.last_lines(1)), "")

    def _event_lines(self, kind: str) -> list[str]:
        return [line for line in self._events.read_text().splitlines() if line.split()[0] == kind]

    def _connects(self) -> int:
        return len(self._event_lines("connect"))
