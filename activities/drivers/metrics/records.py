"""Recorded windows in a folder: one file per rollout and wave, a line per tick.

A line is written whole or not at all (a torn last line is ignored), and a tick that is
recorded twice, because its activity was repeated, counts once.
"""

from os import SEEK_END
from pathlib import Path
from typing import BinaryIO

from pydantic import ValidationError

from activities.observation import ObservationOrder
from policies.judge.record import Record
from policies.judge.tick import Tick
from policies.words.errors import BadInput

_BLOCK = 1 << 22
"""Bytes looked through for the end of the last whole line; no line is longer."""


class FolderRecorder:
    """Keeps every tick of every window under one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def record(self, order: ObservationOrder, tick: Tick) -> None:
        """Append this tick, after the head of the record when it is the first."""
        path = self._folder / f"{order.rollout}-{order.wave}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            end = _end_of_whole_lines(file)
            file.truncate(end)
            head = b"" if end else f"{_head(order).model_dump_json()}\n".encode()
            file.write(head + f"{tick.model_dump_json()}\n".encode())


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
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]
    head, ticks = None, dict[float, Tick]()
    for number, line in enumerate(whole, start=1):
        try:
            if head is None:
                head = Record.model_validate_json(line)
                continue
            tick = Tick.model_validate_json(line)
        except ValidationError as error:
            raise BadInput(f"{path}: line {number} is not part of a recorded window") from error
        ticks[tick.at] = tick
    if head is None:
        raise BadInput(f"{path}: is empty; a recorded window begins with its policy")
    return head.model_copy(update={"ticks": tuple(ticks[at] for at in sorted(ticks))})
