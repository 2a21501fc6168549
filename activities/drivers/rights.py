"""Rights of files that decide what may run here: only their owner may write them, or read secrets."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from policies.model.errors import BadInput

OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
OTHERS = stat.S_IRWXG | stat.S_IRWXO
MOST_LINKS = 40
"""Links on the way to a file, as Linux follows (path_resolution(7))."""


def require_own(path: Path, *, secret: bool = False, of: int | None = None) -> None:
    """Return if only root and this process's user may write the file, and read it where it is secret.

    Every folder and link on the way to it counts, up to the root: whoever may write one of them can put
    another file in the place of this one. The user of the number `of` may own the file and these folders,
    too. A file that is not there is for its reader to miss.

    Raises:
        BadInput: Another user may; the sentence has the command that mends it.
    """
    try:
        found = _walk(path, of)
    except OSError:
        return
    _require_rights(path, found, secret=secret, of=of)


@contextmanager
def opened_own(path: Path, *, secret: bool = False, of: int | None = None) -> Iterator[BinaryIO]:
    """Give the opened file that `require_own` accepts: the very file that was checked, whatever its path is.

    The user of the number `of` may own it and the folders on the way, too.

    Raises:
        BadInput: Another user may write the file, or read it where it is secret.
        OSError: It cannot be read.
    """
    with open(path, "rb", opener=_without_waiting) as file:
        opened, found = os.fstat(file.fileno()), _walk(path, of)
        _require_rights(path, opened, secret=secret, of=of)
        if (opened.st_dev, opened.st_ino) != (found.st_dev, found.st_ino):
            raise BadInput(f"{path} was replaced while it was read; try again")
        os.set_blocking(file.fileno(), True)
        yield file


def _without_waiting(path: str, flags: int) -> int:
    """Open what may be another user's pipe, before that is known: nobody has to write into it."""
    return os.open(path, flags | os.O_NONBLOCK)


def read_own(
    path: Path,
    *,
    secret: bool | Callable[[bytes], bool] = False,
    most: int | None = None,
    of: int | None = None,
) -> bytes:
    """Return the content of a file that `require_own` accepts, from the very file that was checked.

    Args:
        path: The file.
        secret: Whether other users must not read it, or what decides that by the content.
        most: Read no more bytes than this one more, so that the caller sees that there are too many.
        of: The number of a user who may own the file and the folders on the way, too.

    Raises:
        BadInput: Another user may write the file, or read it where it is secret.
        OSError: It cannot be read.
    """
    with opened_own(path, secret=secret is True, of=of) as file:
        content = file.read() if most is None else file.read(most + 1)
        if callable(secret) and secret(content):
            _require_rights(path, os.fstat(file.fileno()), secret=True, of=of)
        return content


def _walk(path: Path, of: int | None) -> os.stat_result:
    """Return what the path leads to, once every folder and link on the way has been checked.

    Raises:
        BadInput: Another user may replace one of them.
        OSError: The path leads nowhere.
    """
    folder, rest = Path("/"), [*reversed(path.absolute().parts[1:])]
    links, found = 0, folder.stat()
    while rest:
        above, entry = found, folder / rest.pop()
        found = entry.lstat()
        _require_kept(path, folder, above, found, of)
        if stat.S_ISLNK(found.st_mode):
            links += 1
            if links > MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
            target = entry.readlink()
            folder = Path("/") if target.is_absolute() else folder
            rest += reversed(target.parts[1:] if target.is_absolute() else target.parts)
            found = folder.stat()
        elif stat.S_ISDIR(found.st_mode):
            folder = entry if entry.name != ".." else entry.resolve()
        elif rest:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(entry))
    return found


def _require_kept(
    path: Path, folder: Path, above: os.stat_result, entry: os.stat_result, of: int | None
) -> None:
    """Refuse a folder in which another user may replace the entry that leads to the file."""
    if above.st_uid not in (0, os.geteuid(), of):
        raise BadInput(
            f"user {above.st_uid}, who owns {folder}, may replace {path}; chown {os.geteuid()} {folder}, "
            "and check what the file says"
        )
    if not above.st_mode & OTHERS_WRITE:
        return
    # In a folder with the sticky bit users replace only what is their own.
    if not above.st_mode & stat.S_ISVTX or entry.st_uid not in (0, os.geteuid(), of):
        raise BadInput(f"others may replace {path}; chmod go-w {folder}, and check what the file says")


def _require_rights(path: Path, found: os.stat_result, *, secret: bool, of: int | None = None) -> None:
    _require_owner(path, found, of)
    if found.st_mode & OTHERS_WRITE:
        raise BadInput(f"{path} may be written by others; chmod go-w {path}, and check what it says")
    if secret and found.st_mode & OTHERS:
        raise BadInput(f"{path} may be read by others; chmod 600 {path}, and replace the secret in it")


def everybody_reads(path: Path) -> bool:
    """Return whether every user of this host may read the file; one that is not there is read by nobody."""
    try:
        above = [folder.stat().st_mode & stat.S_IXOTH for folder in path.resolve().parents]
        return bool(path.stat().st_mode & stat.S_IROTH) and all(above)
    except OSError:
        return False


def _require_owner(path: Path, found: os.stat_result, of: int | None) -> None:
    us = os.geteuid()
    if found.st_uid not in (0, us, of):
        raise BadInput(
            f"{path} belongs to user {found.st_uid}, who may change it; chown {us} {path}, "
            "and check what it says"
        )
