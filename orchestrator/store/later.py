"""Audit entries that the ledger could not take when they were made: kept in a file, and written in later."""

import json
import logging
from collections.abc import Iterator
from datetime import UTC
from pathlib import Path

from activities.drivers.lines import held
from orchestrator.store.lines import append_line
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

        The file is free while the ledger is written, for whoever has to keep an entry meanwhile.

        Raises:
            Unavailable: The ledger or the file does not answer; what is kept stays.
        """
        if not (kept := self._read()):
            return 0
        entries = list(self._each(kept))
        for one in entries:
            said = one.body | {"at": one.at.astimezone(UTC).isoformat(timespec="milliseconds")}
            trail.enter(one.model_copy(update={"body": said}))
        self._remove(kept)
        return len(entries)

    def _read(self) -> bytes:
        try:
            if not self._path.exists() or not self._path.stat().st_size:
                return b""
            with held(self._path, "rb") as file:
                return file.read()
        except OSError as error:
            raise Unavailable(f"{self._path} cannot be read: {error.strerror}") from error

    def _remove(self, delivered: bytes) -> None:
        """Take the delivered beginning off the file, unless another process has done so already."""
        try:
            with held(self._path, "r+b") as file:
                kept = file.read()
                if not kept.startswith(delivered):
                    return
                file.seek(0)
                file.write(kept.removeprefix(delivered))
                file.truncate()
        except OSError as error:
            raise Unavailable(f"{self._path} cannot be written: {error.strerror}") from error

    def _each(self, kept: bytes) -> Iterator[LateEntry]:
        for line in kept.splitlines():
            try:
                yield LateEntry.model_validate(json.loads(line))
            except ValueError:  # its writer was killed, or the disk was full
                _log.warning("%s has a line that is no entry: %s", self._path, line[:200])
