"""What some files say, read again when one of them has changed: certificates are renewed, processes go on."""

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from policies.model.errors import BadInput

W = TypeVar("W")

_log = logging.getLogger(__name__)


class ReadAgain(Generic[W]):
    """What is read from these files; what was good before, for as long as they are not."""

    def __init__(self, what: str, files: Sequence[Path | None], read: Callable[[], W]) -> None:
        """Read them; `what` names it in the log, and files that are None are not there.

        Raises:
            BadInput: As of `read`.
        """
        self._what = what
        self._files = [path for path in files if path is not None]
        self._read = read
        self._turn = threading.Lock()
        self._version = self._refused = self._versions()
        self._value = read()

    def value(self) -> W:
        """Return what they say now; each refused version of them is said in the log once."""
        with self._turn:
            if (version := self._versions()) != self._version:
                try:
                    self._value, self._version = self._read(), version
                except BadInput as error:
                    if version != self._refused:
                        _log.warning("%s from before is kept: %s", self._what, error)
                    self._refused = version
            return self._value

    def _versions(self) -> list[tuple[int, int, int] | None]:
        return [_version(path) for path in self._files]


def _version(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
