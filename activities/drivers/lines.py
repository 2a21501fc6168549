"""Files of lines that are only ever appended to, by several processes, and outlive a kill and a full disk."""

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

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


@contextmanager
def held(path: Path, mode: str) -> Iterator[BinaryIO]:
    """Open the file for this process alone, as far as others ask here, too."""
    with path.open(mode) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file  # type: ignore[misc]  # the modes are binary


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
