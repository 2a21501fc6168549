"""Credentials of running instances: the host's present ones, put in place of those they were started with.

A daemon that was adopted reads its own files at its own paths: they are looked at, and it is told.
Everything is looked at before anything is put in place, and each file is replaced in one step. An
agent that is killed at any line leaves instances that go on; the same order again ends the same way.
"""

import asyncio
import filecmp
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

from activities.drivers.daemon.port import Secret
from activities.drivers.disk import sync_folder, sync_tree
from activities.drivers.runtime.host.journal import Journal, exclusive
from activities.drivers.runtime.host.slot_folders import AdoptedFolder, SlotFolder, SlotFolders
from policies.model.errors import BadInput, Refused, Unavailable
from policies.model.operation import Operation

NEXT = "conf.next"


class SlotCredentials:
    """The credentials of one gateway's instances, whatever they were started with."""

    def __init__(self, folders: SlotFolders, journal: Journal, credentials: Mapping[str, Secret]) -> None:
        self._folders = folders
        self._journal = journal
        self._credentials = credentials
        self._compared: dict[tuple[Path, Path], tuple[object, bool]] = {}

    def unserved(self) -> tuple[str, ...]:
        """Return the names of credentials that lie on this host otherwise than in an instance that runs.

        Nobody but this host is asked, so those from elsewhere than a file are not compared, nor is what an
        adopted daemon reads by itself; a file that cannot be read differs from nothing.
        """
        found = set[str]()
        for folder in self._folders:
            if isinstance(folder, AdoptedFolder) or folder.process() is None:
                continue
            for name, read in self._credentials.items():
                kind, _, path = str(read).partition(":")
                given = folder.chroot.config / "credentials" / name
                if kind == "file" and given.exists() and self._differs(Path(path), given):
                    found.add(name)
        return tuple(sorted(found))

    def _differs(self, there: Path, given: Path) -> bool:
        """Compare by content, and again only when one of the files is another one or was written."""
        try:
            looks = [(one.st_ino, one.st_mtime_ns, one.st_size) for one in (there.stat(), given.stat())]
            before = self._compared.get((there, given))
            if before is None or before[0] != looks:
                before = (looks, there.read_text().strip() != given.read_text().strip())
                self._compared[there, given] = before
        except (OSError, UnicodeDecodeError):
            return False
        return before[1]

    async def reload(self, operation: Operation, *, older: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Ensure that every running instance uses the host's present credentials; sessions stay.

        Nothing is taken over from a drain or a change that owns the gateway: whatever runs may have them.
        An instance whose files are the present ones is told all the same: who was killed before may not
        have done so, and it costs nobody anything. The own files of what was adopted are looked at last, and
        it is told first, so that little time is left to change them in between.

        Returns:
            The slots of the instances, and the names of the credentials that were others before.

        Raises:
            BadInput: One of them cannot be used; no instance got any.
            Refused: The daemon itself refuses them; no instance got any.
            Unavailable: An instance does not take them; a repeat tells it again.
            Fenced: A newer change owns the gateway.
        """
        async with exclusive(self._folders.root / "slots.lock"):
            self._journal.check(operation)
            running = [folder for folder in self._folders if folder.process() is not None]
            adopted = [folder for folder in running if isinstance(folder, AdoptedFolder)]
            ours = [folder for folder in running if folder not in adopted]
            # Each is read once: all slots get the same, also while somebody writes the file.
            given = {name: _Once(read) for name, read in self._credentials.items()}
            try:
                for folder in ours:
                    await self._prepare(folder, given, older=older)
                for own in adopted:
                    with self._changing_nothing():
                        await self._folders.daemon.check_own(own.chroot)
                self._journal.check(operation)
                changed = set[str]()
                for folder in ours:
                    changed |= put(folder.path / NEXT, folder.path / "conf")
            finally:
                for folder in self._folders:
                    shutil.rmtree(folder.path / NEXT, ignore_errors=True)
            late = None
            for own in adopted:
                try:
                    await self._folders.daemon.reload_own(own.chroot)
                except Unavailable as unavailable:  # the slots beside it have their files and are told
                    late = unavailable
            for folder in ours:
                await self._folders.daemon.reload(folder.chroot)
            if late is not None:
                raise late
            return tuple(folder.slot.name for folder in running), tuple(sorted(changed))

    async def _prepare(self, folder: SlotFolder, given: Mapping[str, Secret], *, older: bool) -> None:
        """Lay the present credentials beside those in use, looked at by us and by the daemon itself."""
        new = folder.path / NEXT
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        daemon, chroot = self._folders.daemon, folder.chroot
        with self._changing_nothing():
            await asyncio.to_thread(daemon.renew, chroot, given, new, older=older)
            await daemon.check(replace(chroot, config=new))
        await asyncio.to_thread(sync_tree, new)

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


def put(new: Path, there: Path) -> set[str]:
    """Replace, each in one step, the files below `there` that are others in `new`; return their names."""
    changed = set()
    for path in sorted(path for path in new.rglob("*") if path.is_file()):
        target = there / path.relative_to(new)
        if not filecmp.cmp(path, target, shallow=False):
            path.replace(target)
            changed.add(path.name)
    for folder in {there, *(path for path in there.rglob("*") if path.is_dir())}:
        sync_folder(folder)
    return changed
