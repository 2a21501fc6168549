"""A daemon that hangs, alive as it is: a test stops it, and begins once none of its threads runs."""

import os
import signal
from pathlib import Path

from tests.patience import until


async def halt(pid: int | None) -> None:
    """Stop that process, and return once all of its threads stand still.

    kill(2) returns before that: on a busy machine a thread of a stopped server still answers what comes next.
    """
    assert pid is not None, "there is no daemon to stop"
    os.kill(pid, signal.SIGSTOP)
    await until(lambda: _stands_still(pid))


def _stands_still(pid: int) -> bool:
    """Whether each thread is in state T (proc(5)); the state follows the name, which is in parentheses."""
    stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return bool(stats) and all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)
