"""A test server that dies is named by the test that needed it, and the next test has another."""

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.workflows.engine import Engine
from tests.workflows.watch import ServerDied

HOME = Path(__file__).parents[2]

NAMED_WITHIN = 20.0
"""Seconds of a test under which a server is killed, its own seconds before that included.

Left alone it would wait three minutes; most of these seconds are for a busy machine.
"""


@pytest.mark.sweep
def test_a_dead_server_is_named_at_once_and_the_next_test_has_another() -> None:
    command = [sys.executable, "-m", "pytest", "tests/workflows/dying_server.py", "-n", "0", "-vv"]
    inner = subprocess.run(
        [*command, "--durations", "0", "-p", "no:cacheprovider"],
        cwd=HOME,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    sentence = (
        r"ServerDied: the test's server died: the development server \(process \d+\) was ended by SIGKILL"
    )
    assert re.search(sentence, inner.stdout), inner.stdout
    assert re.search(r"= 1 failed, 1 passed(?:, \d+ warnings?)? in ", inner.stdout), inner.stdout
    [seconds] = re.findall(r"([\d.]+)s call .*_is_killed", inner.stdout)
    assert float(seconds) < NAMED_WITHIN, inner.stdout


def test_a_server_that_ends_before_it_serves_is_named_at_once_with_what_it_said(tmp_path: Path) -> None:
    (tmp_path / "engine.sqlite").mkdir()
    server = Engine(tmp_path)
    server.start()
    try:
        with pytest.raises(ServerDied) as died:
            asyncio.run(server.client())
    finally:
        server.kill()
    assert re.search(
        r"the development server \(process \d+\) exited with 1: .*unable to open", str(died.value), re.DOTALL
    )
