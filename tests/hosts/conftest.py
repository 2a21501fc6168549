"""What tests on booted hosts start from: the image, and the programs that boot it."""

import os
import shutil
from pathlib import Path

import pytest

from tests.hosts import image as recipe

PROGRAMS = {
    "debootstrap": "debootstrap",
    "systemd-nspawn": "systemd-container",
    "conntrack": "conntrack",
}
"""The programs that booted hosts need beside the lab's, each with the Debian package that brings it."""


@pytest.fixture(scope="session")
def image() -> Path:
    """The hosts' image, made if it is missing; skip where this machine cannot boot it, and say why."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    if missing := sorted(package for name, package in PROGRAMS.items() if not shutil.which(name, path=path)):
        pytest.skip(f"programs are missing: `apt-get install --no-install-recommends {' '.join(missing)}`")
    return recipe.image()
