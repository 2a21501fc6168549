"""What tests on booted hosts start from: the image, the programs that boot it, and a host that many share."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.lab import credentials
from deploy.lab.daemons.ocserv import LabOcserv
from tests.hosts import image as recipe
from tests.hosts import ocserv
from tests.hosts.host import Host
from tests.lab.network import network

PREFIX = "psty-"

PROGRAMS = {
    "debootstrap": "debootstrap",
    "systemd-nspawn": "systemd-container",
    "conntrack": "conntrack",
}
"""The programs that booted hosts need beside the lab's, each with the Debian package that brings it."""


DISK = Path(__file__).with_name("disk.sh")
_TRY = """
set -eu
image=$1
. "$2"
systemd-nspawn --quiet --register=no --keep-unit --private-network --directory=/mnt/disk /bin/true
"""
"""What keeper.sh and a boot ask of a machine, and nothing of ours."""


@pytest.fixture(scope="session")
def image() -> Path:
    """The hosts' image, made if it is missing; skip where this machine cannot boot it, and say why."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    if missing := sorted(package for name, package in PROGRAMS.items() if not shutil.which(name, path=path)):
        pytest.skip(f"programs are missing: `apt-get install --no-install-recommends {' '.join(missing)}`")
    made = recipe.image()
    tried = subprocess.run(
        ["unshare", "--mount", "sh", "-c", _TRY, "sh", made, Path(__file__).with_name("disk.sh")],
        capture_output=True,
        text=True,
        check=False,
    )
    if tried.returncode:
        pytest.skip(f"this machine starts no system in a container: {tried.stderr.strip()}")
    return made


@pytest.fixture(scope="package")
def booted(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """One host with Debian's ocserv on 443, for all tests here that need no other one beside it."""
    scratch = tmp_path_factory.mktemp("booted")
    with network(PREFIX, gateways=1, sites=1) as topology:
        given = credentials.issue(topology, scratch / "credentials", LabOcserv(), people=0)
        with Host(topology.gateways[0], topology, image, scratch) as host:
            ocserv.set_up(host, given, 1)
            host.boot()
            host.wait_for(ocserv.UNIT)
            yield host
