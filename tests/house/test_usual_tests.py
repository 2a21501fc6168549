"""Which tests a person gets who names a folder, a file, or everything."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = "tests/workflows"
FILE = f"{FOLDER}/test_promotion.py"
"""One that has usual tests and sweeps."""


def collected(*arguments: str) -> set[str]:
    """Return the tests of the file that would run."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-n0", *arguments]
    said = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=True).stdout
    return {line for line in said.splitlines() if line.startswith(f"{FILE}::")}


@pytest.mark.sweep
def test_sweeps_are_left_out_of_a_folder_and_run_where_their_file_or_they_themselves_are_named() -> None:
    usual, named = collected(FOLDER), collected(FILE)
    assert named == collected("--all", FILE)
    assert usual
    assert usual < named
    (sweep, *_) = sorted(named - usual)
    assert collected(sweep) == {sweep}
