"""Unpack archives: only regular files whose name, size and digest the manifest lists, each once.

Reads plain ustar (POSIX.1-1988), optionally gzipped, itself: a general tar reader knows links,
devices, sparse files and headers of any length, and every one of these has been an attack.
Links are made from the signed manifest, never from the archive.
"""

import hashlib
import os
import secrets
import shutil
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from activities.drivers.store.beneath import Beneath
from activities.refusals import ArchiveRefused
from policies.model.release import Artifact, ReleaseFile

BLOCK = 512
PIECE = 1 << 20
REGULAR = (b"0", b"\0")


def unpack(archive: Iterator[bytes], artifact: Artifact, destination: Path) -> bool:
    """Have exactly the artifact's tree at `destination`; return whether anything was changed.

    The tree appears whole or not at all. `archive` must raise at its end if its bytes are
    not the ones the manifest names.

    Raises:
        ArchiveRefused: the archive holds anything but the listed files.
    """
    if is_whole(artifact, destination):
        return False
    destination.parent.mkdir(parents=True, exist_ok=True)
    temporary = destination.parent / f".{destination.name}.{secrets.token_hex(8)}"
    temporary.mkdir(mode=0o700)
    try:
        with Beneath(temporary) as tree:
            _extract(_Reader(archive, gzipped=artifact.unpack == "tar.gz"), artifact, tree)
            for link in artifact.links:
                tree.link(link.path, link.target)
        temporary.chmod(0o755)
        _swap(temporary, destination)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return True


def furnish(tree: Path, folders: Sequence[str]) -> None:
    """Ensure that the tree has these folders, for what a host puts into it.

    Raises:
        ArchiveRefused: the release has a file or a link where one of them has to be.
    """
    tree.mkdir(mode=0o755, parents=True, exist_ok=True)
    with Beneath(tree) as inside:
        for folder in folders:
            inside.make_folders(folder)


def inspect(archive: Iterator[bytes], artifact: Artifact) -> None:
    """Read an artifact to its end as unpacking would, writing nothing.

    Raises:
        ArchiveRefused: the archive holds anything but the listed files.
    """
    if artifact.unpack != "none":
        _extract(_Reader(archive, gzipped=artifact.unpack == "tar.gz"), artifact, None)
    for _ in archive:
        pass


def is_whole(artifact: Artifact, tree: Path) -> bool:
    """Return whether the tree is exactly the artifact's: every file by digest, every link, nothing else."""
    if not tree.is_dir() or tree.is_symlink():
        return False
    files = {file.path: file for file in artifact.files}
    links = {link.path: link.target for link in artifact.links}
    found = set()
    for folder, folders, names in os.walk(tree):
        for name in (*names, *(name for name in folders if (Path(folder) / name).is_symlink())):
            path = Path(folder) / name
            relative = path.relative_to(tree).as_posix()
            found.add(relative)
            if path.is_symlink():
                if links.get(relative) != str(path.readlink()):
                    return False
            elif relative not in files or not _is_file(path, files[relative]):
                return False
    return found == files.keys() | links.keys()


def _is_file(path: Path, expected: ReleaseFile) -> bool:
    status = path.lstat()
    if not path.is_file() or (status.st_size, status.st_mode & 0o7777) != (expected.size, expected.mode):
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == expected.sha256


def _swap(temporary: Path, destination: Path) -> None:
    """Put the new tree in place of whatever was there."""
    if destination.exists() or destination.is_symlink():
        old = destination.parent / f".{destination.name}.{secrets.token_hex(8)}.old"
        destination.rename(old)
        temporary.rename(destination)
        shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
    else:
        temporary.rename(destination)


