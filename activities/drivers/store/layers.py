"""Look into the layers of an image that lie over a release's tree: they complete it and change none of it.

The archive of a tree has only its files, since a host makes links itself, of the signed list. An image has
to bring the links in a later layer, and whatever else its pods need; what would replace or hide a byte that
the release lists is refused, and so is a link that the release lists otherwise.
"""

import io
import tarfile
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Self

from activities.refusals import ArchiveRefused
from policies.model.release import Artifact

MOST_ENTRIES = 65_536
LARGEST = 1 << 30
"""Bytes that a layer may unpack to."""
LARGEST_HEADERS = 16 << 20
"""Bytes of all extended headers of a layer: long names and attributes, which a reader keeps in memory."""
_EXTENDED = {
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
}
WHITEOUT = ".wh."
"""How the name of an entry begins that hides one of the layers below (the image specification's layer.md)."""


def require_beside(layers: Iterable[bytes], artifact: Artifact) -> frozenset[str]:
    """Return the programs that these later layers bring; each layer is a plain or gzipped tar.

    Raises:
        ArchiveRefused: one of them replaces or hides something of the tree, or they do not make its links.
    """
    laid = _Laid(artifact)
    for layer in layers:
        for member in _members(layer):
            laid.add(member)
    if missing := laid.links.keys() - laid.made:
        raise ArchiveRefused(f"the image lacks the release's link {min(missing)!r}", reason="missing")
    return frozenset(laid.programs)


class _Laid:
    """What lies over a tree so far."""

    def __init__(self, artifact: Artifact) -> None:
        self.links = {link.path: link.target for link in artifact.links}
        self._leaves = {file.path for file in artifact.files} | self.links.keys()
        self._folders = {folder for path in self._leaves for folder in _folders(path)}
        self.made: set[str] = set()
        self.programs: set[str] = set()

    def add(self, member: tarfile.TarInfo) -> None:
        """Take one entry, or refuse it."""
        path = member.name.removeprefix("./").rstrip("/")
        if member.issym() and self.links.get(path) == member.linkname:
            self.made.add(path)
            return
        if path in self._leaves or any(folder in self._leaves for folder in _folders(path)):
            raise ArchiveRefused(f"a layer of the image replaces {path!r} of the release", reason="entry")
        if path in self._folders and not member.isdir():
            raise ArchiveRefused(
                f"a layer of the image hides what the release has in {path!r}", reason="entry"
            )
        if member.isreg() and member.mode & 0o111:
            self.programs.add(path)


def _members(layer: bytes) -> Iterator[tarfile.TarInfo]:
    """Yield the entries of a layer; those of odd names and kinds are refused."""
    left = LARGEST
    try:
        with tarfile.open(fileobj=io.BytesIO(layer), mode="r|*", tarinfo=_bounded()) as archive:
            for number, member in enumerate(archive):
                parts = member.name.removeprefix("./").rstrip("/").split("/")
                odd = any(part in ("", ".", "..") or part.startswith(WHITEOUT) for part in parts)
                kinds = member.isreg() or member.isdir() or member.issym()
                left -= member.size
                if odd or not kinds or member.mode & 0o6000 or number >= MOST_ENTRIES or left < 0:
                    raise ArchiveRefused(
                        f"a layer of the image holds {member.name[:80]!r}, which none may", reason="entry"
                    )
                yield member
    except (tarfile.TarError, OSError, EOFError, RecursionError) as error:
        raise ArchiveRefused(f"a layer of the image cannot be read: {error}", reason="format") from error


def _bounded() -> type[tarfile.TarInfo]:
    """Return a reader of one archive's headers that refuses extended ones before they fill the memory."""
    left = LARGEST_HEADERS

    class Header(tarfile.TarInfo):
        @classmethod
        def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
            nonlocal left
            header = super().frombuf(buf, encoding, errors)
            left -= header.size if header.type in _EXTENDED else 0
            if left < 0:
                raise ArchiveRefused(
                    f"a layer of the image has more than {LARGEST_HEADERS} bytes of extended headers",
                    reason="entry",
                )
            return header

    return Header


def _folders(path: str) -> list[str]:
    return list(accumulate(path.split("/")[:-1], "{}/{}".format))
