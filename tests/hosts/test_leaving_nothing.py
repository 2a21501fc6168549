"""A booted host leaves nothing behind, however its test ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hosts.host import Host
from tests.house.leftovers import nothing_is_left
from tests.lab.network import network
from tests.patience import wait_until

PREFIX = "psto-"
ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.lab, pytest.mark.sweep]


def groups() -> set[str]:
    """Every control group of a host of ours on this machine, as the kernel lists them anywhere."""
    listed = subprocess.run(
        ["unshare", "--mount", "sh", "-c", "mount -t cgroup2 none /mnt && ls /mnt"],
        text=True,
        capture_output=True,
        check=True,
    ).stdout.split()
    return {name for name in listed if name.startswith(f"penstock-{PREFIX}")}


def test_nothing_is_left_of_a_host_that_was_closed(image: Path, tmp_path: Path) -> None:
    with network(PREFIX) as topology, nothing_is_left(PREFIX):
        with Host(topology.gateways[0], topology, image, tmp_path) as host:
            host.boot()
            assert len(groups()) == 1
            host.power_off()
            assert not host.is_on
        assert groups() == set()


_KILLED = """
import sys, time
from pathlib import Path
from deploy.lab.topology import Topology
from tests.hosts.host import Host
topology = Topology(gateways=1, sites=1, prefix="psto-")
host = Host(topology.gateways[0], topology, *map(Path, sys.argv[1:]))
host.boot()
print("booted", flush=True)
time.sleep(600)
"""


def test_nothing_is_left_of_a_host_whose_test_was_killed(image: Path, tmp_path: Path) -> None:
    with network(PREFIX), nothing_is_left(PREFIX):
        test = subprocess.Popen(
            [sys.executable, "-c", _KILLED, image, tmp_path], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert test.stdout
        assert test.stdout.readline() == "booted\n"
        assert len(groups()) == 1
        os.kill(test.pid, signal.SIGKILL)
        test.wait()
        wait_until(lambda: not groups(), found=groups)
