"""Make the image of the agents of a cluster: their environment, and the programs that they call, in one.

Node agents and the cluster's driver run from it: `python -m deploy.debian.image INTO`. Its lower layer is
Debian's packages, which change seldom; the upper one is ours. No engine is needed, and no script of a
package runs: what one would have made that is needed here, is made here.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from deploy.debian import environment
from deploy.debian.__main__ import epoch
from deploy.debian.contents import OF_A_CLUSTERS_DRIVER, PACKAGES
from deploy.debian.lock import locked
from deploy.debian.wheel import ROOT, WHEELS, built
from deploy.lab import packages
from orchestrator.publishing import layers
from orchestrator.publishing.debian import unpack
from orchestrator.publishing.image import BuiltImage, ImageLabels, assemble, write_layout
from orchestrator.publishing.layers import Entry
from orchestrator.publishing.packing import LEFT_OUT
from orchestrator.publishing.registry import Registry
from orchestrator.publishing.tree import lay_out
from policies.model.errors import PenstockError, Unavailable
from policies.trust.images import parse_image

SUITE = "bookworm"
"""Whose python is the one that the environment is made for."""
DEBIAN = ROOT / ".state" / "image-packages"
PROGRAMS = (
    *("openconnect", "nftables", "iproute2", "iputils-ping", "ocserv", "ca-certificates", "python3"),
    *("dash", "coreutils", "grep", "sed", "util-linux"),
)
"""Packages by name, with all they depend on: what probes and steers, and what runs it."""
_ON_HOSTS = next(one for one in PACKAGES if one.name == "penstock-agent")
AGENT = replace(
    _ON_HOSTS,
    requirements=("--only-group", "cluster"),
    left_out=tuple(path for path in _ON_HOSTS.left_out if path not in OF_A_CLUSTERS_DRIVER),
)
"""The agent's environment, with what the cluster's driver needs beside it."""
COMMAND = f"/{AGENT.environment}/penstock"
NEVER_READ = (
    *LEFT_OUT,
    *("etc/cron.daily", "etc/init.d", "etc/logrotate.d", "etc/ocserv", "etc/pam.d", "etc/udev"),
    *("usr/lib/udev", "usr/lib/systemd", "usr/share/bash-completion", "usr/share/zsh", "usr/share/perl5"),
    *("usr/include", "usr/share/debconf", "usr/share/dpkg", "usr/lib/dpkg", "var/lib/dpkg", "var/cache"),
)
"""Parts of these packages that nothing in a container reads; no daemon is started from this image."""
ACCOUNTS = {
    "etc/passwd": "root:x:0:0:root:/:/usr/sbin/nologin\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
}
AUTHORITIES = "etc/ssl/certs/ca-certificates.crt"


def main() -> None:
    """Make the image in a folder of the OCI layout, push it where that was asked, and print its digest."""
    parser = argparse.ArgumentParser(prog="python -m deploy.debian.image", description=__doc__)
    parser.add_argument("into", type=Path, help="folder for the image, in the OCI layout")
    parser.add_argument("--push", metavar="REPOSITORY", help="oci://host/name, or oci+http://host:port/name")
    asked = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="penstock-image-") as blobs:
            image = make(Path(blobs), epoch())
            write_layout(image, asked.into)
            if asked.push:
                Registry.of(asked.push).push_image(image.manifest, parse_image(image.manifest), image.blobs)
    except PenstockError as error:
        sys.exit(f"image: {error}")
    print(image.digest)


def make(blobs: Path, moment: int) -> BuiltImage:
    """Return the agents' image; its blobs are written to the folder.

    Raises:
        PenstockError: Something is missing; the sentence says what.
    """
    files = packages.fetch(DEBIAN, PROGRAMS, SUITE)
    requirements = locked(ROOT, AGENT.requirements)
    environment.fetch(requirements, WHEELS)
    with tempfile.TemporaryDirectory(prefix="penstock-root-") as folder:
        root, own = Path(folder, "root"), Path(folder, "own")
        lay_out(root)
        unpack(files, root)
        wheel = built(Path(folder), moment)
        environment.install(AGENT, requirements, WHEELS, wheel, own)
        _compile(root, root, "usr/lib/python3.11", "usr/lib/python3")
        _compile(root, own, f"{AGENT.environment}/lib")
        made = [
            layers.write([*layers.below(root, NEVER_READ), *_made_by_scripts(root)], blobs),
            layers.write([*layers.below(own), _on_the_path()], blobs),
        ]
    return assemble(made, [COMMAND], ImageLabels(AGENT.name, version("penstock")), blobs)


def _compile(root: Path, tree: Path, *folders: str) -> None:
    """Compile modules below the tree by the root's own python, as a package's script would at installation.

    Containers cannot write beside them, and would compile each at every start. One after the other, in one
    process: what shares a string with modules before it is written otherwise.
    """
    loader, libraries = root / "lib64/ld-linux-x86-64.so.2", root / "usr/lib/x86_64-linux-gnu"
    python = [loader, "--library-path", libraries, root / "usr/bin" / environment.PYTHON]
    words = ["-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "-s", tree, "-p", "/"]
    command = [str(word) for word in (*python, *words, *(tree / folder for folder in folders))]
    own = {"PYTHONHOME": str(root / "usr"), "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, env=own, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"modules cannot be compiled: {(done.stdout + done.stderr).strip()[:200]}")


def _made_by_scripts(root: Path) -> Iterator[Entry]:
    """Yield what the scripts of the packages would have made: accounts, and the authorities in one file."""
    for path, content in ACCOUNTS.items():
        yield Entry(path, 0o644, content.encode())
    found = sorted((root / "usr/share/ca-certificates").rglob("*.crt"))
    yield Entry(AUTHORITIES, 0o644, b"".join(file.read_bytes() for file in found))
    yield Entry("tmp", 0o1777)


def _on_the_path() -> Entry:
    return Entry("usr/bin/penstock", 0o777, target=f"../..{COMMAND}")


if __name__ == "__main__":
    main()
