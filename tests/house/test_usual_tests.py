"""Which tests a person gets who names a folder, a file, or everything."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = "tests/workflows"
FILE = f"{FOLDER}/test_processes.py"
"""One that has usual tests and sweeps."""


def collected(*arguments: str) -> set[str]:
    """Return the tests of the file that would run."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-n0", *arguments]
    said = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=True).stdout
    return {line for line in said.splitlines() if line.startswith(f"{FILE}::")}


def test_sweeps_are_left_out_of_a_folder_and_run_with_all_and_where_their_file_is_named() -> None:
    usual, named, everything = collected(FOLDER), collected(FILE), collected("--all", FOLDER)
    assert named == everything
    assert usual
    assert usual < everything


def test_a_test_that_is_named_runs_although_it_is_a_sweep() -> None:
    (sweep, *_) = sorted(collected(FILE) - collected(FOLDER))
    assert collected(sweep) == {sweep}
