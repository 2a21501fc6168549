"""Pack a tree: the list of its files and links, and one archive of the files, the same bytes each time.

A host makes the links and folders itself, of the signed list; in an image they lie in a layer of their own.
"""

import gzip
import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.publishing.option_files import OptionFiles
from orchestrator.publishing.private_keys import keys_in, refuse_keys
from policies.model.errors import BadInput

LEFT_OUT = ("usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/lintian", "usr/share/locale")
"""Parts of a packaged tree that nothing runs."""
SETTLED = 0o755
"""Rights of files that a release keeps: whoever else is on a gateway's host writes none of them."""


@dataclass(frozen=True)
class Listing:
    """What is in a tree, in the order of the names, as a manifest lists it."""

    tree: Path
    files: list[dict[str, Any]]
    """Every file with its digest, size and mode."""
    links: list[dict[str, Any]]
    """Every symbolic link and where it leads."""

    @property
    def paths(self) -> list[str]:
        """The files' paths."""
        return [file["path"] for file in self.files]


@dataclass(frozen=True)
class Packed:
    """A tree that was packed: its listing, and the archive of its files."""

    listing: Listing
    archive: Path
    kind: str
    """How it is unpacked: `tar` or `tar.gz`."""

    @property
    def artifact(self) -> dict[str, Any]:
        """The archive as a manifest lists it."""
        described = artifact(f"root.{self.kind}", self.archive, "application/x-tar", self.kind)
        return described | {"files": self.listing.files, "links": self.listing.links}


def listed(tree: Path, left_out: Sequence[str] = LEFT_OUT) -> Listing:
    """Return what is in the tree.

    Raises:
        BadInput: it holds something a release cannot carry, or a private key.
    """
    return Listing(tree, *_list(tree, left_out))


def pack(listing: Listing, into: Path, *, compress: bool = False) -> Packed:
    """Return the tree packed; its archive is written to the path `into`, or beside it with `.gz`.

    Raises:
        BadInput: a name is too long for a plain archive.
    """
    archive = _archive(listing.tree, listing.files, into, compress=compress)
    return Packed(listing, archive, "tar.gz" if compress else "tar")


def is_text(name: str) -> bool:
    """Return whether a name of the file system is UTF-8; Python keeps other bytes as lone surrogates."""
    return not any("\ud800" <= one <= "\udfff" for one in name)


def artifact(name: str, path: Path, media_type: str, unpack: str) -> dict[str, Any]:
    """Return a file as a manifest lists it, by its digest and size."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    size = path.stat().st_size
    return {"name": name, "sha256": sha256, "size": size, "media_type": media_type, "unpack": unpack}


def _list(tree: Path, left_out: Sequence[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the tree's files and links, in the order of their names."""
    files: list[dict[str, Any]] = []
    links: list[dict[str, Any]] = []
    keys: list[str] = []
    of_options = OptionFiles()
    for path in _walk(tree):
        name = path.relative_to(tree).as_posix()
        if not is_text(name):
            raise BadInput(f"{name!r} is not a name in UTF-8; rename the file, or leave it out of the tree")
        if any(name == skipped or name.startswith(f"{skipped}/") for skipped in left_out):
            continue
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            links.append({"path": name, "target": _target(tree, path)})
        elif stat.S_ISREG(mode):
            content = path.read_bytes()
            keys += keys_in(content, name, of_options)
            sha256 = hashlib.sha256(content).hexdigest()
            files.append({"path": name, "sha256": sha256, "size": len(content), "mode": mode & SETTLED})
        else:
            raise BadInput(f"{path} is neither a file nor a link; a release cannot carry it")
    refuse_keys([*keys, *of_options.found()])
    return files, links


def _walk(tree: Path) -> Iterator[Path]:
    for entry in sorted(os.scandir(tree), key=lambda entry: entry.name):
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path))
        else:
            yield Path(entry.path)


def _target(tree: Path, link: Path) -> str:
    """Return where a link leads, relative to itself; absolute ones are meant from the tree's root."""
    target = str(link.readlink())
    return os.path.relpath(tree / target.lstrip("/"), link.parent) if target.startswith("/") else target


def _archive(tree: Path, files: Sequence[dict[str, Any]], path: Path, *, compress: bool) -> Path:
    """Write a plain ustar archive of the files."""
    path = path.with_name(f"{path.name}.gz") if compress else path
    with path.open("wb") as raw:
        packed = (
            gzip.GzipFile(filename="", mode="wb", compresslevel=1, fileobj=raw, mtime=0) if compress else None
        )
        with tarfile.open(fileobj=packed or raw, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            for file in files:
                entry = tarfile.TarInfo(file["path"])
                entry.size, entry.mode = file["size"], file["mode"]
                try:
                    archive.addfile(entry, io.BytesIO((tree / file["path"]).read_bytes()))
                except ValueError as error:
                    raise BadInput(
                        f"{file['path']} has a name too long for a plain archive: {error}"
                    ) from error
        if packed:
            packed.close()
    return path
