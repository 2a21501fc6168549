"""Programs of the lab: what freezing one of them promises."""

import sys
from pathlib import Path

import pytest

from deploy.lab.processes import Process
from tests.patience import wait_until

BUSY = """
import hashlib, threading
def digest():
    while True:
        hashlib.sha256(bytes(10_000_000))  # which lets the other threads run beside it
for _ in range(4):
    threading.Thread(target=digest).start()
print("busy", flush=True)
"""


def states(pid: int) -> set[str]:
    """Return the states of all threads of a process (proc(5)): T is stopped."""
    stats = Path(f"/proc/{pid}/task").glob("*/stat")
    return {stat.read_text().rpartition(")")[2].split()[0] for stat in stats}


@pytest.fixture
def busy(tmp_path: Path) -> Process:
    return Process("busy", [sys.executable, "-c", BUSY], log=tmp_path / "busy.log")


def test_no_thread_of_a_frozen_process_runs_and_it_may_be_frozen_again(busy: Process) -> None:
    pid = busy.start()
    try:
        wait_until(lambda: bool(busy.log.read_text()))
        for _ in range(20):
            busy.freeze()
            assert states(pid) == {"T"}
            busy.freeze()
            assert states(pid) == {"T"}
            busy.thaw()
        assert busy.pid == pid
    finally:
        busy.kill()


def test_freezing_what_is_gone_or_was_never_started_does_nothing(busy: Process) -> None:
    busy.freeze()
    busy.start()
    busy.kill()
    busy.freeze()
    busy.thaw()
    assert busy.exit_code == -9
