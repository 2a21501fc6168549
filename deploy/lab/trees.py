"""The lab's two trees: this Debian's own ocserv, and the next Debian's."""

import re
import shutil
import subprocess
from pathlib import Path

from deploy.lab import packages
from orchestrator.publishing.debian import unpack
from orchestrator.publishing.image import shell_in
from orchestrator.publishing.tree import PROGRAMS, collect, lay_out
from policies.model.errors import BadInput


def collect_host_tree(into: Path) -> str:
    """Make a tree of this Debian's own ocserv; return its version.

    Raises:
        BadInput: ocserv is not installed.
    """
    if not Path("/", PROGRAMS[0]).is_file():
        raise BadInput("ocserv is not installed: `apt-get install ocserv`")
    return _collect(Path("/"), into)


def collect_next_tree(into: Path, cache: Path) -> str:
    """Make a tree of the next Debian's ocserv from the packages of the cache; return its version.

    Raises:
        BadInput: apt or the archive's keyring is not installed.
        Unavailable: the cache has them not, and neither has the archive.
    """
    files = packages.fetch(cache)
    with packages.scratch(cache) as home:
        root = home / "root"
        lay_out(root)
        unpack(files, root)
        return _collect(root, into)


def fetch_shell(into: Path, cache: Path) -> Path:
    """Return the static shell of the images, copied to this path from the packages of the cache.

    Raises what `collect_next_tree` does.
    """
    files = packages.fetch(cache, packages.SHELL)
    with packages.scratch(cache) as home:
        lay_out(home / "root")
        unpack(files, home / "root")
        return Path(shutil.copy(shell_in(home / "root"), into))


def version(tree: Path) -> str:
    """Return what the tree's ocserv says its version is.

    Raises:
        BadInput: it does not run on this machine.
    """
    done = subprocess.run(
        ["chroot", str(tree), "/usr/sbin/ocserv", "--version"], text=True, capture_output=True, check=False
    )
    said = done.stdout + done.stderr  # 1.1.6 says it on the one, 1.3.0 on the other
    found = re.search(r"(?:ocserv|Server) (\d[\w.]*)", said)
    if not found:
        raise BadInput(f"{tree}: its ocserv does not run here: {said.strip()[:200] or 'no output'}")
    return found[1]


def _collect(root: Path, into: Path) -> str:
    if into.exists():
        shutil.rmtree(into)
    collect(root, into)
    return version(into)
