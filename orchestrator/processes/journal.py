"""What a process says on standard error; where systemd's journal reads that, with priority and labels.

The journal is told each entry with its fields, so that one can ask it for a change or a gateway. One that it
does not take goes to standard error, where it reads a number in angle brackets before a line as the
priority (sd-daemon(3)). A person at a terminal, or a file, gets the line alone.
"""

import logging
import os
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import TextIO

from activities.drivers.journald import SOCKET, Journald

PRIORITIES = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}
"""Priorities of syslog(3), by the levels of Python's log."""

_PLAIN = logging.Formatter()

STREAM = "JOURNAL_STREAM"
"""systemd says in this variable which file the journal reads, by device and inode (systemd.exec(5))."""

WITHOUT_COLOURS = "NO_COLOR"
"""Programs that are asked by this variable write no colours (no-color.org); the engine's client is one."""

STEPS = "orchestrator.processes.labels"
"""Who says of each step that it is done: worth a line in the journal, and none at a terminal."""

LABELS: ContextVar[Mapping[str, str]] = ContextVar("labels", default={})  # noqa: B039 - nobody writes into it
"""Fields of what is logged here and now."""


class Told(logging.StreamHandler[TextIO]):
    """Tells the journal, or says on standard error what it did not take."""

    def __init__(self, path: Path = SOCKET) -> None:
        super().__init__(sys.stderr)
        self.setFormatter(Weighed())
        self._journald = Journald(path)

    def emit(self, record: logging.LogRecord) -> None:
        """Hand on one entry."""
        fields = {
            "MESSAGE": _PLAIN.format(record),
            "PRIORITY": _priority(record),
            "SYSLOG_IDENTIFIER": "penstock",
            "LOGGER": record.name,
            **LABELS.get(),
        }
        if not self._journald.say(fields):
            super().emit(record)


class Weighed(logging.Formatter):
    """Puts the priority before each line, so that a trace of many lines keeps it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's lines, each with its priority."""
        lines = super().format(record).splitlines() or [""]
        return "\n".join(f"<{_priority(record)}>{line}" for line in lines)


def _priority(record: logging.LogRecord) -> int:
    level = max((one for one in PRIORITIES if one <= record.levelno), default=logging.DEBUG)
    return PRIORITIES[level]


def begin() -> None:
    """Tell the journal from now on what this process logs, where it reads what it says.

    What the engine's client says on standard output has colours for a terminal only.
    """
    if not sys.stdout.isatty():
        os.environ.setdefault(WITHOUT_COLOURS, "1")
    if not _is_read_by_the_journal():
        return
    logging.getLogger().addHandler(Told())
    logging.getLogger(STEPS).setLevel(logging.INFO)


def _is_read_by_the_journal() -> bool:
    try:
        found = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get(STREAM) == f"{found.st_dev}:{found.st_ino}"
