"""Layers of an image: archives of files, folders and links, the same bytes each time.

They carry no times, owners or order of their own, and no file of them runs as anybody but who starts it.
"""

import gzip
import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from policies.model.value import Digest

LAYER = "application/vnd.oci.image.layer.v1.tar"
_GZIP_LEVEL = 6
_PIECE = 1 << 20


@dataclass(frozen=True)
class Layer:
    """A layer that was made."""

    path: Path
    """Where its bytes lie."""
    digest: Digest
    """Their digest, by which it is fetched."""
    unpacked: Digest
    """The digest of the archive before it was compressed, which a node compares once more."""

    @property
    def media_type(self) -> str:
        """What registries call it."""
        return LAYER if self.digest == self.unpacked else f"{LAYER}+gzip"


@dataclass(frozen=True)
class Entry:
    """One thing in a layer: a file with content, a link with a target, or else a folder."""

    path: str
    mode: int = 0o755
    content: bytes | Path | None = None
    target: str | None = None


def existing(path: Path) -> Layer:
    """Return a layer that is there already: an archive, compressed or not."""
    with path.open("rb") as file:
        digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        file.seek(0)
        packed = file.read(2) == b"\x1f\x8b"
    return Layer(path, digest, _unpacked(path) if packed else digest)


def write(entries: Iterable[Entry], folder: Path) -> Layer:
    """Return a layer of these entries, each after the folder that it lies in; it is written to the folder."""
    making = folder / ".layer"
    with (
        making.open("wb") as raw,
        gzip.GzipFile("", "wb", _GZIP_LEVEL, raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as archive,
    ):
        for entry in entries:
            _add(archive, entry)
    layer = existing(making)
    place = folder / f"{layer.digest.removeprefix('sha256:')}.tar.gz"
    making.replace(place)
    return Layer(place, layer.digest, layer.unpacked)


def below(root: Path, left_out: Sequence[str] = ()) -> Iterator[Entry]:
    """Yield everything below a folder but what is left out; devices and sockets stay away.

    Rights depend on what a thing is, and not on whoever laid it there.
    """
    for one in sorted(os.scandir(root), key=lambda one: one.name):
        yield from _entries(root, Path(one.path), left_out)


def _entries(root: Path, path: Path, left_out: Sequence[str]) -> Iterator[Entry]:
    name, mode = path.relative_to(root).as_posix(), path.lstat().st_mode
    if name in left_out:
        return
    if stat.S_ISLNK(mode):
        yield Entry(name, 0o777, target=str(path.readlink()))
    elif stat.S_ISREG(mode):
        yield Entry(name, 0o755 if mode & stat.S_IXUSR else 0o644, path)
    elif stat.S_ISDIR(mode):
        yield Entry(name, 0o1777 if mode & stat.S_ISVTX else 0o755)
        for one in sorted(os.scandir(path), key=lambda one: one.name):
            yield from _entries(root, Path(one.path), left_out)


def _add(archive: tarfile.TarFile, entry: Entry) -> None:
    member = tarfile.TarInfo(entry.path)
    member.mode = entry.mode
    if entry.target is not None:
        member.type, member.linkname = tarfile.SYMTYPE, entry.target
        archive.addfile(member)
    elif entry.content is None:
        member.type = tarfile.DIRTYPE
        archive.addfile(member)
    else:
        content = entry.content if isinstance(entry.content, bytes) else entry.content.read_bytes()
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))


def _unpacked(path: Path) -> Digest:
    found = hashlib.sha256()
    with gzip.open(path) as file:
        while piece := file.read(_PIECE):
            found.update(piece)
    return f"sha256:{found.hexdigest()}"
