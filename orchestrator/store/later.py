"""Audit entries that the ledger could not take when they were made: kept in a file, and written in later."""

import json
import logging
from collections.abc import Iterator
from datetime import UTC
from pathlib import Path
from typing import BinaryIO

from orchestrator.store.lines import append_line, held
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
        append_line(self._path, entry.model_dump_json())

    def deliver(self, trail: Trail) -> int:
        """Write what is kept into the record, each with the time when it was made; return how many.

        Raises:
            Unavailable: The ledger or the file does not answer; what is kept stays.
        """
        if not self._path.exists() or not self._path.stat().st_size:
            return 0
        try:
            with held(self._path, "r+b") as file:
                entries = list(self._each(file))
                for one in entries:
                    said = one.body | {"at": one.at.astimezone(UTC).isoformat(timespec="milliseconds")}
                    trail.enter(one.model_copy(update={"body": said}))
                file.truncate(0)
        except OSError as error:
            raise Unavailable(f"{self._path} cannot be read: {error.strerror}") from error
        return len(entries)

    def _each(self, file: BinaryIO) -> Iterator[LateEntry]:
        for line in file:
            try:
                yield LateEntry.model_validate(json.loads(line))
            except ValueError:  # its writer was killed, or the disk was full
                _log.warning("%s has a line that is no entry: %s", self._path, line[:200])
