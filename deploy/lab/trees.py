"""The lab's two trees: this Debian's own ocserv, and the next Debian's of pinned packages."""

import re
import shutil
import subprocess
from pathlib import Path

from deploy.lab import packages
from orchestrator.publishing.debian import unpack
from orchestrator.publishing.linking import Root
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


def collect_next_tree(into: Path, cache: Path, lock: packages.Lock | None = None) -> str:
    """Make a tree of the next Debian's ocserv from its pinned packages; return its version.

    Raises:
        BadInput: the lock is for another architecture.
        Unavailable: a package cannot be had with its pinned digest.
    """
    files = packages.fetch(lock or packages.read_lock(), cache)
    with packages.scratch(cache) as home:
        root = home / "root"
        lay_out(root)
        unpack(files, root)
        return _collect(root, into)


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


def linked_packages(found: list[tuple[str, Path]], scratch: Path) -> set[str]:
    """Return the names of those packages from which the programs take themselves or a library."""
    root = scratch / "root"
    lay_out(root)
    unpack([file for _, file in found], root)
    wanted = {(root / path).resolve() for path in Root(root).closure(PROGRAMS).found}
    linked = set()
    for name, file in found:
        alone = scratch / name
        lay_out(alone)
        unpack([file], alone)
        mine = {root / path.relative_to(alone) for path in alone.rglob("*") if path.is_file()}
        if wanted & mine:
            linked.add(name)
    return linked


def _collect(root: Path, into: Path) -> str:
    if into.exists():
        shutil.rmtree(into)
    collect(root, into)
    return version(into)
