"""What processes say on standard error: with its priority for the journal, alone for people."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.house.tree import ROOT

SAYS = """
import logging
from orchestrator.processes import journal
journal.begin()
logging.getLogger("penstock").warning("the ledger is away")
try:
    raise ValueError("as it was meant to")
except ValueError:
    logging.getLogger("penstock").exception("it failed")
logging.getLogger("penstock").info("nobody needs to know")
"""


def said(to: Path, stream: str | None, program: str = SAYS) -> str:
    """Return what a process writes into this file that is told that the journal reads that stream."""
    with to.open("wb") as file:
        found = os.fstat(file.fileno())
        own = f"{found.st_dev}:{found.st_ino}"
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
        if stream is not None:
            environment["JOURNAL_STREAM"] = stream.format(own=own)
        subprocess.run([sys.executable, "-c", program], stderr=file, env=environment, check=True, timeout=30)
    return to.read_text()


def test_every_line_for_the_journal_has_its_priority_a_trace_too(tmp_path: Path) -> None:
    lines = said(tmp_path / "log", "{own}").splitlines()
    assert lines[:2] == ["<4>the ledger is away", "<3>it failed"]
    assert lines[-1] == "<3>ValueError: as it was meant to"
    assert all(re.match(r"<[34]>", line) for line in lines)


def test_a_terminal_or_another_file_gets_the_lines_alone(tmp_path: Path) -> None:
    for stream in (None, "1:1", "nonsense"):
        assert said(tmp_path / "log", stream).startswith("the ledger is away\nit failed\n")


RUNS = """
import logging, sys, types
from orchestrator.cli import process
async def main(): logging.getLogger("penstock").warning("as every process says it")
sys.modules["orchestrator.processes.stranger"] = types.SimpleNamespace(main=main)
process.run("stranger")
"""


def test_whatever_the_command_line_runs_says_warnings_with_their_priority(tmp_path: Path) -> None:
    assert said(tmp_path / "log", "{own}", RUNS) == "<4>as every process says it\n"
