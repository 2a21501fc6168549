"""Reloads: what running instances were started with is replaced, and no session is touched.

That is the host's present credentials, the settings of the fleet's file, or what was there before. A daemon
that was adopted reads its own files at its own paths: they are looked at, and it is told.
Everything is looked at before anything is put in place, and each file is replaced in one step. An
agent that is killed at any line leaves instances that go on; the same order again ends the same way.
An instance that lets nobody in afterwards has what it had before again, if that one does.
"""

import asyncio
import filecmp
import os
import shutil
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

from activities.drivers.daemon.port import Secret
from activities.drivers.disk import sync_folder, sync_tree
from activities.drivers.runtime.host.before import Before
from activities.drivers.runtime.host.journal import Journal, exclusive
from activities.drivers.runtime.host.routes import routes
from activities.drivers.runtime.host.slot_folders import AdoptedFolder, SlotFolder, SlotFolders
from policies.model.errors import BadInput, Fenced, PenstockError, Refused, Unavailable
from policies.model.instance import Probe
from policies.model.operation import Operation
from policies.model.settings import Setting
from policies.model.value import Name
from policies.pools import pools_in_use

NEXT, GOT = "conf.next", "conf.got"

Done = tuple[tuple[str, ...], tuple[str, ...]]
"""The slots of the instances that run, and the names of their files that were others before."""

Prepare = Callable[[SlotFolder, Path], Awaitable[None]]
"""Writes what an instance is to get to a folder."""


