"""The embedded default: `penstock serve` with its engine, its lock and its supervision."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from activities.files import load
from deploy.ports import free_port
from policies.model.fleet import Fleet

FLEET = """\
name: edge
product: ocserv
gateways:
  - name: gw-1
    addresses: [192.0.2.1]
    slots:
      - {name: a, port: 4431, device: vpna, pool4: 10.1.0.0/24}
      - {name: b, port: 4432, device: vpnb, pool4: 10.2.0.0/24}
"""


def settings(folder: Path, port: int) -> dict[str, str]:
    (folder / "fleet.yaml").write_text(FLEET)
    load(folder / "fleet.yaml", Fleet)
    (folder / "trust.yaml").write_text("version: 1\nrules: []\n")
    return {
        **os.environ,
        "PENSTOCK_STATE": str(folder / "state"),
        "PENSTOCK_FLEET": str(folder / "fleet.yaml"),
        "PENSTOCK_TRUST": str(folder / "trust.yaml"),
        "PENSTOCK_TEMPORAL_ADDRESS": f"127.0.0.1:{port}",
        "PENSTOCK_LEDGER_URL": f"sqlite:///{folder / 'ledger.db'}",
    }


def serve(environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "orchestrator", "serve"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def said_until(process: subprocess.Popen[str], words: str) -> None:
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if words in line:
            return
    raise AssertionError(f"{words!r} was never said: {said}")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], dict[str, str], int]]:
    port = free_port()
    environment = settings(tmp_path, port)
    process = serve(environment)
    try:
        said_until(process, "ready: control")
        yield process, environment, port
    finally:
        process.terminate()
        process.wait(30)


def engine_of(process: subprocess.Popen[str]) -> int:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return next(int(pid) for pid in children if b"start-dev" in Path(f"/proc/{pid}/cmdline").read_bytes())


def listens(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.sweep
def test_what_it_writes_is_read_by_nobody_else_and_its_socket_is_reached(
    served: tuple[subprocess.Popen[str], dict[str, str], int],
) -> None:
    """M6: at umask 022 `ledger.db` was 0644, with users' names and addresses."""
    _, environment, _ = served
    state = Path(environment["PENSTOCK_STATE"])
    files = [state.parent / "ledger.db", *(path for path in state.rglob("*") if path.is_file())]
    assert [path for path in files if path.stat().st_mode & 0o077] == []
    assert (state / "penstock.sock").stat().st_mode & 0o006
    assert state.stat().st_mode & 0o777 == 0o711


@pytest.mark.sweep
def test_an_engine_that_dies_is_started_again(
    served: tuple[subprocess.Popen[str], dict[str, str], int],
) -> None:
    process, _, port = served
    os.kill(engine_of(process), signal.SIGKILL)
    said_until(process, "started again")
    deadline = time.monotonic() + 20
    while not listens(port):
        assert time.monotonic() < deadline, "the engine did not come back"
        time.sleep(0.1)


@pytest.mark.sweep
def test_a_second_one_on_the_same_state_is_refused_and_told_why(
    served: tuple[subprocess.Popen[str], dict[str, str], int],
) -> None:
    _, environment, _ = served
    second = serve({**environment, "PENSTOCK_TEMPORAL_ADDRESS": f"127.0.0.1:{free_port()}"})
    said, _ = second.communicate(timeout=30)
    assert second.returncode == 9, said
    assert "is in use by another penstock serve" in said


@pytest.mark.sweep
def test_a_port_that_is_taken_is_named_and_nothing_is_started(tmp_path: Path) -> None:
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        port = stranger.getsockname()[1]
        process = serve(settings(tmp_path, port))
        said, _ = process.communicate(timeout=30)
    assert process.returncode == 2, said
    assert f"port {port} of 127.0.0.1 is in use" in said


@pytest.mark.sweep
def test_without_a_fleet_it_says_what_to_write(tmp_path: Path) -> None:
    environment = settings(tmp_path, free_port()) | {"PENSTOCK_FLEET": str(tmp_path / "none.yaml")}
    process = serve(environment)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 2, said
    assert "there is no" in said
    assert said.count("\n") == 1


@pytest.mark.sweep
def test_sigterm_ends_engine_and_worker(tmp_path: Path) -> None:
    port = free_port()
    process = serve(settings(tmp_path, port))
    said_until(process, "ready: control")
    process.terminate()
    assert process.wait(30) == 0
    assert not listens(port)
