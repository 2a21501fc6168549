"""Lines of a host's record as they lie in its file: found by their number, without reading the others."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

NEAR = 16 * 1024
"""Bytes before a line that are read with it."""

LAST_NUMBER = 2**31 - 1


def number_of(line: bytes) -> int | None:
    """Return which line of its record this one is, None when it does not say so: then somebody altered it."""
    try:
        number = json.loads(line)["entry"]["number"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return number if isinstance(number, int) and 0 < number <= LAST_NUMBER else None


def lines_after(path: Path, number: int) -> Iterator[tuple[int, bytes]]:
    """Yield the whole lines after the one of that number, each with its own number and without its end.

    One that does not say its number has that which follows.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        file.seek(_near(file, number))
        last = 0
        for line in file:
            if not line.endswith(b"\n"):
                return
            last = number_of(line) or last + 1
            if last > number:
                yield last, line[:-1]


def _near(file: BinaryIO, number: int) -> int:
    """Return where a line begins that is not after the one of that number, and not far before it."""
    low, high = 0, file.seek(0, os.SEEK_END)
    while high - low > NEAR:
        middle = (low + high) // 2
        file.seek(middle)
        file.readline()
        begin, found = _first_number(file, high)
        if found is not None and found <= number:
            low = begin
        else:
            high = middle
    return low


def _first_number(file: BinaryIO, end: int) -> tuple[int, int | None]:
    """Return where the next line begins that says its number, and the number; None when none does before."""
    begin = file.tell()
    while begin < end and (line := file.readline()):
        if (found := number_of(line)) is not None:
            return begin, found
        begin = file.tell()
    return begin, None
