"""Changes on disk that are either whole or not there, also after a power cut."""

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO, TypeVar

T = TypeVar("T")
RESERVED_BYTES = 256 * 1024
_FULL = {errno.ENOSPC, errno.EDQUOT}


class Reserve:
    """Room kept on a host's disk for the way back, which writes a few lines even when the disk is full."""

    def __init__(self, path: Path) -> None:
        """Take the room now, if there is any and it is not taken already."""
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(OSError):
            self._take()

    def spend_for(self, write: Callable[[], T]) -> T:
        """Do the write; when the disk is full, give the reserve up and do it once more.

        `write` must leave nothing half done when it fails.
        """
        try:
            return write()
        except OSError as error:
            if error.errno not in _FULL or not self._path.exists():
                raise
            self._path.unlink(missing_ok=True)
            return write()

    def _take(self) -> None:
        if self._path.exists():
            return
        new = self._path.with_name(f".{self._path.name}.new")
        try:
            with new.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, RESERVED_BYTES)
            new.replace(self._path)
        finally:
            new.unlink(missing_ok=True)


def end_of(path: Path, most: int) -> bytes:
    """Return the last `most` bytes of a file, however large it is; nothing where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - most))
            return file.read(most)
    except FileNotFoundError:
        return b""


def write_whole(path: Path, content: str) -> None:
    """Replace the file's content in one step; several writers at once write one after another."""
    new = path.with_name(f".{path.name}.new")
    with _alone_with(new) as file:
        try:
            file.truncate(0)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            new.replace(path)
        except OSError:
            new.unlink(missing_ok=True)
            raise
    sync_folder(path.parent)


@contextmanager
def _alone_with(path: Path) -> Iterator[TextIO]:
    """Open the file for appending once no other process or thread has it; make it where there is none."""
    while True:
        with path.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # Whoever had it before may have renamed it: then this is no longer the file of that name.
            if _is_named(file, path):
                yield file
                return


def _is_named(file: TextIO, path: Path) -> bool:
    """Tell whether the open file is still the one of this name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def ensure_whole(path: Path, content: str) -> None:
    """Ensure that the file has this content; where it has, a full disk is asked for nothing."""
    if content_of(path) != content:
        write_whole(path, content)


def content_of(path: Path) -> str | None:
    """Return the file's content, None where there is no such file."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def point(link: Path, target: Path) -> None:
    """Ensure in one step that the symbolic link leads to the target, relative to its own folder."""
    new = link.with_name(f".{link.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(os.path.relpath(target, link.parent))
    new.replace(link)
    sync_folder(link.parent)


def sync_folder(folder: Path) -> None:
    """Ensure that the folder's entries are on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Ensure that every file and folder below is on disk."""
    for path, _, names in os.walk(folder):
        for name in names:
            if not (file := Path(path, name)).is_symlink():
                with file.open("rb") as opened:
                    os.fsync(opened.fileno())
        sync_folder(Path(path))


def size_of(folder: Path) -> int:
    """Return the bytes of all files below."""
    return sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file())
