"""Recorded windows in a folder: one file per rollout and wave, a line per tick, each line compressed.

The first line is the window's head, and the dictionary by which the others are compressed: it has
every name that a tick repeats. A line is written whole or not at all (a torn last line is ignored),
and a tick that is recorded twice, because its activity was repeated, counts once.
"""

import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterator
from datetime import datetime
from os import SEEK_END
from pathlib import Path
from typing import BinaryIO

from pydantic import ValidationError

from activities.observation import ObservationOrder
from policies.judge.tick import Tick
from policies.judge.window import Record
from policies.model.errors import BadInput

SUFFIX = ".window"
_BLOCK = 1 << 22
"""Bytes looked through for the end of the last whole line; no line is longer."""


class FolderRecorder:
    """Keeps every tick of every window under one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def record(self, order: ObservationOrder, tick: Tick) -> None:
        """Append this tick, after the head of the record when it is the first."""
        after = f"-after-{order.passed}" if order.passed else ""
        path = self._folder / f"{order.rollout}-{order.wave}{after}{SUFFIX}"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            end = _end_of_whole_lines(file)
            file.truncate(end)
            file.seek(0)
            head = _unpacked(file.readline()) if end else _head(order).model_dump_json().encode()
            file.write((b"" if end else _packed(head)) + _packed(tick.model_dump_json().encode(), head))

    def expire(self, before: datetime) -> int:
        """Remove the windows nothing was added to since then; return how many."""
        old = [path for path in self._windows() if path.stat().st_mtime < before.timestamp()]
        for path in old:
            path.unlink(missing_ok=True)
        return len(old)

    def _windows(self) -> Iterator[Path]:
        return self._folder.glob(f"*{SUFFIX}")


def _packed(content: bytes, known: bytes = b"") -> bytes:
    packer = zlib.compressobj(zdict=known)
    return b64encode(packer.compress(content) + packer.flush()) + b"\n"


def _unpacked(line: bytes, known: bytes = b"") -> bytes:
    """Return a line's content; zlib.error or ValueError when it has none."""
    return zlib.decompressobj(zdict=known).decompress(b64decode(line, validate=False))


def _end_of_whole_lines(file: BinaryIO) -> int:
    """Return where the last whole line ends: what a crash left of a line is written over."""
    size = file.seek(0, SEEK_END)
    start = file.seek(max(0, size - _BLOCK))
    return start + file.read().rfind(b"\n") + 1


def _head(order: ObservationOrder) -> Record:
    return Record(
        rollout=order.rollout,
        wave=order.wave,
        policy=order.gates,
        window=order.window,
        cohorts=order.cohorts,
    )


def read_record(path: Path) -> Record:
    """Return the window a file holds.

    Raises:
        BadInput: not a record, or a line in its middle is damaged.
    """
    whole = [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    head, known, ticks = None, b"", dict[float, Tick]()
    for number, line in enumerate(whole, start=1):
        try:
            content = _unpacked(line, known)
            if head is None:
                head, known = Record.model_validate_json(content), content
                continue
            tick = Tick.model_validate_json(content)
        except (ValidationError, ValueError, zlib.error) as error:
            raise BadInput(f"{path}: line {number} is not part of a recorded window") from error
        ticks[tick.at] = tick
    if head is None:
        raise BadInput(f"{path}: is empty; a recorded window begins with its policy")
    return head.model_copy(update={"ticks": tuple(ticks[at] for at in sorted(ticks))})
