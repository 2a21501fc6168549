"""The window's step: may the next wave of a change start now? Asked again and again, as freezes are added."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, Protocol

from temporalio import activity

from activities.calendars import Calendars, FleetFolder
from activities.liveness import answering
from policies.model.errors import BadInput
from policies.model.fleet import Fleet
from policies.model.plan import Plan
from policies.model.value import Digest, Name, Value
from policies.model.windows import Frozen, KeptFreeze, WindowAnswer
from policies.planning.fitting import needed_for
from policies.planning.windows import AGAIN, standing, zones_of

THREADS = 2
"""That answer: what reads calendars for seconds after a start keeps no other step from its turn."""


MOST_WAVES_KEPT = 2_000
"""Waves of which is remembered what counts: no gateways, but for one."""


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

    def take_turn(self, fleet: str, change: str, most: int | None) -> tuple[str, ...]:
        """Give the change a turn, None for however many have one; return the fleets that have them all."""
        ...

    def give_turn_back(self, fleet: str, change: str) -> None:
        """Let others change while this one waits."""
        ...


class _WaveAsked(NamedTuple):
    """What counts of a wave; its fleet has one gateway, which says as much about zones as all of them."""

    fleet: Fleet
    zones: tuple[str, ...]
    all_zones: tuple[str, ...]
    needs: timedelta


def _asked_of(plan: Plan, wave: int) -> _WaveAsked:
    fleet = plan.fleet
    gateways = next((one.gateways for one in plan.waves if one.number == wave), ())
    named = tuple(one for one in fleet.gateways if one.tz is not None)
    return _WaveAsked(
        fleet=fleet.model_copy(update={"gateways": (named or fleet.gateways)[:1]}),
        zones=zones_of(fleet, gateways or None),
        all_zones=zones_of(fleet),
        needs=needed_for(plan, wave),
    )


class WindowActivities:
    """Asking; the only thing that it writes down is whose turn it is."""

    def __init__(self, book: FreezeBook, folder: FleetFolder, at_once: int | None = None) -> None:
        """Know where freezes are, and how many fleets may change at the same time, None for any number."""
        self._book = book
        self._folder = folder
        self.calendars = Calendars(folder)
        self._at_once = at_once
        self._waves: dict[tuple[Digest, int], _WaveAsked] = {}
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="windows")

    @activity.defn(name="ask_window")
    async def ask_window(self, query: WindowQuery) -> WindowAnswer:
        """Return whether the wave may start now, in the sentence that every surface shows."""
        async with answering():
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, self._ask, query, datetime.now(UTC))

    def _ask(self, query: WindowQuery, at: datetime) -> WindowAnswer:
        asked = self._wave(query.plan, query.wave)
        answer = self._standing(query, asked, at)
        fleet = asked.fleet.name
        if self._at_once is None or query.overridden_at is not None:
            return answer  # nobody waits for anybody
        if query.under_way:  # it changes, so it has its turn, even if a late answer took that away
            self._book.take_turn(fleet, query.change, None)
            return answer
        if not answer.fits:
            self._book.give_turn_back(fleet, query.change)
            return answer
        if others := self._book.take_turn(fleet, query.change, self._at_once):
            first = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if others[3:] else "")
            change = "change" if others[1:] else "changes"
            fleets = "1 fleet" if self._at_once == 1 else f"{self._at_once} fleets"
            sentence = f"{first} {change} now, and at most {fleets} may at the same time"
            return WindowAnswer(fits=False, is_open=True, sentence=sentence, again=AGAIN)
        return answer

    def _wave(self, digest: Digest, wave: int) -> _WaveAsked:
        """Return what counts of that wave, remembered: of a large fleet a plan takes long to read."""
        found = self._waves.get((digest, wave))
        if found is None:
            if len(self._waves) >= MOST_WAVES_KEPT:
                self._waves.clear()
            found = self._waves[digest, wave] = _asked_of(self._book.plan(digest), wave)
        return found

    def _standing(self, query: WindowQuery, asked: _WaveAsked, at: datetime) -> WindowAnswer:
        if query.overridden_at is not None:
            fleet = asked.fleet.model_copy(update={"windows": ()})
            frozen = self._of_people(fleet.name, query.overridden_at)
            return standing(fleet, frozen, at, zones=asked.all_zones)
        return self._of(asked, at, under_way=query.under_way)

    def standing(self, plan: Plan, wave: int, at: datetime, *, under_way: bool = False) -> WindowAnswer:
        """Return whether that wave of the plan may start then, or may be under way.

        What is frozen counts as the fleet's file says now and as it said when the plan was made.
        """
        return self._of(_asked_of(plan, wave), at, under_way=under_way)

    def _of(self, asked: _WaveAsked, at: datetime, *, under_way: bool) -> WindowAnswer:
        fleet = asked.fleet
        try:
            described = self._folder.fleet(fleet.name).freezes
            since = tuple(one for one in described if one not in fleet.freezes)
            every = fleet.model_copy(update={"freezes": (*fleet.freezes, *since)})
            frozen = self.frozen(every, at)
        except BadInput as unreadable:  # nobody knows what is frozen, so nothing starts
            why = f"closed: {unreadable}"
            return WindowAnswer(fits=False, is_open=False, is_known=False, sentence=why, again=AGAIN)
        if under_way:
            no_tail = fleet.model_copy(update={"min_tail": timedelta(0)})
            return standing(no_tail, frozen, at, zones=asked.zones)
        return standing(fleet, frozen, at, zones=asked.zones, needs=asked.needs)

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
