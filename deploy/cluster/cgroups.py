"""A node's place in every hierarchy of control groups: below this process's own, whose bounds hold there.

These are hierarchies of version 1 (cgroups(7)). On a machine that has only the one of version 2 no node was
ever run, and none is made.
"""

import time
from collections.abc import Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path

from policies.model.errors import BadInput, Unavailable

ROOT = Path("/sys/fs/cgroup")
_NEEDED = "memory"
_GONE_WITHIN = 5.0
_POLL = 0.02


def hierarchies() -> dict[str, Path]:
    """Return this process's own folder in each hierarchy, by the hierarchy's controllers.

    Raises:
        BadInput: this machine has no hierarchies of version 1.
    """
    rows = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    found = {
        controllers: ROOT / controllers.removeprefix("name=") / path.lstrip("/")
        for _, controllers, path in rows
        if controllers
    }
    if _NEEDED not in found or not all(folder.is_dir() for folder in found.values()):
        raise BadInput(
            f"{ROOT} has no hierarchy of version 1 for each controller, without which no node was ever run: "
            "boot with systemd.unified_cgroup_hierarchy=0, or leave real nodes to another machine"
        )
    return found


def make(name: str) -> list[Path]:
    """Make a group of that name in each hierarchy and return the folders; those that are there stay."""
    return [_made(own / name) for own in hierarchies().values()]


def members(name: str) -> list[int]:
    """Return the pids, as this process has them, of everything in the group of that name and below it."""
    top = hierarchies()[_NEEDED] / name
    files = [folder / "cgroup.procs" for folder in (top, *_below(top))]
    return [int(pid) for file in files for pid in _text(file).split()]


def leftovers(pattern: str) -> list[Path]:
    """Return every group of such a name and all below it, wherever an earlier process was; the deepest first.

    The pattern is a shell's, as `pstk-*`.
    """
    tops = [path for root in ROOT.iterdir() for path in _named(root, pattern)]
    return [one for top in tops for one in (*sorted(_below(top), reverse=True), top)]


def remove(pattern: str) -> None:
    """Remove every group of such a name, with all below; their processes have ended.

    Raises:
        Unavailable: one cannot be removed, because something lives in it.
    """
    deadline = time.monotonic() + _GONE_WITHIN
    while left := leftovers(pattern):
        for folder in left:
            with suppress(OSError):
                folder.rmdir()
        if time.monotonic() > deadline:
            raise Unavailable(
                f"{left[-1]} cannot be removed: see which processes it has, end them, try again"
            )
        time.sleep(_POLL)


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for setting in ("cpuset.cpus", "cpuset.mems"):  # a group without these takes no process in
        if (folder / setting).is_file():
            (folder / setting).write_text((folder.parent / setting).read_text())
            (folder / "cgroup.clone_children").write_text("1")
    return folder


def _named(folder: Path, pattern: str) -> Iterator[Path]:
    for child in _below_once(folder):
        if fnmatchcase(child.name, pattern):
            yield child
        else:
            yield from _named(child, pattern)


def _below(folder: Path) -> Iterator[Path]:
    for child in _below_once(folder):
        yield child
        yield from _below(child)


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""  # its group went away meanwhile


def _below_once(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]
    except OSError:
        return []  # it went away meanwhile
