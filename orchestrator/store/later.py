"""Audit entries that the ledger could not take when they were made: kept in a file, and written in later."""

import fcntl
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC
from pathlib import Path
from typing import IO

from orchestrator.store.trail import Trail
from policies.model.audit import LateEntry
from policies.model.errors import Unavailable

_log = logging.getLogger(__name__)


class LateEntries:
    """A file of them, shared by every process of the installation on this host."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def keep(self, entry: LateEntry) -> None:
        """Keep an entry until the ledger takes it.

        Raises:
            Unavailable: The file cannot be written.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._mine("a") as file:
                file.write(entry.model_dump_json() + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise Unavailable(f"{self._path} cannot be written: {error.strerror}") from error

    def deliver(self, trail: Trail) -> int:
        """Write what is kept into the record, each with the time when it was made; return how many.

        Raises:
            Unavailable: The ledger or the file does not answer; what is kept stays.
        """
        if not self._path.exists() or not self._path.stat().st_size:
            return 0
        try:
            with self._mine("r+") as file:
                entries = list(self._each(file))
                for one in entries:
                    said = one.body | {"at": one.at.astimezone(UTC).isoformat(timespec="milliseconds")}
                    trail.enter(one.model_copy(update={"body": said}))
                file.truncate(0)
        except OSError as error:
            raise Unavailable(f"{self._path} cannot be read: {error.strerror}") from error
        return len(entries)

    def _each(self, file: IO[str]) -> Iterator[LateEntry]:
        for line in file:
            try:
                yield LateEntry.model_validate(json.loads(line))
            except ValueError:  # its writer was killed, or the disk was full
                _log.warning("%s has a line that is no entry: %s", self._path, line.strip()[:200])

    @contextmanager
    def _mine(self, mode: str) -> Iterator[IO[str]]:
        with self._path.open(mode) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file
