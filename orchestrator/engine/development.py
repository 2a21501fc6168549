"""The command line of Temporal's development server, the same for `penstock serve`, the lab and the tests."""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from policies.model.errors import BadInput

UNHURRIED = ("history.transferProcessorMaxPollRPS=1000", "history.timerProcessorMaxPollRPS=1000")
"""The server's one shard looks for work 20 times a second by default: 50 ms between any two steps.

A cluster has hundreds of shards and does not need it.
"""

TELLS_PROBLEMS = ("system.numConsecutiveWorkflowTaskProblemsToTriggerSearchAttribute=3",)
"""Tries of a workflow's task until a search finds it by its problems: half a minute, not a whole one."""


def program() -> str:
    """Return the server's program, which comes with the Python environment; BadInput when it is not there."""
    found = shutil.which("temporal", path=str(Path(sys.executable).parent))
    if found is None:
        raise BadInput("the engine's program is not in the environment: make it with any ./run command")
    return found


def command(
    host: str, port: int, database: Path, *, log: str = "error", settings: Sequence[str] = ()
) -> list[str]:
    """Return the command that serves this database at this address, with further dynamic settings."""
    line = [program(), "server", "start-dev", "--headless", "--log-level", log]
    line += ["--ip", host, "--port", str(port), "--db-filename", str(database)]
    # The two pragmas make it seven times faster.
    line += ["--sqlite-pragma", "journal_mode=WAL", "--sqlite-pragma", "synchronous=NORMAL"]
    for setting in (*UNHURRIED, *TELLS_PROBLEMS, *settings):
        line += ["--dynamic-config-value", setting]
    return line
