"""Root folders of ocserv: what a release of it is made of.

A tree holds the three programs, the libraries they link to, the loader and two account files,
so that `chroot TREE /usr/sbin/ocserv` runs on any host of the same architecture. The same
packages always give the same tree, byte for byte, times and modes included.
"""

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

from deploy.lab import packages
from policies.model.errors import BadInput

PROGRAMS = ("usr/sbin/ocserv", "usr/sbin/ocserv-worker", "usr/bin/occtl")
MOUNT_POINTS = ("dev", "proc", "sys", "run/penstock", "etc/penstock")
_MERGED = ("bin", "sbin", "lib", "lib64")
_ACCOUNTS = {
    "passwd": "root:x:0:0:root:/:/usr/sbin/nologin\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
    "group": "root:x:0:\nnogroup:x:65534:\n",
}


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
        _lay_out(root)
        packages.unpack(files, root)
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
    _lay_out(root)
    packages.unpack([file for _, file in found], root)
    wanted = {(root / path).resolve() for path in _wanted(root)}
    linked = set()
    for name, file in found:
        alone = scratch / name
        _lay_out(alone)
        packages.unpack([file], alone)
        mine = {root / path.relative_to(alone) for path in alone.rglob("*") if path.is_file()}
        if wanted & mine:
            linked.add(name)
    return linked


def _collect(root: Path, into: Path) -> str:
    if into.exists():
        shutil.rmtree(into)
    _lay_out(into)
    for path in _wanted(root):
        place = into / path
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / path, place)
        place.chmod(0o755)
    for name, content in _ACCOUNTS.items():
        (into / "etc" / name).write_text(content)
    _settle(into)
    return version(into)


def _lay_out(root: Path) -> None:
    """Make the folders and the links of a merged /usr, which belong to no package of the closure."""
    for folder in (*MOUNT_POINTS, "etc", *(f"usr/{name}" for name in _MERGED)):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name in _MERGED:
        (root / name).symlink_to(f"usr/{name}")


def _wanted(root: Path) -> list[str]:
    """Return the paths, from the root, of the programs, their loader and every library they link to."""
    wanted = set(PROGRAMS)
    for program in PROGRAMS:
        loader = _loader(root / program)
        listed = subprocess.run(
            ["chroot", str(root), loader, "--list", f"/{program}"], text=True, capture_output=True, check=True
        )
        paths = [word for line in listed.stdout.splitlines() for word in line.split() if word.startswith("/")]
        wanted.update(_under_usr(path) for path in [loader, *paths])
    return sorted(wanted)


def _under_usr(path: str) -> str:
    bare = path.lstrip("/")
    return bare if bare.startswith("usr/") else f"usr/{bare}"


def _loader(program: Path) -> str:
    """Return the loader an ELF program asks for: the one string in it that says so."""
    content = program.read_bytes()
    start = content.index(b"/lib", 0, 4096)
    return content[start : content.index(b"\0", start)].decode()


def _settle(tree: Path) -> None:
    """Give everything one time, one owner and one of three modes, so that equal content is an equal tree."""
    for path in [*tree.rglob("*"), tree]:
        if not path.is_symlink():
            runs = path.is_dir() or bool(path.stat().st_mode & stat.S_IXUSR)
            path.chmod(0o755 if runs else 0o644)
        os.chown(path, 0, 0, follow_symlinks=False)
        os.utime(path, (0, 0), follow_symlinks=False)
