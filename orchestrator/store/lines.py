"""Files of lines that are only ever appended to, by several processes, and outlive a kill and a full disk."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from policies.model.errors import Unavailable

TAIL = 1 << 16
"""More bytes than a line has."""


def append_line(path: Path, line: str) -> None:
    """Append a line and have it on the disk; half a line that was left by who was killed is taken away.

    Raises:
        Unavailable: The file cannot be written; it is as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with held(path, "a+b") as file:
            end = _whole(file)
            file.truncate(end)
            try:
                file.write(line.encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                os.truncate(path, end)
                raise
    except OSError as error:
        raise Unavailable(f"{path} cannot be written: {error.strerror}") from error


@contextmanager
def held(path: Path, mode: str) -> Iterator[BinaryIO]:
    """Open the file for this process alone, as far as others ask here, too."""
    with path.open(mode) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file  # type: ignore[misc]  # the modes are binary


def _whole(file: BinaryIO) -> int:
    """Return how many bytes of the file are whole lines."""
    end = file.seek(0, os.SEEK_END)
    file.seek(max(0, end - TAIL))
    tail = file.read(TAIL)
    return end - len(tail) + tail.rfind(b"\n") + 1
