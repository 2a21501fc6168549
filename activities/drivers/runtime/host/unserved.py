"""Credentials that lie on this host otherwise than in what runs on it: a reload would give them."""

from collections.abc import Mapping
from pathlib import Path

from activities.drivers.daemon.port import Secret
from activities.drivers.runtime.host.slot_folders import AdoptedFolder, SlotFolders


class UnservedCredentials:
    """Compares the files of this host with what its instances were given, as often as it is asked."""

    def __init__(self, folders: SlotFolders, credentials: Mapping[str, Secret]) -> None:
        self._folders = folders
        self._credentials = credentials
        self._compared: dict[tuple[Path, Path], tuple[object, bool]] = {}

    def names(self) -> tuple[str, ...]:
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
