"""The image of a cluster's agents: the same bytes each time, and all in it that an agent calls runs."""

import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.debian import image
from orchestrator.publishing.image import BuiltImage
from policies.trust.images import parse_image

MOMENT = 1_700_000_000
MOST_PULLED = 130_000_000
"""Bytes that a node fetches for its first agent; Debian's part of it stays when ours changes."""

pytestmark = [
    pytest.mark.sweep,
    pytest.mark.timeout(1800),  # packages and wheels come from their indexes, the first time
    pytest.mark.skipif(os.geteuid() != 0, reason="runs the image's programs in a chroot"),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    return image.make(tmp_path_factory.mktemp("image"), MOMENT)


@pytest.fixture(scope="module")
def root(made: BuiltImage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a container sees: the layers, one over the other."""
    folder = tmp_path_factory.mktemp("root")
    for layer in parse_image(made.manifest).layers:
        with tarfile.open(made.blobs[layer.digest]) as archive:
            archive.extractall(folder, filter="tar")
    return folder


def inside(root: Path, *command: str) -> str:
    """Run a program of the image with its root as its own; return what it says."""
    environment = {"PATH": "/usr/sbin:/usr/bin"}
    done = subprocess.run(
        ["chroot", root, *command], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_the_same_packages_and_checkout_give_the_same_image(made: BuiltImage, tmp_path: Path) -> None:
    assert image.make(tmp_path, MOMENT).manifest == made.manifest


def test_a_node_pulls_no_more_than_it_has_to(made: BuiltImage) -> None:
    assert sum(layer.size for layer in parse_image(made.manifest).layers) < MOST_PULLED


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("penstock", "--help"), "agent"),
        (("penstock", "agent", "run", "--help"), "agent"),
        (("openconnect", "--version"), "OpenConnect version"),
        (("nft", "--version"), "nftables"),
        (("occtl", "--version"), "occtl"),
        (("ip", "-V"), "iproute2"),
        (("ss", "-V"), "iproute2"),
        (("ping", "-V"), "ping from iputils"),
        (("unshare", "--version"), "util-linux"),
        (("grep", "--version"), "GNU grep"),
        (("sed", "--version"), "GNU sed"),
        (("sh", "-c", "test -x /usr/share/vpnc-scripts/vpnc-script && echo there"), "there"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_everything_that_an_agent_calls_runs_in_the_image(
    root: Path, command: tuple[str, ...], said: str
) -> None:
    assert said in inside(root, *command)


def test_the_environment_loads_what_agents_and_the_clusters_driver_import(root: Path) -> None:
    modules = "temporalio.client, kubernetes.client, sigstore.verify, pysequoia, cryptography, grpc, httpx"
    python = "/usr/lib/penstock-agent/bin/python"
    assert "all" in inside(root, python, "-I", "-c", f"import {modules}; print('all')")


def test_the_image_trusts_the_authorities_that_debian_trusts(root: Path) -> None:
    count = "import ssl; print(len(ssl.create_default_context().get_ca_certs()))"
    assert int(inside(root, "/usr/bin/python3", "-I", "-c", count)) > 100


def test_the_image_starts_penstock_and_nothing_in_it_gains_rights(made: BuiltImage, root: Path) -> None:
    config = json.loads(made.blobs[parse_image(made.manifest).config.digest].read_bytes())
    assert (root / config["config"]["Entrypoint"][0].lstrip("/")).is_file()
    assert [path for path in _files(root) if path.lstat().st_mode & 0o6000] == []


def _files(root: Path) -> Iterator[Path]:
    return (path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
