"""A run leaves the machine as it found it, and the means by which that is checked do notice."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from deploy.lab import namespaces, preflight
from deploy.lab.topology import Claim, Topology
from policies.model.errors import BadInput
from tests.house.leftovers import nothing_is_left
from tests.patience import wait_until

PREFIX = "pstl-"
ROOT = Path(__file__).parents[2]
LAB = f"""
import sys, time
from pathlib import Path
from deploy.lab import namespaces
from deploy.lab.processes import Process
from deploy.lab.topology import Claim, Topology
topology = Topology(gateways=2, sites=2, prefix={PREFIX!r})
topology.build()
Process("covered", ["sleep", "600"], log=Path(sys.argv[1], "log"), namespace="{PREFIX}hub").start()
stray = ["sh", "-c", "setsid sleep 601 & sleep 602"]
Process("parent of a stray", stray, log=Path(sys.argv[1], "log"), namespace="{PREFIX}gw-1").start()
while not namespaces.inhabitants(["{PREFIX}hub"]) or len(namespaces.inhabitants(["{PREFIX}gw-1"])) < 2:
    time.sleep(0.01)
print("built", flush=True)
time.sleep(600)
"""


@pytest.fixture
def lab(tmp_path: Path) -> subprocess.Popen[str]:
    try:
        preflight.examine()
    except BadInput as obstacle:
        pytest.skip(str(obstacle))
    command = [sys.executable, "-c", LAB, str(tmp_path)]
    maker = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert maker.stdout
    assert maker.stdout.readline() == "built\n"
    return maker


@pytest.mark.lab
def test_what_a_killed_lab_leaves_is_found_and_removed_by_the_next(lab: subprocess.Popen[str]) -> None:
    lab.send_signal(signal.SIGKILL)
    lab.wait()
    topology = Topology(gateways=1, sites=1, prefix=PREFIX)
    names = topology.leftovers()
    strays = namespaces.inhabitants(names)
    try:
        assert len(names) == 6
        assert strays, "the stray should have outlived its lab, or this test proves nothing"
        topology.build()
        assert len(topology.leftovers()) == 4
        assert not [pid for pid in strays if _is_alive(pid)]
    finally:
        topology.tear_down()
    assert topology.leftovers() == []


@pytest.mark.lab
def test_programs_of_a_lab_die_with_it(lab: subprocess.Popen[str]) -> None:
    topology = Topology(gateways=2, sites=2, prefix=PREFIX)
    (covered,) = namespaces.inhabitants([f"{PREFIX}hub"])
    lab.send_signal(signal.SIGKILL)
    lab.wait()
    try:
        wait_until(lambda: not _is_alive(covered))
    finally:
        topology.tear_down()


@pytest.mark.lab
def test_a_lab_that_ends_in_order_leaves_nothing(lab: subprocess.Popen[str]) -> None:
    lab.kill()
    lab.wait()
    Topology(prefix=PREFIX).tear_down()
    with nothing_is_left(PREFIX):
        topology = Topology(gateways=2, sites=2, prefix=PREFIX)
        topology.build()
        topology.tear_down()


@pytest.mark.lab
def test_a_forgotten_namespace_is_noticed() -> None:
    try:
        with (
            pytest.raises(AssertionError, match="namespaces: pstl-forgotten"),
            nothing_is_left(PREFIX, within=0.2),
        ):
            subprocess.run(["ip", "netns", "add", "pstl-forgotten"], check=True)
    finally:
        subprocess.run(["ip", "netns", "del", "pstl-forgotten"], check=True)


def test_a_forgotten_process_is_noticed_even_when_its_parent_is_dead() -> None:
    script = ["sh", "-c", "sleep 603 >/dev/null 2>&1 & echo $!"]
    watch = nothing_is_left(PREFIX, within=0.2)
    watch.__enter__()
    started = int(subprocess.run(script, text=True, capture_output=True, check=True).stdout)
    try:
        with pytest.raises(AssertionError, match="sleep 603"):
            watch.__exit__(None, None, None)
    finally:
        os.kill(started, signal.SIGKILL)
        os.waitpid(started, 0)


def test_a_forgotten_temporary_folder_is_noticed() -> None:
    with (
        pytest.raises(AssertionError, match=r"folders: .*penstock-forgotten"),
        nothing_is_left(PREFIX, within=0.2),
    ):
        folder = tempfile.mkdtemp(prefix="penstock-forgotten-")
    Path(folder).rmdir()


@pytest.mark.lab
def test_another_lab_that_leaves_no_room_is_named_before_anything_is_looked_at() -> None:
    script = f"from tests.house.leftovers import *\nwith nothing_is_left({PREFIX!r}): print('in')"
    with Claim(PREFIX):
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=ROOT, text=True, capture_output=True, check=False
        )
    assert done.stdout == ""
    assert f"hindered by another lab on this machine (pid {os.getpid()}: " in done.stderr


def _is_alive(pid: int) -> bool:
    command = Path(f"/proc/{pid}/cmdline")
    try:
        return command.read_bytes() != b""
    except (FileNotFoundError, ProcessLookupError):
        return False
