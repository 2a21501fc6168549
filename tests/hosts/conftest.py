"""What tests on booted hosts start from: the image, and the programs that boot it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.hosts import image as recipe

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
