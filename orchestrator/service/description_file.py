"""The file that describes a fleet, replaced whole, and only where it is still what somebody has seen."""

import fcntl
import glob
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from policies.model.errors import BadInput, Conflict
from policies.model.offer import Offer
from policies.model.value import Digest, digest_of

MODE = 0o640
"""Of a file that was not there before."""


class DescriptionFile:
    """One file on this host, which people edit by hand, too."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> bytes | None:
        """Return what lies there, None when nothing does.

        Raises:
            BadInput: It cannot be read.
        """
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise BadInput(f"{self.path} cannot be read: {error.strerror}; check its rights") from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other process that describes fleets there from it; people's editors ask nobody."""
        try:
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise BadInput(f"{self.path.parent} cannot be opened: {error.strerror}; make it") from error
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    def replace(self, content: bytes, base: Digest | None, *instead: Offer) -> None:
        """Have this content there, whole, in place of that of the digest `base`; None where there was none.

        Raises:
            Conflict: Something else lies there by now; it was left as it is.
            BadInput: It cannot be written.
        """
        with self.locked():
            lies_there = self.read()
            found = digest_of(lies_there) if lies_there is not None else None
            if found != base:
                raise Conflict(
                    f"{self.path} was changed since it was compared; compare again, and apply", *instead
                )
            try:
                self._clear()
                self._write(content)
            except OSError as error:
                raise BadInput(
                    f"{self.path} cannot be written by the API ({error.strerror}): let its user write in "
                    f"{self.path.parent}, or have PENSTOCK_FLEET name a folder where it does"
                ) from error

    def _write(self, content: bytes) -> None:
        part = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}.part")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        try:
            with os.fdopen(os.open(part, flags, 0o600), "wb") as file:
                file.write(content)
                os.fchmod(file.fileno(), self._mode())
                file.flush()
                os.fsync(file.fileno())
            part.replace(self.path)
        finally:
            part.unlink(missing_ok=True)
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _clear(self) -> None:
        """Remove what killed writers left; nobody writes beside whoever has the lock."""
        for part in self.path.parent.glob(f".{glob.escape(self.path.name)}.*.part"):
            part.unlink(missing_ok=True)

    def _mode(self) -> int:
        try:
            return self.path.stat().st_mode & 0o777
        except OSError:
            return MODE
