"""A growing log file, read line by line from a place that survives a restart of the reader."""

import os
from pathlib import Path
from typing import IO

from policies.lines import lines_in
from policies.model.value import Value

MOST_BYTES = 1 << 20
"""Read at most this much at once, so that a flood of lines cannot fill the memory."""


class Mark(Value):
    """How far a log was read: which file, and the offset after its last whole line."""

    inode: int
    offset: int


class LogTail:
    """Follows one path; a file that was replaced or cut is read from its beginning."""

    def __init__(self, path: Path, mark: Mark | None = None) -> None:
        """Begin at the mark if it is this file's, else at the beginning."""
        self._path = path
        self._file: IO[bytes] | None = None
        self._inode = -1
        self._offset = 0
        self._open()
        if mark and mark.inode == self._inode and mark.offset <= self._size():
            self._offset = mark.offset

    @property
    def mark(self) -> Mark:
        """How far the log has been read."""
        return Mark(inode=self._inode, offset=self._offset)

    def read(self) -> list[str]:
        """Return the whole lines written since the last call, at most `MOST_BYTES` of them."""
        if self._file is None:
            return []
        chunk = os.pread(self._file.fileno(), MOST_BYTES, self._offset)
        whole = chunk.rfind(b"\n") + 1
        if not whole and len(chunk) == MOST_BYTES:
            whole = len(chunk)
        self._offset += whole
        return lines_in(chunk[:whole].decode(errors="replace"))

    def skip(self) -> None:
        """Go to the end: nobody can say whose the lines before it are."""
        self._offset = self._size()

    def reopen(self) -> None:
        """Notice that the path names another file now, or that the file was cut; read on in that one."""
        try:
            found = self._path.stat()
        except OSError:
            return
        if found.st_ino != self._inode:
            self._open()
        elif found.st_size < self._offset:
            self._offset = 0

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
        self._file = None

    def _open(self) -> None:
        self.close()
        self._offset = 0
        try:
            self._file = self._path.open("rb", buffering=0)
        except OSError:
            self._inode = -1
            return
        self._inode = os.fstat(self._file.fileno()).st_ino

    def _size(self) -> int:
        return os.fstat(self._file.fileno()).st_size if self._file else 0
