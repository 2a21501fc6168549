"""Write beneath one folder only: the kernel refuses every way that leads out of it, or through a link.

openat2(2) with RESOLVE_BENEATH resolves a path as a whole, so that nobody can put a link on the way after
it was looked at. Neither Python nor the C library of Debian 12 has it by name: it is called by its number.
"""

import contextlib
import ctypes
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from activities.refusals import ArchiveRefused
from policies.model.errors import BadInput

OPENAT2 = 437
"""The same on every processor that Linux 5.6 and later run on."""
NO_MAGIC_LINKS, NO_SYMLINKS, BENEATH = 0x02, 0x04, 0x08
"""How a path may not be resolved, from linux/openat2.h."""
FOLDER_MODE = 0o755
"""A daemon that has given up its rights reads its own files."""

MOST_TRIES = 1_000
"""Of one path with `..` in it, which the kernel refuses to follow (EAGAIN, openat2(2)) while anything on this
host is mounted or renamed: each takes a microsecond, and the caller is told to try again."""

_LEADS_ELSEWHERE = {
    *(errno.EXDEV, errno.ELOOP, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG),
    *(errno.ENOENT, errno.EINVAL, errno.ENOTEMPTY),
}
"""What no good path can end in, since every folder of it was made just before."""

_libc = ctypes.CDLL(None, use_errno=True)


class _How(ctypes.Structure):
    """`struct open_how`."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


class Beneath:
    """A folder, and what is written below it by relative paths.

    Whatever leads out of the folder, through a link or to something else that is there raises ArchiveRefused,
    and OSError tells of a disk that takes nothing.
    """

    def __init__(self, folder: Path) -> None:
        """Open the folder, which must be there."""
        self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._made = {""}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._folder)

    def create(self, path: str) -> int:
        """Return a descriptor to write a new file with, which only we may read yet; its folders are made."""
        self.make_folders(path.rpartition("/")[0])
        return self._open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)

    def link(self, path: str, target: str) -> None:
        """Make a symbolic link; its folders are made, and its target is not looked at."""
        folder, _, name = path.rpartition("/")
        self.make_folders(folder)
        with self._inside(folder, path) as parent:
            os.symlink(target, name, dir_fd=parent)

    def rename(self, path: str, name: str) -> None:
        """Give a file another name in its folder, in place of the file or link that had it."""
        folder, _, before = path.rpartition("/")
        with self._inside(folder, path) as parent:
            os.rename(before, name, src_dir_fd=parent, dst_dir_fd=parent)

    def remove(self, path: str) -> None:
        """Ensure that there is no such file."""
        folder, _, name = path.rpartition("/")
        with self._inside(folder, path) as parent, contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=parent)

    def make_folders(self, path: str) -> None:
        """Ensure that the folder and those above it are there."""
        if path in self._made:
            return
        above, _, name = path.rpartition("/")
        self.make_folders(above)
        with self._inside(above, path) as parent, contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=parent)
            os.chmod(name, FOLDER_MODE, dir_fd=parent)
        os.close(self._open(path, os.O_PATH | os.O_DIRECTORY, 0))
        self._made.add(path)

    @contextlib.contextmanager
    def _inside(self, folder: str, path: str) -> Iterator[int]:
        """Give the folder opened; what goes wrong in the block is said of the path."""
        parent = self._open(folder, os.O_PATH | os.O_DIRECTORY, 0) if folder else os.dup(self._folder)
        try:
            yield parent
        except OSError as error:
            raise _meaning(error, path) from error
        finally:
            os.close(parent)

    def _open(self, path: str, flags: int, mode: int) -> int:
        how = _How(flags | os.O_CLOEXEC, mode, BENEATH | NO_SYMLINKS | NO_MAGIC_LINKS)
        size = ctypes.sizeof(how)
        for _ in range(MOST_TRIES):
            found = int(_libc.syscall(OPENAT2, self._folder, os.fsencode(path), ctypes.byref(how), size))
            if found >= 0:
                return found
            code = ctypes.get_errno()
            if code != errno.EAGAIN:
                break
        if code == errno.ENOSYS:
            raise BadInput(
                f"Linux {os.uname().release} cannot write a release beneath one folder only (openat2): that "
                "takes Linux 5.6, and a unit that does not forbid it, as RestrictSUIDSGID=yes does"
            )
        error = OSError(code, os.strerror(code), path)
        raise _meaning(error, path) from error


def _meaning(error: OSError, path: str) -> Exception:
    """Return what the error means: a path that leads elsewhere, or a disk that takes nothing."""
    if error.errno not in _LEADS_ELSEWHERE:
        return error
    return ArchiveRefused(
        f"{path[:80]!r} is not beneath the release's own folder ({error.strerror}); have the release mended",
        reason="beneath",
    )
