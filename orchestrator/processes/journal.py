"""What a process says on standard error, with its priority where systemd's journal reads it.

The journal takes a number in angle brackets before a line for its priority (sd-daemon(3)); a person at a
terminal, or a file, gets the line alone.
"""

import logging
import os
import sys

PRIORITIES = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}
"""Priorities of syslog(3), by the levels of Python's log."""

STREAM = "JOURNAL_STREAM"
"""systemd says in this variable which file the journal reads, by device and inode (systemd.exec(5))."""


class Weighed(logging.Formatter):
    """Puts the priority before each line, so that a trace of many lines keeps it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's lines, each with its priority."""
        level = max((one for one in PRIORITIES if one <= record.levelno), default=logging.DEBUG)
        lines = super().format(record).splitlines() or [""]
        return "\n".join(f"<{PRIORITIES[level]}>{line}" for line in lines)


def begin() -> None:
    """Say from now on with its priority what this process logs, where the journal reads it."""
    if not _is_read_by_the_journal():
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Weighed())
    logging.getLogger().addHandler(handler)


def _is_read_by_the_journal() -> bool:
    try:
        found = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get(STREAM) == f"{found.st_dev}:{found.st_ino}"
