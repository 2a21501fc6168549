"""Root folders of a daemon: what a release of it is made of.

A tree holds the daemon's programs, the loader and the libraries that they ask for, and two account
files, so that `chroot TREE /usr/sbin/ocserv` runs on any host of the same processor. Nothing of it runs
while it is made. The same files always give the same tree, byte for byte, times and modes included.
"""

import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from orchestrator.publishing.linking import Closure, Root
from policies.model.errors import BadInput

PROGRAMS = ("usr/sbin/ocserv", "usr/sbin/ocserv-worker", "usr/bin/occtl")
"""What an ocserv is; penstock asks occtl."""
MOUNT_POINTS = ("dev", "proc", "sys", "run/penstock", "etc/penstock")
_MERGED = ("bin", "sbin", "lib", "lib64")
_ACCOUNTS = {
    "passwd": "root:x:0:0:root:/:/usr/sbin/nologin\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
    "group": "root:x:0:\nnogroup:x:65534:\n",
}
_NAMED = 5
"""Missing libraries that a sentence names; more are counted."""


@dataclass(frozen=True)
class Tree:
    """A tree that was made: how many files and bytes it has, and for which platform its programs are."""

    files: int
    size: int
    platform: str


def collect(root: Path, into: Path, programs: Sequence[str] = PROGRAMS, also: Sequence[str] = ()) -> Tree:
    """Make a tree at `into` of these programs of a root folder, with all that they load.

    `also` names files and folders of the root that come along: what programs open later, such as modules
    of PAM. The tree is there whole or not at all.

    Raises:
        BadInput: a program or library is not in the root; `into` is there already.
    """
    if into.exists() and any(into.iterdir()):
        raise BadInput(f"{into} is there already; name a folder that is not, or remove it")
    seen = Root(root)
    extra = [path for name in also for path in _files(seen, name)]
    programs = [program.strip("/") for program in programs]
    closure = seen.closure(programs, [path for path in extra if seen.asked(path) is not None])
    require_whole(closure, root)
    with _appearing(into) as making:
        lay_out(making)
        for path in sorted({*closure.found, *extra}):
            place = making / _under_usr(path)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / seen.place(path), place)
            runs = path in closure.found or (root / seen.place(path)).stat().st_mode & stat.S_IXUSR
            place.chmod(0o755 if runs else 0o644)
        for name, content in _ACCOUNTS.items():
            (making / "etc" / name).write_text(content)
        _settle(making)
        files = [path for path in making.rglob("*") if path.is_file() and not path.is_symlink()]
        size = sum(path.stat().st_size for path in files)
    return Tree(len(files), size, f"linux/{min(closure.processors, default='amd64')}")


def require_whole(closure: Closure, root: Path) -> None:
    """Refuse a root that lacks what its programs ask for, or has programs of several processors.

    Raises:
        BadInput: with each file that is missing, and who needs it.
    """
    if closure.missing:
        named = ", ".join(str(one) for one in closure.missing[:_NAMED])
        more = f" and {len(closure.missing) - _NAMED} more" if len(closure.missing) > _NAMED else ""
        raise BadInput(
            f"{root} lacks {named}{more}; put them there: `penstock release tree` makes a whole one of "
            "packages or of a folder"
        )
    if len(closure.processors) > 1:
        raise BadInput(
            f"{root} has programs for {' and '.join(sorted(closure.processors))}; a release has one"
        )


def lay_out(root: Path) -> None:
    """Make the folders and the links of a merged /usr, which belong to no package of the closure."""
    for folder in (*MOUNT_POINTS, "etc", *(f"usr/{name}" for name in _MERGED)):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name in _MERGED:
        (root / name).symlink_to(f"usr/{name}")


@contextmanager
def _appearing(into: Path) -> Iterator[Path]:
    """Give a folder beside the wanted one that takes its name when all went well, and is removed when not."""
    into.parent.mkdir(parents=True, exist_ok=True)
    making = into.with_name(f".{into.name}.{secrets.token_hex(4)}")
    making.mkdir()
    try:
        yield making
        making.replace(into)
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _files(root: Root, name: str) -> list[str]:
    """Return the files at or below a path of the root."""
    path = name.strip("/")
    place = root.path / root.place(path)
    if place.is_dir():
        below = [f"{path}/{one.relative_to(place).as_posix()}" for one in place.rglob("*")]
        return [one for one in below if root.has(one)]  # as a process with this root sees it
    if place.is_file():
        return [path]
    raise BadInput(f"{root.path} has no {path}; leave it out, or add the package that has it")


def _under_usr(path: str) -> str:
    """Return the path in a tree whose /bin, /sbin and /lib are links into /usr."""
    return f"usr/{path}" if path.partition("/")[0] in _MERGED else path


def _settle(tree: Path) -> None:
    """Give everything one time, one owner and one of three modes, so that equal content is an equal tree.

    Only root can give files away; the owner is in no release, and whoever installs one is root there.
    """
    for path in [*tree.rglob("*"), tree]:
        if not path.is_symlink():
            runs = path.is_dir() or bool(path.stat().st_mode & stat.S_IXUSR)
            path.chmod(0o755 if runs else 0o644)
        if os.geteuid() == 0:
            os.chown(path, 0, 0, follow_symlinks=False)
        os.utime(path, (0, 0), follow_symlinks=False)
