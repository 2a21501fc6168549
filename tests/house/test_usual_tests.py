"""Which tests a person gets who names a folder, a file, or everything."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests import slow_sample

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


TESTS = [
    f"tests/x/test_{file}.py::test_{name}[{case}]" for file in "abcde" for name in "uvw" for case in "12"
]


def test_a_sample_of_slow_tests_loses_none_and_repeats_none() -> None:
    for commit in ("1f", "2e", "3d"):
        assert sorted(slow_sample.ordered(TESTS, commit)) == sorted(TESTS)
        assert slow_sample.ordered(TESTS, commit) == slow_sample.ordered(TESTS, commit)


def test_each_slow_test_is_among_the_first_third_within_a_few_landings() -> None:
    commits = [f"{number:040x}" for number in range(30)]
    third = len(TESTS) // 3
    waits = dict.fromkeys(TESTS, 0)
    for commit in commits:
        for test in slow_sample.ordered(TESTS, commit)[:third]:
            waits[test] += 1
    assert all(turns >= 3 for turns in waits.values()), waits


def test_a_story_on_hosts_is_sampled_from_its_beginning() -> None:
    for story in slow_sample.STORIES:
        told = [f"{story}::test_{number}" for number in range(5)]
        assert all(slow_sample.ordered(told, commit) == told for commit in ("1f", "2e", "3d"))
