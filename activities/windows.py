"""The window's step: may the next wave of a change start now? Asked again and again, as freezes are added."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

from temporalio import activity

from activities.liveness import in_a_thread
from policies.model.errors import BadInput
from policies.model.fleet import Fleet
from policies.model.plan import Plan
from policies.model.value import Digest, Name, Value
from policies.model.windows import Freeze, Frozen, KeptFreeze, WindowAnswer
from policies.planning.calendars import LARGEST, read_calendar
from policies.planning.fitting import needed_for
from policies.planning.windows import AGAIN, standing, zones_of


class WindowQuery(Value):
    """Which wave of which plan wants to start, or is under way."""

    change: Name
    plan: Digest
    wave: int
    under_way: bool = False
    """Whether it goes on already: then nothing has to fit any more."""
    overridden_at: datetime | None = None
    """When somebody started it outside of every window: only what was frozen since then counts."""


class FreezeBook(Protocol):
    """What people have frozen, which fleets have a turn, and whole plans."""

    def plan(self, digest: str) -> Plan:
        """Return the plan; BadInput when there is none of that digest."""
        ...

    def freezes(self, fleet: str) -> tuple[KeptFreeze, ...]:
        """Return what people have frozen of the fleet."""
        ...

    def take_turn(self, fleet: str, change: str, most: int) -> tuple[str, ...]:
        """Give the change a turn; return the fleets that have them all otherwise."""
        ...

    def give_turn_back(self, fleet: str, change: str) -> None:
        """Let others change while this one waits."""
        ...


class FleetFolder(Protocol):
    """Fleets by name, and where their files lie."""

    def fleet(self, name: str) -> Fleet:
        """Return the fleet as its file describes it now; BadInput without one."""
        ...

    def place_of(self, name: str) -> Path:
        """Return the file that describes the fleet."""
        ...


@dataclass(frozen=True)
class Calendars:
    """The calendars beside fleets' files, read when they are asked about."""

    folder: FleetFolder

    def frozen(self, fleet: Fleet, at: datetime) -> tuple[Frozen, ...]:
        """Return every time that the fleet's file freezes around that moment.

        Raises:
            BadInput: A calendar of it cannot be read; the sentence names it.
        """
        return tuple(span for freeze in fleet.freezes for span in self.frozen_by(fleet, freeze, at))

    def frozen_by(self, fleet: Fleet, freeze: Freeze, at: datetime) -> Sequence[Frozen]:
        """Return the times of one freeze around that moment; raises as `frozen` does."""
        if freeze.ics is None:
            return freeze.frozen
        path = self.folder.place_of(fleet.name).parent / freeze.ics
        try:
            with path.open("rb") as file:
                content = file.read(LARGEST + 1)
        except OSError as error:
            raise BadInput(
                f"the freezes of {path} cannot be read: {error.strerror}; put the file there"
            ) from error
        spans = read_calendar(content, str(path), freeze.tz, at)
        return [span.model_copy(update={"what": _named(freeze.name, span.what)}) for span in spans]


def _named(name: str, what: str) -> str:
    return f"{name}: {what}" if what else name


class WindowActivities:
    """Asking; the only thing that it writes down is whose turn it is."""

    def __init__(self, book: FreezeBook, folder: FleetFolder, at_once: int | None = None) -> None:
        """Know where freezes are, and how many fleets may change at the same time, None for any number."""
        self._book = book
        self._folder = folder
        self.calendars = Calendars(folder)
        self._at_once = at_once

    @activity.defn(name="ask_window")
    async def ask_window(self, query: WindowQuery) -> WindowAnswer:
        """Return whether the wave may start now, in the sentence that every surface shows."""
        return await in_a_thread(self._ask, query, datetime.now(UTC))

    def _ask(self, query: WindowQuery, at: datetime) -> WindowAnswer:
        plan = self._book.plan(query.plan)
        answer = self._standing(query, plan, at)
        if query.under_way:
            return answer
        fleet = plan.fleet.name
        if not answer.fits or self._at_once is None or query.overridden_at is not None:
            self._book.give_turn_back(fleet, query.change)
            return answer
        if others := self._book.take_turn(fleet, query.change, self._at_once):
            first = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if others[3:] else "")
            sentence = f"{first} change now, and at most {self._at_once} fleets may at the same time"
            return WindowAnswer(fits=False, is_open=True, sentence=sentence, again=AGAIN)
        return answer

    def _standing(self, query: WindowQuery, plan: Plan, at: datetime) -> WindowAnswer:
        if query.overridden_at is not None:
            fleet = plan.fleet.model_copy(update={"windows": ()})
            return standing(fleet, self._of_people(fleet.name, query.overridden_at), at)
        return self.standing(plan, query.wave, at, under_way=query.under_way)

    def standing(self, plan: Plan, wave: int, at: datetime, *, under_way: bool = False) -> WindowAnswer:
        """Return whether that wave of the plan may start then, or may be under way.

        What is frozen counts as the fleet's file says now and as it said when the plan was made.
        """
        fleet = plan.fleet
        try:
            frozen = (*self.frozen(fleet, at), *self.calendars.frozen(self._folder.fleet(fleet.name), at))
        except BadInput as unreadable:  # nobody knows what is frozen, so nothing starts
            why = f"closed: {unreadable}"
            return WindowAnswer(fits=False, is_open=False, is_known=False, sentence=why, again=AGAIN)
        gateways = next((one.gateways for one in plan.waves if one.number == wave), ())
        zones = zones_of(fleet, gateways or None)
        if under_way:
            return standing(fleet.model_copy(update={"min_tail": timedelta(0)}), frozen, at, zones=zones)
        return standing(fleet, frozen, at, zones=zones, needs=needed_for(plan, wave))

    def frozen(self, fleet: Fleet, at: datetime) -> tuple[Frozen, ...]:
        """Return every time that people, or the fleet as it is described here, freeze around that moment.

        Raises:
            BadInput: A calendar of it cannot be read; the sentence names it.
        """
        return (*self._of_people(fleet.name), *self.calendars.frozen(fleet, at))

    def open_until(self, fleet: Fleet, gateway: Name, at: datetime) -> datetime | None:
        """Return until when something may begin on that gateway by itself.

        None while nothing may, where no window is declared, and when nobody knows what is frozen.
        """
        if not fleet.windows:
            return None
        try:
            frozen = self.frozen(fleet, at)
        except BadInput:
            return None
        answer = standing(fleet, frozen, at, zones=zones_of(fleet, (gateway,)))
        return answer.until if answer.fits else None

    def _of_people(self, fleet: str, since: datetime | None = None) -> tuple[Frozen, ...]:
        return tuple(
            span.model_copy(update={"what": kept.name})
            for kept in self._book.freezes(fleet)
            if since is None or kept.at > since
            for span in kept.spans
        )
