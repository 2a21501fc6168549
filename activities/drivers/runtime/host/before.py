"""What a host's instances had before the last reload that changed anything, kept to be put back."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter

from activities.drivers.disk import sync_folder, sync_tree, write_whole
from activities.drivers.runtime.host.slot_folders import SlotFolder, SlotFolders
from policies.model.settings import Setting
from policies.model.value import Name

_SETTINGS = TypeAdapter(tuple[Setting, ...])
_LAST = TypeAdapter(tuple[Name, tuple[Setting, ...]])


class Before:
    """One folder, `before`: the settings and every instance's config; the next change replaces it.

    The settings before the last change of settings stay there when only credentials are reloaded.
    """

    def __init__(self, folders: SlotFolders) -> None:
        self._folders = folders
        self._path = folders.root / "before"
        self._older = folders.root / ".before.older"
        self._beside = folders.root / ".before.new"

    @property
    def _kept(self) -> Path:
        """The folder to read: a process killed between two renames leaves it under its other name."""
        return self._path if self._path.exists() else self._older

    @property
    def change(self) -> Name | None:
        """The change before which all this was so, None when nothing was ever changed here."""
        try:
            return str(json.loads((self._kept / "change.json").read_text())["change"])
        except (OSError, ValueError, KeyError):
            return None

    @property
    def settings(self) -> tuple[Setting, ...]:
        """What the instances were given in place of their release."""
        return _SETTINGS.validate_json((self._kept / "settings.json").read_bytes())

    @property
    def last_settings(self) -> tuple[Name, tuple[Setting, ...]] | None:
        """The last change of settings here, and the settings before it; None when there was none."""
        try:
            return _LAST.validate_json((self._kept / "last_settings.json").read_bytes())
        except (OSError, ValueError):
            return None

    def keep(self, change: Name, running: Sequence[SlotFolder], *, of_settings: bool) -> None:
        """Ensure that what these instances have now is kept; a repeat keeps what was there first."""
        if self.change == change:
            return
        new = self._beside
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        for folder in running:
            shutil.copytree(folder.path / "conf", new / folder.slot.name / "conf")
            (new / folder.slot.name / "launched").write_bytes(folder.start)
        write_whole(new / "settings.json", _SETTINGS.dump_json(self._folders.settings).decode())
        last = (change, self._folders.settings) if of_settings else self.last_settings
        if last is not None:
            write_whole(new / "last_settings.json", _LAST.dump_json(last).decode())
        write_whole(new / "change.json", json.dumps({"change": change}))
        sync_tree(new)
        if self._path.exists():
            shutil.rmtree(self._older, ignore_errors=True)
            self._path.replace(self._older)
        new.replace(self._path)
        sync_folder(self._path.parent)

    def forget(self) -> None:
        """Keep again what was kept until the last change, which this host has undone by itself."""
        shutil.rmtree(self._beside, ignore_errors=True)
        if self._path.exists():
            self._path.replace(self._beside)
        if self._older.exists():
            self._older.replace(self._path)
        sync_folder(self._path.parent)
        shutil.rmtree(self._beside, ignore_errors=True)

    def conf_of(self, folder: SlotFolder) -> Path | None:
        """Return the config that exactly this process had, None when it was started since."""
        kept = self._kept / folder.slot.name
        try:
            same = (kept / "launched").read_bytes() == folder.start
        except OSError:
            return None
        return kept / "conf" if same else None
