"""The calendars beside fleets' files: read once while a file stays the same, for all fleets that name it."""

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import NamedTuple, Protocol

from policies.model.errors import BadInput
from policies.model.fleet import Fleet
from policies.model.windows import CalendarFile, Freeze, Frozen
from policies.planning.calendars import LARGEST, read_calendar

MOST_KEPT, MOST_SPANS_KEPT = 1_000, 100_000
"""Calendars that are remembered, and times of all of them together; of more those that nobody asked about."""

MOST_NAMES_KEPT = 4
"""Names by which fleets call one calendar that are remembered with it."""

SETTLED = timedelta(seconds=2)
"""A file that was written less long ago may be written again within the same tick of its clock."""


class FleetFolder(Protocol):
    """Fleets by name, and where their files lie."""

    def fleet(self, name: str) -> Fleet:
        """Return the fleet as its file describes it now; BadInput without one."""
        ...

    def place_of(self, name: str) -> Path:
        """Return the file that describes the fleet."""
        ...


class _Asked(NamedTuple):
    """Which calendar in which zone; and around which day, since one without an end is followed so far."""

    path: str
    tz: str
    day: datetime


class _State(NamedTuple):
    """What tells a file from what was there before."""

    written: int
    size: int
    number: int


class _Read(NamedTuple):
    """What was found in a file, or why it could not be read."""

    state: _State
    spans: tuple[Frozen, ...]
    wrong: str | None
    called: dict[str, tuple[Frozen, ...]]
    """The same times, as freezes of these names have them."""

    def as_(self, name: str) -> tuple[Frozen, ...]:
        """Return the times as those of the freeze of that name."""
        found = self.called.get(name)
        if found is None:
            if len(self.called) >= MOST_NAMES_KEPT:
                self.called.clear()
            found = tuple(one.model_copy(update={"what": _named(name, one.what)}) for one in self.spans)
            self.called[name] = found
        return found


class ReadCalendars:
    """What calendars froze when they were read; of one at a time, since that takes seconds of a processor."""

    def __init__(self) -> None:
        """Begin with none."""
        self._reading = threading.Lock()
        self._known: OrderedDict[_Asked, _Read] = OrderedDict()

    def spans(self, path: Path, freeze: Freeze, at: datetime) -> tuple[Frozen, ...]:
        """Return the times of that freeze around the moment; its calendar is read where that is another one.

        Raises:
            BadInput: It cannot be read, or is no calendar; the sentence names it.
        """
        asked = _Asked(str(path), freeze.tz, _following_day(at))
        found = self._still_so(asked)
        if found is None:
            with self._reading:
                found = self._still_so(asked) or self._read(asked)
        if found.wrong is not None:
            raise BadInput(found.wrong)
        return found.as_(freeze.name)

    def _still_so(self, asked: _Asked) -> _Read | None:
        found = self._known.get(asked)
        try:
            state = _state(os.stat(asked.path))  # noqa: PTH116 - asked for each question of each fleet
        except OSError:
            return None
        return found if found is not None and found.state == state else None

    def _read(self, asked: _Asked) -> _Read:
        try:
            with open(asked.path, "rb") as file:  # noqa: PTH123 - as above
                state = os.fstat(file.fileno())
                content = file.read(LARGEST + 1)
        except OSError as error:
            why = f"the freezes of {asked.path} cannot be read: {error.strerror}; put the file there"
            raise BadInput(why) from error
        try:
            found = _Read(_state(state), read_calendar(content, asked.path, asked.tz, asked.day), None, {})
        except BadInput as wrong:
            found = _Read(_state(state), (), str(wrong), {})
        if abs(datetime.now(UTC) - datetime.fromtimestamp(state.st_mtime, UTC)) > SETTLED:
            self._keep(asked, found)
        return found

    def _keep(self, asked: _Asked, found: _Read) -> None:
        """Remember it; what was read longest ago is forgotten, and every older day of the same calendar."""
        older = [one for one in self._known if one[:2] == asked[:2] and one.day < asked.day]
        for one in (asked, *older):
            self._known.pop(one, None)
        self._known[asked] = found
        while len(self._known) > MOST_KEPT or self._kept > MOST_SPANS_KEPT:
            self._known.popitem(last=False)

    @property
    def _kept(self) -> int:
        return sum(len(one.spans) for one in self._known.values())


def _following_day(at: datetime) -> datetime:
    """Return the midnight after that moment: what is read around it is enough for the whole day."""
    return datetime.combine(at.astimezone(UTC).date() + timedelta(days=1), time(), UTC)


def _state(stat: os.stat_result) -> _State:
    return _State(stat.st_mtime_ns, stat.st_size, stat.st_ino)


@dataclass(frozen=True)
class Calendars:
    """What fleets' files freeze, calendars included."""

    folder: FleetFolder
    read: ReadCalendars = field(default_factory=ReadCalendars)

    def frozen(self, fleet: Fleet, at: datetime) -> tuple[Frozen, ...]:
        """Return every time that the fleet's file freezes around that moment.

        Raises:
            BadInput: A calendar of it cannot be read; the sentence names it.
        """
        return tuple(span for freeze in fleet.freezes for span in self.frozen_by(fleet, freeze, at))

    def frozen_by(self, fleet: Fleet, freeze: Freeze, at: datetime) -> tuple[Frozen, ...]:
        """Return the times of one freeze around that moment; raises as `frozen` does."""
        match freeze.source:
            case Frozen() as time_itself:
                return (time_itself,)
            case CalendarFile(path):
                return self.read.spans(self.folder.place_of(fleet.name).parent / path, freeze, at)


def _named(name: str, what: str) -> str:
    return f"{name}: {what}" if what else name
