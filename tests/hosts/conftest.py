"""What tests on booted hosts start from: the image, the programs that boot it, and a host that many share."""

import os
import shutil
import subprocess
from collections.abc import Generator, Iterator
from functools import cache
from pathlib import Path

import pytest

from deploy.lab import credentials
from deploy.lab.daemons.ocserv import LabOcserv
from policies.model.errors import PenstockError
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


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Make the hosts' image before a test's own time runs: a busy machine takes longer than a test may."""
    if "image" in getattr(item, "fixturenames", ()) and not _missing():
        _image()
    return (yield)


def _missing() -> list[str]:
    """Return the Debian packages of programs that are not here."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    return sorted(package for name, package in PROGRAMS.items() if not shutil.which(name, path=path))


@cache
def _image() -> Path | PenstockError:
    """Return the image, or why it cannot be made: one try for all tests of this process."""
    try:
        return recipe.image()
    except PenstockError as why:
        return why


@pytest.fixture(scope="session")
def image() -> Path:
    """The hosts' image, made if it is missing; skip where this machine cannot boot it, and say why."""
    if missing := _missing():
        pytest.skip(f"programs are missing: `apt-get install --no-install-recommends {' '.join(missing)}`")
    made = _image()
    if isinstance(made, PenstockError):
        raise made
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
