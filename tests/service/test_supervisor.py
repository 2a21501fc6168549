"""What a process tells systemd, at a real socket, so that `systemctl start` returns when work is done."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.tree import ROOT
from tests.patience import PATIENCE

SAYS = """
from orchestrator.processes.supervisor import say_ready
say_ready("control")
"""


def said(address: str | None) -> tuple[str, str]:
    """Return what a process says that systemd gave this address: on standard output and on standard error."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    if address is not None:
        environment["NOTIFY_SOCKET"] = address
    done = subprocess.run(
        [sys.executable, "-c", SAYS],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    return done.stdout, done.stderr


@pytest.mark.parametrize("form", ["path", "abstract"])
def test_a_process_tells_systemd_and_whoever_reads_along_that_it_is_ready(form: str, tmp_path: Path) -> None:
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(f"\0{name}" if form == "abstract" else name)
        systemd.settimeout(5)
        assert said(f"@{name}" if form == "abstract" else name) == ("ready: control\n", "")
        assert systemd.recv(100) == b"READY=1\n"


def test_without_systemd_it_tells_nobody_else() -> None:
    assert said(None) == ("ready: control\n", "")


def test_a_systemd_that_is_away_does_not_end_the_process(tmp_path: Path) -> None:
    out, err = said(str(tmp_path / "none"))
    assert out == "ready: control\n"
    assert "systemd was not told that the process is ready" in err