class SlotReloads:
    """What one gateway's instances run with, whatever they were started with."""

    def __init__(self, folders: SlotFolders, journal: Journal, credentials: Mapping[str, Secret]) -> None:
        self._folders = folders
        self._journal = journal
        self._credentials = credentials
        self._before = Before(folders)

    async def reload(self, operation: Operation, *, older: bool) -> Done:
        """Ensure that every running instance uses the host's present credentials; sessions stay.

        Nothing is taken over from a drain or a change that owns the gateway: whatever runs may have them.
        An instance whose files are the present ones is told all the same: who was killed before may not
        have done so, and it costs nobody anything. The own files of what was adopted are looked at last, and
        it is told first, so that little time is left to change them in between.

        Raises:
            BadInput: One of them cannot be used; no instance got any.
            Refused: The daemon itself refuses them, and no instance got any; or nobody could log in with
                them, and those before are back.
            Unavailable: An instance does not take them; a repeat tells it again.
            Fenced: A newer change owns the gateway.
        """
        async with exclusive(self._folders.root / "slots.lock"):
            self._journal.check(operation)
            ours, adopted = self._running()
            # Each is read once: all slots get the same, also while somebody writes the file.
            given = {name: _Once(read) for name, read in self._credentials.items()}

            async def renew(folder: SlotFolder, new: Path) -> None:
                await asyncio.to_thread(self._folders.daemon.renew, folder.chroot, given, new, older=older)

            try:
                changed = await self._replace(operation, ours, renew, adopted)
            except (BadInput, Refused):
                self._folders.answer_reload(operation.rollout)
                raise
            self._folders.answer_reload(operation.rollout)
            return tuple(folder.slot.name for folder in (*ours, *adopted)), changed

    async def end_removed(self, operation: Operation) -> int:
        """End the sessions of users whom the instances' own lists do not name; return how many there were.

        Those on a daemon that was adopted go on: `staying` counts them.

        Raises:
            BeyondHostLimits: They are more than this host's file allows in a minute; none was ended.
            Unavailable: An instance does not say who is there; none was ended.
            Fenced: A newer change owns the gateway.
        """
        async with exclusive(self._folders.root / "slots.lock"):
            self._journal.check(operation)
            ours, _ = self._running()
            daemon = self._folders.daemon
            found = {folder: await daemon.sessions_of_removed(folder.chroot) for folder in ours}
            self._journal.bounds.count_endings(sum(map(len, found.values())))
            return sum([await daemon.end(folder.chroot, gone) for folder, gone in found.items()])

    async def staying(self, *, adopted_alone: bool) -> int | None:
        """Return how many sessions go on of users whom no list names; None where an instance does not say."""
        ours, adopted = self._running()
        daemon, asked = self._folders.daemon, adopted if adopted_alone else [*ours, *adopted]
        try:
            return sum([len(await daemon.sessions_of_removed(folder.chroot)) for folder in asked])
        except (PenstockError, OSError):
            return None

    async def configure(self, operation: Operation, settings: Sequence[Setting]) -> Done:
        """Ensure that all instances have these settings, and those that start later; sessions stay.

        Raises:
            BadInput: One of them is none that a fleet may have; no instance got any.
            BeyondHostLimits: This host's own file does not leave one of them to orders.
            Refused: The daemon itself refuses them, only a new instance would take what differs, or this host
                has another use for a pool, and no instance got any; or nobody could log in with them, and
                those before are back.
            Unavailable: An instance does not take them; a repeat tells it again.
            Fenced: A newer change owns the gateway.
        """
        async with exclusive(self._folders.root / "slots.lock"):
            self._journal.check(operation)
            try:
                done = await self._configure(operation, settings)
            except (BadInput, Refused) as refused:
                if not isinstance(refused, Fenced):  # whoever was overtaken got no answer
                    self._folders.answer_settings(operation.rollout)
                raise
            self._folders.answer_settings(operation.rollout)
            return done

    async def _configure(self, operation: Operation, settings: Sequence[Setting]) -> Done:
        before = {one.key: one for one in self._folders.settings}
        after = {one.key: one for one in settings}
        other = [key for key in before | after if before.get(key) != after.get(key)]
        self._journal.bounds.check_settings(sorted(other))
        ours, _ = self._running()
        await self._refuse_pools_in_use(ours)
        changed = await self._replace(operation, ours, self._reconfigured(settings), other=bool(other))
        if other:
            await asyncio.to_thread(self._folders.keep_settings, settings)
        return tuple(folder.slot.name for folder in ours), changed

    async def _refuse_pools_in_use(self, ours: Sequence[SlotFolder]) -> None:
        """Refuse a pool that would be another one and that this host has another use for."""
        daemon, gateway = self._folders.daemon, self._folders.gateway
        others = [one.slot for one in ours if daemon.pools(one.chroot) != one.slot.pools]
        if others and (reasons := pools_in_use(gateway, await routes(), others)):
            raise Refused(f"{reasons[0]}; nothing was changed on {gateway.name}")

    async def take_back(self, operation: Operation, change: Name) -> Done:
        """Ensure that what runs has again what it had before that change; sessions stay.

        Where a later change has come, or this one has changed nothing, nothing is done. Instances that were
        started since keep the credentials that they were started with, and get the settings of before. So do
        all where credentials were reloaded after a change of settings.

        Raises:
            Unavailable: An instance does not take it; a repeat tells it again.
            Fenced: A newer change owns the gateway.
        """
        async with exclusive(self._folders.root / "slots.lock"):
            self._journal.check(operation)
            done: Done = (), ()
            last = self._before.last_settings
            if self._before.change == change:
                done = await self._put_back()
            elif last is not None and last[0] == change:
                running, _ = self._running()
                changed = await self._give_settings(running, last[1])
                await asyncio.to_thread(self._folders.keep_settings, last[1])
                done = tuple(folder.slot.name for folder in running), tuple(sorted(changed))
            if self._folders.settings_answered == change:
                self._folders.answer_settings(operation.rollout)
            return done

    async def _put_back(self) -> Done:
        running, _ = self._running()
        settings = self._before.settings
        had = {folder: conf for folder in running if (conf := self._before.conf_of(folder)) is not None}
        changed = await self._give(had)
        since = [folder for folder in running if folder not in had and settings != self._folders.settings]
        changed |= await self._give_settings(since, settings)
        await asyncio.to_thread(self._folders.keep_settings, settings)
        return tuple(folder.slot.name for folder in (*had, *since)), tuple(sorted(changed))

    def _running(self) -> tuple[list[SlotFolder], list[AdoptedFolder]]:
        """Return the folders in which an instance of ours runs, and that of what was adopted."""
        running = [folder for folder in self._folders if folder.process() is not None]
        adopted = [folder for folder in running if isinstance(folder, AdoptedFolder)]
        return [folder for folder in running if folder not in adopted], adopted

    async def _replace(
        self,
        operation: Operation,
        ours: Sequence[SlotFolder],
        prepare: Prepare,
        adopted: Sequence[AdoptedFolder] = (),
        *,
        other: bool | None = None,
    ) -> tuple[str, ...]:
        """Give the instances what is prepared, all or none; return the names of the files that were others.

        What they had is kept when a file of theirs is another one, or when `other` says that their settings
        are others; without it they get credentials.
        """
        try:
            await self._lay_beside(ours, prepare)
            for own in adopted:
                with self._changing_nothing():
                    await self._folders.daemon.check_own(own.chroot)
            self._journal.check(operation)
            if other or any(different(folder.path / NEXT, folder.path / "conf") for folder in ours):
                keep = partial(self._before.keep, of_settings=other is not None)
                await asyncio.to_thread(keep, operation.rollout, ours)
            changed = {name for folder in ours for name in put(folder.path / NEXT, folder.path / "conf")}
        finally:
            self._clear()
        late = None
        for own in adopted:
            try:
                await self._folders.daemon.reload_own(own.chroot)
            except Unavailable as unavailable:  # the slots beside it have their files and are told
                late = unavailable
        for folder in ours:
            await self._folders.daemon.reload(folder.chroot)
        if self._before.change == operation.rollout:
            await self._prove(ours)
        if late is not None:
            raise late
        return tuple(sorted(changed))

    async def _prove(self, ours: Sequence[SlotFolder]) -> None:
        """Return once somebody has logged in to each, or nobody can with what was there before either.

        Raises:
            Refused: Somebody can with what was there before; every instance has that again.
        """
        for folder in ours:
            found = await self._folders.daemon.probe(folder.chroot)
            if not found.passed:
                await self._take_back_unless_no_better(ours, folder, found)

    async def _take_back_unless_no_better(
        self, ours: Sequence[SlotFolder], failing: SlotFolder, found: Probe
    ) -> None:
        had = {folder: conf for folder in ours if (conf := self._before.conf_of(folder)) is not None}
        if failing not in had:
            return
        got = {folder: folder.path / GOT for folder in had}
        try:
            for folder, kept in got.items():
                await _linked(folder.path / "conf", kept)
            await self._give(had)
            if (await self._folders.daemon.probe(failing.chroot)).passed:
                await asyncio.to_thread(self._before.forget)
                raise Refused(
                    f"slot {failing.slot.name} of {self._folders.gateway.name} failed its probe at "
                    f"{found.stage} with what it was given ({found.reason}); everything is as it was before"
                )
            await self._give(got)
        finally:
            for kept in got.values():
                shutil.rmtree(kept, ignore_errors=True)

    async def _give(self, confs: Mapping[SlotFolder, Path]) -> set[str]:
        """Put these configs in place and tell the instances; return the files that were others."""

        async def link() -> None:
            for folder, conf in confs.items():
                await _linked(conf, folder.path / NEXT)

        return await self._put_and_tell([*confs], link())

    async def _give_settings(self, folders: Sequence[SlotFolder], settings: Sequence[Setting]) -> set[str]:
        """Put a config with these settings in place and tell the instances; return what was another file."""
        return await self._put_and_tell(folders, self._lay_beside(folders, self._reconfigured(settings)))

    async def _put_and_tell(self, folders: Sequence[SlotFolder], laying: Awaitable[None]) -> set[str]:
        """Put in place what this lays beside each instance, and tell them; return what was another file."""
        try:
            await laying
            changed = {name for folder in folders for name in put(folder.path / NEXT, folder.path / "conf")}
        finally:
            self._clear()
        for folder in folders:
            await self._folders.daemon.reload(folder.chroot)
        return changed

    def _reconfigured(self, settings: Sequence[Setting]) -> Prepare:
        """Return what writes the config of an instance with these settings to a folder."""

        async def reconfigure(folder: SlotFolder, new: Path) -> None:
            template = self._folders.template(folder)
            await asyncio.to_thread(self._folders.daemon.reconfigure, folder.chroot, template, settings, new)

        return reconfigure

    async def _lay_beside(self, ours: Sequence[SlotFolder], prepare: Prepare) -> None:
        """Lay beside what each instance has what it is to get, looked at by us and by the daemon itself."""
        for folder in ours:
            new = folder.path / NEXT
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir(mode=0o700)
            with self._changing_nothing():
                await prepare(folder, new)
                await self._folders.daemon.check(replace(folder.chroot, config=new))
            await asyncio.to_thread(sync_tree, new)

    def _clear(self) -> None:
        for folder in self._folders:
            shutil.rmtree(folder.path / NEXT, ignore_errors=True)

    @contextmanager
    def _changing_nothing(self) -> Iterator[None]:
        """Have a refusal say that nothing was changed: so it is as long as files are looked at."""
        try:
            yield
        except (BadInput, Refused) as error:
            raise type(error)(f"{error}; nothing was changed on {self._folders.gateway.name}") from error


