"""The live sessions in the slots of one gateway: counting them, and ending them when that was ordered."""

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import Protocol

from activities.drivers.runtime.host.journal import Journal
from activities.drivers.runtime.host.process import boot_id
from activities.drivers.runtime.host.slot_folders import PATIENCE, SlotFolders, answered
from policies.model.drain import Look
from policies.model.errors import PenstockError, Unavailable
from policies.model.instance import Steering
from policies.model.operation import Operation

REFRESH = timedelta(seconds=2)
REST = 4
"""How many times as long as they last took to follow the sessions pins are left alone: a large gateway's
daemon lists its users for a second, and has those to serve, too."""
GOING = timedelta(seconds=15)
"""So long somebody who was told to go is not told again: OpenVPN lists a client for five seconds more."""


class Pins(Protocol):
    """The part of a steering table that remembers who belongs where."""

    async def read(self) -> Steering:
        """Return who gets new sessions."""
        ...

    async def refresh(self) -> Steering:
        """Ensure that exactly the addresses of live sessions are pinned."""
        ...

    async def leave(self, slot: str) -> Steering:
        """Pin nobody to the slot any more."""
        ...


class SlotSessions:
    """Sessions by slot; while a drain counts them, the steering's pins follow them."""

    def __init__(self, folders: SlotFolders, journal: Journal, pins: Pins) -> None:
        self._folders = folders
        self._journal = journal
        self._pins = pins
        self._refresh_at: float | None = None
        self._told: dict[tuple[str, str], float] = {}
        """When sessions were told to go, by the process that has them and their id."""

    async def count(self, slot: str) -> int | None:
        """Return how many sessions live in the slot; 0 where nothing runs, None when unknown."""
        await self._follow()
        return await self._folders.count(slot)

    async def look(self, slot: str) -> Look:
        """Return the slot's sessions and their process; counts are None when that does not answer."""
        await self._follow()
        folder, silences = self._folders.of(slot), self._folders.silences
        running = folder.process()
        if running is None:
            silences.end(slot)
            return Look(sessions=0, boot=boot_id())
        found = await answered(self._folders.daemon.sessions(folder.chroot), PATIENCE)
        boot, process = running.boot, running.name
        if found is None:
            silence = silences.note(folder.slot, running, self._folders.daemon.unread(folder.chroot))
            return Look(sessions=None, exempt=None, boot=boot, process=process, silence=silence)
        silences.end(slot)
        connected = [session for session in found if session.connected]
        return Look(
            sessions=len(connected),
            exempt=sum(session.exempt for session in connected),
            resumable=sum(session.worked and not session.connected for session in found),
            boot=boot,
            process=process,
        )

    async def check(self, operation: Operation) -> None:
        """Raise Fenced when a newer rollout or rollback owns the gateway."""
        self._journal.check(operation)

    async def end(self, operation: Operation, slot: str, batch: int, *, exempt_too: bool = False) -> int:
        """End the oldest sessions of the slot, up to `batch`; return how many were ended.

        Exempt ones are spared unless told otherwise, and so are those that were told to go just now. The
        slot's addresses are let go first, so that their users' next login finds a good instance.

        Raises:
            Fenced: when a newer rollout or rollback owns the gateway.
            BeyondHostLimits: when the slot gets new sessions, or too many are ended in a minute.
            Unavailable: when the sessions cannot be listed; nothing was ended.
        """
        self._journal.admit(operation)
        steering = await self._pins.read()
        self._journal.bounds.check_slot_to_empty(
            slot, gets_new_sessions=slot in (steering.serving, steering.trial)
        )
        folder = self._folders.of(slot)
        running = folder.process()
        if running is None:
            return 0
        found = await self._folders.daemon.sessions(folder.chroot)
        if found is None:
            raise Unavailable(f"the sessions in slot {slot} cannot be listed; nothing was ended")
        with suppress(
            PenstockError
        ):  # a table that cannot be written must not keep people on a broken tunnel
            await self._pins.leave(slot)
        self._journal.check(operation)
        now = asyncio.get_running_loop().time()
        self._told = {key: at for key, at in self._told.items() if now - at < GOING.total_seconds()}
        endable = [
            session
            for session in found
            if session.connected
            and (exempt_too or not session.exempt)
            and (running.name, session.id) not in self._told
        ]
        chosen = tuple(sorted(endable, key=lambda session: session.since)[:batch])
        self._journal.bounds.count_endings(len(chosen))
        self._told |= {(running.name, session.id): now for session in chosen}
        return await self._folders.daemon.end(folder.chroot, chosen)

    async def _follow(self) -> None:
        """Ensure that the pins follow the sessions, every two seconds or less often where that takes long."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        if self._refresh_at is None or began >= self._refresh_at:
            self._refresh_at = began + REFRESH.total_seconds()
            with suppress(PenstockError):  # pins that are late hurt nobody; the next count tries again
                await self._pins.refresh()
            ended = loop.time()
            self._refresh_at = max(self._refresh_at, ended + REST * (ended - began))
