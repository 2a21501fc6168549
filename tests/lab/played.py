"""Programs that play a whole lab, each run to its end as a person runs it."""

import os
import subprocess
import sys
from pathlib import Path

HANGS_AFTER = 600.0
"""Seconds, for what takes at most two minutes on two idle cores: a machine beside other work takes three."""
HOME = Path(__file__).parents[2]


def played(
    *arguments: str, state: Path | None = None, more: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run Python with these arguments, its state in that folder, and return what it said.

    Raises:
        subprocess.TimeoutExpired: It hangs.
    """
    own = {} if state is None else {"PENSTOCK_STATE": str(state)}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=HOME,
        env={**os.environ, **own, **(more or {})},
        capture_output=True,
        text=True,
        timeout=HANGS_AFTER,
        check=False,
    )