class _Reader:
    """Reads exact lengths from pieces, inflating at most what is asked for."""

    def __init__(self, pieces: Iterator[bytes], *, gzipped: bool) -> None:
        self._pieces = pieces
        self._inflater = zlib.decompressobj(31) if gzipped else None
        self._buffer = b""

    def read(self, length: int) -> bytes:
        """Return exactly that many bytes.

        Raises:
            ArchiveRefused: the archive ends before, or is not gzip.
        """
        found = self.some(length)
        while len(found) < length:
            more = self.some(length - len(found))
            if not more:
                raise ArchiveRefused("the archive ends in the middle of an entry", reason="truncated")
            found += more
        return found

    def some(self, limit: int) -> bytes:
        """Return up to `limit` bytes, none at the end."""
        while not self._buffer:
            piece = self._inflate(limit)
            if piece is None:
                return b""
            self._buffer = piece
        found, self._buffer = self._buffer[:limit], self._buffer[limit:]
        return found

    def finish(self) -> None:
        """Read the rest, so that the source can judge all its bytes; only padding may be left."""
        while rest := self.some(PIECE):
            if rest.strip(b"\0"):
                raise ArchiveRefused("the archive goes on after its end", reason="trailing")

    def _inflate(self, limit: int) -> bytes | None:
        """Return the next plain bytes, None at the end."""
        if self._inflater is None:
            return next(self._pieces, None)
        try:
            raw = self._inflater.unconsumed_tail or next(self._pieces, None)
            if raw is None:
                if not self._inflater.eof:
                    raise ArchiveRefused("the archive is cut off", reason="truncated")
                return None
            if self._inflater.eof:
                raise ArchiveRefused("the archive goes on after its end", reason="trailing")
            return self._inflater.decompress(raw, max(limit, BLOCK))
        except zlib.error as error:
            raise ArchiveRefused(f"the archive is not gzip: {error}", reason="format") from error


def _extract(reader: _Reader, artifact: Artifact, tree: Beneath | None) -> None:
    """Read the archive to its end; files go to the tree if there is one."""
    expected = {file.path: file for file in artifact.files}
    while (header := reader.read(BLOCK)) != bytes(BLOCK):
        path, size = _entry(header)
        file = expected.pop(path, None)
        if file is None:
            raise ArchiveRefused(
                f"the archive holds {path!r}, which the manifest does not list once", reason="entry"
            )
        if size != file.size:
            raise ArchiveRefused(f"{path!r} has {size} bytes, the manifest lists {file.size}", reason="size")
        if tree is None:
            _copy(reader, file, None)
        else:
            _write(reader, file, tree)
        if reader.read(-size % BLOCK).strip(b"\0"):
            raise ArchiveRefused(f"the padding after {path!r} is not empty", reason="format")
    if expected:
        raise ArchiveRefused(f"the archive lacks {min(expected)!r}", reason="missing")
    reader.finish()


def _entry(header: bytes) -> tuple[str, int]:
    """Return path and size of a regular file's header."""
    if header[257:263] != b"ustar\0" or header[156:157] not in REGULAR:
        raise ArchiveRefused("the archive holds something else than a regular file", reason="type")
    checksum = sum(header[:148]) + 8 * 0x20 + sum(header[156:])
    try:
        fields = [header[:100], header[345:500]]
        name, prefix = (field.split(b"\0", 1)[0].decode("ascii") for field in fields)
        size, stated = (int(field.rstrip(b"\0 "), 8) for field in (header[124:136], header[148:156]))
    except ValueError as error:
        raise ArchiveRefused("the archive has a malformed header", reason="format") from error
    if stated != checksum:
        raise ArchiveRefused("the archive has a header with a wrong checksum", reason="format")
    return (f"{prefix}/{name}" if prefix else name), size


def _write(reader: _Reader, file: ReleaseFile, tree: Beneath) -> None:
    with os.fdopen(tree.create(file.path), "wb", buffering=0) as target:
        _copy(reader, file, target)
        os.fchmod(target.fileno(), file.mode)


def _copy(reader: _Reader, file: ReleaseFile, target: BinaryIO | None) -> None:
    """Read one file's bytes, and write them if there is somewhere to."""
    hasher, left = hashlib.sha256(), file.size
    while left:
        piece = reader.some(min(left, PIECE))
        if not piece:
            raise ArchiveRefused("the archive ends in the middle of an entry", reason="truncated")
        hasher.update(piece)
        if target is not None:
            target.write(piece)
        left -= len(piece)
    if hasher.hexdigest() != file.sha256:
        raise ArchiveRefused(f"{file.path!r} is not the file the manifest lists", reason="digest")
