"""When users logged in to a gateway: the exporter writes it down, and a mirror of them reads it.

One line is one login that came through: its moment to a tenth of a second, the kind of its address, and the
kind of its client. The file is begun anew when it spans an hour, and the one before is kept beside it, so
that an hour is always there. What a crash left of a line is no login.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from activities.drivers.disk import end_of
from policies.attempts import Attempt, LoginOutcome
from policies.lines import lines_in
from policies.model.mirror import MOST_RECORDED, RECORDED, RecordedLogin

NAME = "logins"
BEFORE = "logins.1"
OURS = 0o600
MOST_BYTES = 32 * MOST_RECORDED
"""A login takes less than 32 bytes."""


class LoginTimes:
    """The record in one folder, as its exporter writes it."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        """Take the folder, which the gateway's agent reads; nothing is written yet."""
        self._folder = folder
        self._clock = clock
        self._begun: float | None = None

    def note(self, attempt: Attempt) -> None:
        """Write the login down, if it is one; a disk that takes nothing costs the record and nothing else."""
        if attempt.outcome is not LoginOutcome.OK:
            return
        began = attempt.ended - (attempt.seconds or 0.0)
        with suppress(OSError):
            self._begin_anew_in_time()
            line = f"\n{began:.1f} {attempt.family or 4} {attempt.client.value}\n"
            descriptor = os.open(self._folder / NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND, OURS)
            try:
                os.write(descriptor, line.encode())
            finally:
                os.close(descriptor)

    def _begin_anew_in_time(self) -> None:
        now, path = self._clock(), self._folder / NAME
        if self._begun is None:
            first = next(_logins_in(path), None)
            self._begun = first.at if first is not None else now
        aged = not 0 <= now - self._begun < RECORDED.total_seconds()
        if aged or (path.exists() and path.stat().st_size > MOST_BYTES):
            with suppress(FileNotFoundError):
                path.replace(self._folder / BEFORE)
            self._begun = now


def recorded_logins(folder: Path) -> tuple[RecordedLogin, ...]:
    """Return what is recorded in that folder: nothing where no exporter has written anything."""
    return tuple(login for name in (BEFORE, NAME) for login in _logins_in(folder / name))


def _logins_in(path: Path) -> Iterator[RecordedLogin]:
    with suppress(OSError):
        for line in lines_in(end_of(path, MOST_BYTES + 1).decode(errors="replace")):
            with suppress(ValueError):
                at, family, client = line.split()
                yield RecordedLogin.model_validate({"at": float(at), "family": int(family), "client": client})
