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


class Before:
    """One folder, `before`: the settings and every instance's config; the next change replaces it."""

    def __init__(self, folders: SlotFolders) -> None:
        self._folders = folders
        self._path = folders.root / "before"

    @property
    def change(self) -> Name | None:
        """The change before which all this was so, None when nothing was ever changed here."""
        try:
            return str(json.loads((self._path / "change.json").read_text())["change"])
        except (OSError, ValueError, KeyError):
            return None

    @property
    def settings(self) -> tuple[Setting, ...]:
        """What the instances were given in place of their release."""
        return _SETTINGS.validate_json((self._path / "settings.json").read_bytes())

    def keep(self, change: Name, running: Sequence[SlotFolder]) -> None:
        """Ensure that what these instances have now is kept; a repeat keeps what was there first."""
        if self.change == change:
            return
        new = self._path.with_name(".before.new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        for folder in running:
            shutil.copytree(folder.path / "conf", new / folder.slot.name / "conf")
            (new / folder.slot.name / "launched").write_bytes(folder.start)
        write_whole(new / "settings.json", _SETTINGS.dump_json(self._folders.settings).decode())
        write_whole(new / "change.json", json.dumps({"change": change}))
        sync_tree(new)
        shutil.rmtree(self._path, ignore_errors=True)
        new.replace(self._path)
        sync_folder(self._path.parent)

    def conf_of(self, folder: SlotFolder) -> Path | None:
        """Return the config that exactly this process had, None when it was started since."""
        kept = self._path / folder.slot.name
        try:
            same = (kept / "launched").read_bytes() == folder.start
        except OSError:
            return None
        return kept / "conf" if same else None
