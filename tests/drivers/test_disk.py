"""What is read of a file on a host's disk: its end, whatever its size."""

import os
import tracemalloc
from pathlib import Path

from activities.drivers.disk import end_of

MOST = 64 * 1024


def test_the_end_of_a_log_is_read_and_not_the_gigabytes_before_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as file:
        os.ftruncate(file.fileno(), 2**35)
        file.seek(0, os.SEEK_END)
        file.write(b"the last words")
    tracemalloc.start()
    try:
        end = end_of(log, MOST)
        assert tracemalloc.get_traced_memory()[1] < 4 * MOST
    finally:
        tracemalloc.stop()
    assert end == bytes(MOST - 14) + b"the last words"


def test_a_short_log_is_read_whole_and_one_that_is_not_there_is_empty(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"short")
    assert end_of(tmp_path / "log", MOST) == b"short"
    assert end_of(tmp_path / "none", MOST) == b""
