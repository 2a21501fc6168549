"""Files of lines that several processes append to; they outlive a kill and a full disk."""

import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from activities.drivers.disk import sync_folder

READ_AT_ONCE = 8 * 1024
"""Bytes of a file's end in which most of the last lines are; of longer ones more is read."""


def append(path: Path, line_after: Callable[[bytes], bytes]) -> None:
    """Append the line that follows the last one, and have it on the disk.

    Half a line that was left by who was killed is taken away first.

    Args:
        path: The file, made when there is none.
        line_after: Returns the new line without its end, for the last one with its end; that is empty in an
            empty file.

    Raises:
        OSError: The file cannot be written; it is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with held(path, "a+b") as file:
        last, end = _last_whole(file)
        line = line_after(last) + b"\n"
        os.ftruncate(file.fileno(), end)
        try:
            _write(file.fileno(), line, path)
        except OSError:
            os.ftruncate(file.fileno(), end)
            raise


def _write(descriptor: int, line: bytes, path: Path) -> None:
    """Write beside the file's buffer: what that still holds after an error is written when it is closed."""
    if os.write(descriptor, line) < len(line):
        raise OSError(errno.ENOSPC, "the disk is full", str(path))
    os.fsync(descriptor)


def last_line(path: Path) -> bytes:
    """Return the last whole line with its end, empty where there is none; the others are not read."""
    try:
        with path.open("rb") as file:
            return _last_whole(file)[0]
    except FileNotFoundError:
        return b""


def cut_beginning(path: Path, most: int, left: int) -> bool:
    """Take the oldest lines off a file that has more than `most` bytes, so that at most `left` are left.

    Returns:
        Whether there was anything to do.

    Raises:
        OSError: The disk does not take what is left; the file is as it was.
    """
    new = path.with_name(f".{path.name}.new")
    with held(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        if size <= most:
            return False
        file.seek(size - left)
        file.readline()
        try:
            with new.open("wb") as shorter:
                shutil.copyfileobj(file, shorter)
                shorter.flush()
                os.fsync(shorter.fileno())
            shutil.copymode(path, new)
            new.replace(path)
        except OSError:
            new.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
    return True


@contextmanager
def held(path: Path, mode: str) -> Iterator[BinaryIO]:
    """Open the file for this process alone, as far as others ask here, too."""
    while True:
        with path.open(mode) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if _is_still(path, file.fileno()):
                yield file  # type: ignore[misc]  # the modes are binary
                return


def _is_still(path: Path, descriptor: int) -> bool:
    """Whether this is the file of that name: who was waited for may have put a shorter one in its place."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _last_whole(file: BinaryIO) -> tuple[bytes, int]:
    """Return the last whole line, and how many bytes of the file are whole lines."""
    size, reach = file.seek(0, os.SEEK_END), READ_AT_ONCE
    while True:
        start = file.seek(max(0, size - reach))
        tail = file.read(size - start)
        end = tail.rfind(b"\n") + 1
        begin = tail.rfind(b"\n", 0, max(0, end - 1)) + 1
        if begin or not start:
            return tail[begin:end], start + end
        reach *= 8
