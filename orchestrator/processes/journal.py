"""What a process says on standard error; where systemd's journal reads that, with priority and labels.

The journal is told each entry with its fields, so that one can ask it for a change or a gateway. One that it
does not take goes to standard error, where it reads a number in angle brackets before a line as the
priority (sd-daemon(3)). A person at a terminal, or a file, gets the line alone.
"""

import json
import logging
import os
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from activities.drivers.journald import SOCKET, Journald
from policies.model.errors import BadInput

FORM = "PENSTOCK_LOG"
"""The variable that says in which form entries are written: as text, or as JSON."""

PRIORITIES = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}
"""Priorities of syslog(3), by the levels of Python's log."""

_PLAIN = logging.Formatter()

STREAM = "JOURNAL_STREAM"
"""systemd says in this variable which file the journal reads, by device and inode (systemd.exec(5))."""

WITHOUT_COLOURS = "NO_COLOR"
"""Programs that are asked by this variable write no colours (no-color.org); the engine's client is one."""

STORY = ("activities.ledger", "orchestrator.processes.labels", "orchestrator.service.changes")
"""Who says of each change that it began and ended, and of each step that it is done: worth a line in the
journal, and none at a terminal."""

LABELS: ContextVar[Mapping[str, str]] = ContextVar("labels", default={})  # noqa: B039 - nobody writes into it
"""Fields of what is logged here and now."""

TRACE: ContextVar[str] = ContextVar("trace", default="")
"""The trace that what is logged here and now belongs to, where there is one."""

NAMES = {"VPN_CHANGE": "change", "VPN_FLEET": "fleet", "VPN_GATEWAY": "gateway", "VPN_STEP": "step"}
"""How an entry in JSON calls the journal's fields."""


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
            **_labels(record),
        }
        if not self._journald.say(fields):
            super().emit(record)


class Weighed(logging.Formatter):
    """Puts the priority before each line, so that a trace of many lines keeps it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's lines, each with its priority."""
        lines = super().format(record).splitlines() or [""]
        return "\n".join(f"<{_priority(record)}>{line}" for line in lines)


class AsJson(logging.Formatter):
    """Writes each entry as a JSON object in one line, whatever is in it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the entry; what cannot be put together is shown as it was given."""
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001 - an entry that is wrong is still one
            message = f"{record.msg} {record.args!r}"
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds")
        said = {
            "time": at.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message,
        }
        fields = _labels(record)
        said |= {name: fields[label] for label, name in NAMES.items() if label in fields}
        if trace := TRACE.get():
            said["trace_id"] = trace
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        # Bytes that were no UTF-8 come as lone surrogates, which many readers of JSON refuse.
        return json.dumps({name: text.encode(errors="replace").decode() for name, text in said.items()})


def _labels(record: logging.LogRecord) -> Mapping[str, str]:
    """Return the labels of what is done here and now, and those that the entry was given with."""
    return {**LABELS.get(), **{label: getattr(record, label) for label in NAMES if hasattr(record, label)}}


def _priority(record: logging.LogRecord) -> int:
    level = max((one for one in PRIORITIES if one <= record.levelno), default=logging.DEBUG)
    return PRIORITIES[level]


def begin() -> None:
    """Tell the journal from now on what this process logs, where it reads what it says.

    Whoever wants JSON gets that on standard error instead. What the engine's client says on standard output
    has colours for a terminal only.

    Raises:
        BadInput: Entries are wanted in a form that there is not.
    """
    if not sys.stdout.isatty():
        os.environ.setdefault(WITHOUT_COLOURS, "1")
    form = os.environ.get(FORM, "text")
    if form not in {"text", "json"}:
        raise BadInput(f"{FORM} is {form!r}: write json, or text, which is what there is without it")
    if form == "json":
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(AsJson())
        logging.getLogger().addHandler(handler)
    elif _is_read_by_the_journal():
        logging.getLogger().addHandler(Told())
    else:
        return
    for teller in STORY:
        logging.getLogger(teller).setLevel(logging.INFO)


def _is_read_by_the_journal() -> bool:
    try:
        found = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get(STREAM) == f"{found.st_dev}:{found.st_ino}"
