"""Files of lines that are only ever appended to, by several processes, and outlive a kill and a full disk."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

LONGEST_LINE = 1 << 20


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
        file.truncate(end)
        try:
            file.write(line_after(last) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            os.truncate(path, end)
            raise


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
    size = file.seek(0, os.SEEK_END)
    start = max(0, size - LONGEST_LINE)
    file.seek(start)
    tail = file.read(size - start)
    whole = tail[: tail.rfind(b"\n") + 1]
    lines = whole.splitlines(keepends=True)
    return (lines[-1] if lines else b""), start + len(whole)
