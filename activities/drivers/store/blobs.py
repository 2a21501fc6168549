"""Content-addressed files: a name under `sha256/` means that these bytes had this digest when written.

What a power cut, a full disk or a hand does to a file afterwards shows at the next use, since
every reader hashes; so files are not synced one by one, and a broken one is fetched again.
"""

import contextlib
import hashlib
import os
import secrets
from collections.abc import Collection, Iterator
from pathlib import Path

from activities.drivers.store.beneath import Beneath
from policies.model.refusals import DigestMismatch
from policies.model.value import Digest, digest_of

PIECE = 1 << 20


class BlobStore:
    """A folder of blobs, named by digest, each written once and read-only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._partial = folder / "partial"

    def path(self, digest: Digest) -> Path:
        """Return where the blob is, or would be."""
        hexadecimal = digest.removeprefix("sha256:")
        return self.folder / "sha256" / hexadecimal[:2] / hexadecimal

    def partial(self, digest: Digest) -> Path:
        """Return where a download of the blob is collected before it has earned its name."""
        self._partial.mkdir(parents=True, exist_ok=True)
        return self._partial / digest.removeprefix("sha256:")

    def has(self, digest: Digest, size: int) -> bool:
        """Return whether the blob is here in full length; its content is checked when it is read."""
        with contextlib.suppress(OSError):
            return self.path(digest).lstat().st_size == size
        return False

    def put(self, content: bytes) -> Digest:
        """Store these bytes; return their digest."""
        digest = digest_of(content)
        if not self.has(digest, len(content)):
            self._partial.mkdir(parents=True, exist_ok=True)
            temporary = self._partial / secrets.token_hex(16)
            temporary.write_bytes(content)
            self.adopt(temporary, digest)
        return digest

    def adopt(self, file: Path, digest: Digest) -> None:
        """Give a file its verified name; the caller has hashed every byte of it."""
        target = self.path(digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        file.chmod(0o444)
        file.replace(target)

    def read(self, digest: Digest) -> bytes:
        """Return the blob's bytes, hashed again.

        Raises:
            DigestMismatch: what lies under the name is something else; it was removed.
        """
        return b"".join(self.stream(digest))

    def stream(self, digest: Digest) -> Iterator[bytes]:
        """Yield the blob's bytes, hashing them; whoever uses them must reach the end first.

        Raises:
            DigestMismatch: what lies under the name is something else; it was removed.
        """
        path, hasher = self.path(digest), hashlib.sha256()
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise DigestMismatch(f"blob {digest} cannot be read: {error}", reason="absent") from error
        with os.fdopen(handle, "rb", buffering=0) as file:
            while piece := file.read(PIECE):
                hasher.update(piece)
                yield piece
        if f"sha256:{hasher.hexdigest()}" != digest:
            with contextlib.suppress(PermissionError):  # of whom may only read them
                path.unlink(missing_ok=True)
            raise DigestMismatch(f"blob {digest} was changed in the store; it was removed, fetch it again")

    def install(self, digest: Digest, folder: Path, path: str, mode: int = 0o644) -> None:
        """Copy the blob to that path beneath the folder, hashing, so that nobody can change it in between.

        Raises:
            DigestMismatch: the stored bytes are not the named ones; no file appears.
            ArchiveRefused: the path leads elsewhere.
        """
        name = path.rpartition("/")[2]
        temporary = f"{path.removesuffix(name)}.{secrets.token_hex(12)}"
        folder.mkdir(parents=True, exist_ok=True)
        with Beneath(folder) as place:
            handle = place.create(temporary)
            try:
                with os.fdopen(handle, "wb") as file:
                    for piece in self.stream(digest):
                        file.write(piece)
                    file.flush()
                    os.fchmod(file.fileno(), mode)
                    os.fsync(file.fileno())
                place.rename(temporary, name)
            finally:
                place.remove(temporary)

    def discard(self, digest: Digest) -> None:
        """Remove the blob; one that is not there changes nothing."""
        self.path(digest).unlink(missing_ok=True)

    def digests(self) -> frozenset[Digest]:
        """Return everything that is stored."""
        return frozenset(f"sha256:{path.name}" for path in self.folder.glob("sha256/??/*"))

    def collect(self, keep: Collection[Digest]) -> tuple[Digest, ...]:
        """Remove every blob that is not to be kept; return what was removed."""
        gone = tuple(sorted(self.digests() - set(keep)))
        for digest in gone:
            self.path(digest).unlink(missing_ok=True)
        return gone
