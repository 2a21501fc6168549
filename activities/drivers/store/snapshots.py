"""Snapshots where the control plane keeps them: collected piece by piece, named by digest when whole."""

from collections.abc import Collection
from datetime import datetime
from pathlib import Path

from activities.drivers.store.blobs import BlobStore
from policies.model.errors import BadInput
from policies.model.refusals import DigestMismatch
from policies.model.value import Digest, digest_of

LARGEST = 64 * 2**20
"""Bytes that a snapshot may have: a host cannot fill the control plane's disk with one."""


class SnapshotArchive:
    """A folder of snapshots."""

    def __init__(self, folder: Path) -> None:
        self._blobs = BlobStore(folder)

    def add(self, digest: Digest, offset: int, piece: bytes, size: int) -> int:
        """Take over one piece; return how many bytes are there now: all, when they have their digest.

        Raises:
            BadInput: a piece before this one is missing, or the snapshot is too large.
            DigestMismatch: the whole is not what was frozen; the pieces were removed.
        """
        if self._blobs.has(digest, size):
            return size
        partial = self._blobs.partial(digest)
        have = partial.stat().st_size if partial.exists() else 0
        if offset > have or size > LARGEST:
            raise BadInput(f"snapshot {digest}: the piece at {offset} of {size} bytes does not fit")
        with partial.open("r+b" if have else "wb") as file:
            file.seek(offset)
            file.write(piece)
            file.truncate()
        if offset + len(piece) < size:
            return offset + len(piece)
        if digest_of(partial.read_bytes()) != digest:
            partial.unlink()
            raise DigestMismatch(f"snapshot {digest} was changed on its way; nothing was kept")
        self._blobs.adopt(partial, digest)
        return size

    def read(self, digest: Digest) -> bytes:
        """Return a kept snapshot; DigestMismatch when it is gone or was changed."""
        return self._blobs.read(digest)

    def sweep(self, listed: Collection[Digest], before: datetime) -> int:
        """Remove what is older than `before` and on no list; return how much it was.

        A crash leaves such files, and a host that died half-way through its snapshot.
        """
        kept = {digest.removeprefix("sha256:") for digest in listed}
        folder, swept = self._blobs.folder, 0
        for file in (*folder.glob("sha256/*/*"), *folder.glob("partial/*")):
            try:
                if file.name not in kept and file.stat().st_mtime < before.timestamp():
                    file.unlink()
                    swept += 1
            except FileNotFoundError:
                continue
        return swept

    def discard(self, digest: Digest) -> None:
        """Remove a snapshot; one that is not there changes nothing."""
        self._blobs.discard(digest)
