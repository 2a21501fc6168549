"""Archives an attacker would send, made with Python's general tar writer and by hand."""

import gzip
import io
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path


def archive_of(tree: Path, change: Callable[[tarfile.TarFile], None] | None = None) -> bytes:
    """Return the tree's regular files as a plain archive, with something more in it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in sorted(path for path in tree.rglob("*") if path.is_file() and not path.is_symlink()):
            entry = tarfile.TarInfo(path.relative_to(tree).as_posix())
            content = path.read_bytes()
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        if change:
            change(archive)
    return out.getvalue()


def with_entry(
    name: str, kind: bytes = tarfile.REGTYPE, **fields: object
) -> Callable[[tarfile.TarFile], None]:
    """Return a change that adds one entry of that type."""

    def change(archive: tarfile.TarFile) -> None:
        entry = tarfile.TarInfo(name)
        entry.type = kind
        for field, value in fields.items():
            setattr(entry, field, value)
        content = b"evil" if kind == tarfile.REGTYPE else b""
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))

    return change


def bomb(name: str) -> bytes:
    """Return a small gzip archive that unpacks one listed name to a gigabyte."""
    entry = tarfile.TarInfo(name)
    entry.size = 1 << 30
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    head = packer.compress(entry.tobuf(tarfile.USTAR_FORMAT)) + packer.flush(zlib.Z_FULL_FLUSH)
    megabyte = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return gzip.compress(b"")[:10] + head + megabyte * 1024 + packer.flush(zlib.Z_FINISH) + bytes(8)