class _Once:
    """A credential that is read once, however many ask for it."""

    def __init__(self, read: Secret) -> None:
        self._text = str(read)
        self._read = cache(read)

    def __call__(self) -> str:
        return self._read()

    def __str__(self) -> str:
        return self._text


async def _linked(conf: Path, there: Path) -> None:
    """Have a folder with the same files: files are only ever replaced whole, and a full disk takes links."""
    shutil.rmtree(there, ignore_errors=True)
    await asyncio.to_thread(shutil.copytree, conf, there, copy_function=os.link)


def different(new: Path, there: Path) -> list[Path]:
    """Return the files below `new` that are others below `there`."""
    files = sorted(path for path in new.rglob("*") if path.is_file())
    return [path for path in files if not _equal(path, there / path.relative_to(new))]


def _equal(one: Path, other: Path) -> bool:
    return other.is_file() and filecmp.cmp(one, other, shallow=False)


def put(new: Path, there: Path) -> set[str]:
    """Replace, each in one step, the files below `there` that are others in `new`; return their names."""
    changed = set()
    for path in different(new, there):
        path.replace(there / path.relative_to(new))
        changed.add(path.name)
    for folder in {there, *(path for path in there.rglob("*") if path.is_dir())}:
        sync_folder(folder)
    return changed
