"""Windows and freezes: when waves of a fleet may start; freezes of people are added and removed here."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property

from pydantic import AwareDatetime

from activities.files import FleetFiles
from activities.windows import WindowActivities
from orchestrator.service.acting import Acting
from orchestrator.service.fleets import Fleets
from orchestrator.service.telling import told_of
from orchestrator.store.freezes import kept_now
from orchestrator.store.ledger import Ledger
from policies.access import Action
from policies.model.change import Phase
from policies.model.errors import BadInput, PenstockError, Refused
from policies.model.fleet import Fleet
from policies.model.offer import Offer, Verb
from policies.model.people import Caller
from policies.model.plan import Plan
from policies.model.value import Name, Value
from policies.model.windows import (
    CalendarFile,
    Freeze,
    Frozen,
    KeptFreeze,
    Opening,
    PatchWindow,
    WindowAnswer,
)
from policies.model.zones import RULES, SITE
from policies.planning.calendars import read_calendar
from policies.planning.windows import free, moment, shown_in, standing, zones_of
from policies.status.waiting import waiting

SHOWN_OPENINGS, SHOWN_AHEAD = 10, timedelta(days=60)
"""Openings that are listed, of so many days."""

SHOWN_SPANS = 20
"""Times of one freeze that are listed; more are counted."""


class Checked(Value):
    """Whether waves may start at a moment."""

    fleet: Name
    at: AwareDatetime
    sentence: str
    open: bool
    until: AwareDatetime | None


class ShownOpening(Opening):
    """An opening as people read it, in their zone and in UTC."""

    sentence: str


class ShownFreeze(Value):
    """A freeze, from where it is, and its first times."""

    name: str
    spans: tuple[Frozen, ...]
    count: int
    reason: str = ""
    person: str | None = None
    """Who added it; None for one of the fleet's file."""


class Windows(Value):
    """When waves of a fleet may start."""

    fleet: Name
    now: Checked
    windows: tuple[PatchWindow, ...]
    zones: tuple[str, ...]
    openings: tuple[ShownOpening, ...]
    """The next ones, without what is frozen."""
    freezes: tuple[ShownFreeze, ...]
    rules: str
    """Which edition of the rules of time zones this rests on."""


class StartTerms(Value):
    """On which terms an upgrade starts."""

    answer: WindowAnswer
    start_by: datetime | None = None
    """The closing of the opening that it is for; None where nothing ever closes."""


@dataclass(frozen=True)
class WindowService:
    """Answers when waves may start, and keeps what people freeze."""

    fleets: Fleets
    files: FleetFiles
    ledger: Ledger
    acts: Acting

    @cached_property
    def _asking(self) -> WindowActivities:
        return WindowActivities(self.ledger, self.files)

    async def of(self, caller: Caller, fleet: str) -> Windows:
        """Return when waves of the fleet may start, from now on."""
        named = await asyncio.to_thread(self.fleets.for_action, caller, Action.READ, fleet)
        return await asyncio.to_thread(self._of, named, datetime.now(UTC))

    async def check(self, caller: Caller, fleet: str, at: datetime | None) -> Checked:
        """Return whether waves of the fleet may start at that moment, now without one."""
        named = await asyncio.to_thread(self.fleets.for_action, caller, Action.READ, fleet)
        return await asyncio.to_thread(self._checked, named, at or datetime.now(UTC))

    async def add(
        self, caller: Caller, fleet: str, freeze: Freeze, reason: str, calendar: str | None = None
    ) -> KeptFreeze:
        """Freeze the fleet then; a change that is under way holds at its next safe point.

        Raises:
            BadInput: The calendar is none, or has no time to come; or no gateway says where its site is.
            Conflict: Another freeze has this name.
        """
        named = await asyncio.to_thread(self.fleets.for_action, caller, Action.FREEZE, fleet)
        spans = await asyncio.to_thread(_spans, freeze, calendar, datetime.now(UTC))
        if not spans:
            raise BadInput(
                f"the freeze {freeze.name} has no time within 400 days; check that it is the one you mean"
            )
        lost = None if named.tz else next((one.name for one in named.gateways if one.tz is None), None)
        if lost is not None and any(span.tz == SITE for span in spans):
            raise BadInput(f"nothing says in which zone {lost} is; say --tz ZONE, or tz in the fleet's file")
        kept = kept_now(fleet, freeze.name, spans, caller.person, reason)

        async def add() -> KeptFreeze:
            await asyncio.to_thread(self.ledger.add_freeze, kept)
            return kept

        said = {"reason": reason, "name": freeze.name}
        return await self.acts.audited(caller, "freeze asked for", fleet, said, add)

    async def remove(self, caller: Caller, fleet: str, name: str, reason: str) -> None:
        """Freeze the fleet no more then; Unknown where no person has added such a freeze."""
        await asyncio.to_thread(self.fleets.for_action, caller, Action.FREEZE, fleet)

        async def remove() -> None:
            await asyncio.to_thread(self.ledger.remove_freeze, fleet, name, caller.person, reason)

        said = {"reason": reason, "name": name}
        await self.acts.audited(caller, "removal of a freeze asked for", fleet, said, remove)

    async def sentence_for(self, plan: Plan) -> str:
        """Return what the plan's screen says of its window now."""
        return (await asyncio.to_thread(self._answer, plan, datetime.now(UTC))).sentence

    async def terms(self, plan: Plan, *, in_window: bool) -> StartTerms:
        """Return on which terms the plan may start now, or in its window.

        Raises:
            Refused: It may not start now and is not to wait; or no opening is ever long enough.
        """
        now = datetime.now(UTC)
        answer = await asyncio.to_thread(self._answer, plan, now)
        fleet = plan.fleet.name
        if not answer.fits and not in_window:
            wait = "; have it wait for that: --at window" if answer.until is not None else ""
            raise Refused(f"{fleet} is {answer.sentence}{wait}", Offer(verb=Verb.WINDOWS, fleet=fleet))
        if not answer.fits and answer.until is None:
            raise Refused(f"{fleet} is {answer.sentence}", Offer(verb=Verb.WINDOWS, fleet=fleet))
        opens = answer if answer.fits or answer.until is None else None
        if opens is None and answer.until is not None:
            opens = await asyncio.to_thread(self._answer, plan, answer.until)
        return StartTerms(answer=answer, start_by=opens.until if opens is not None else None)

    async def waited_for(self, change: str | None) -> str | None:
        """Return what a change waits for that has just begun, as its status says it.

        None where it waits for nothing, and where no worker has named it: it has begun, whoever cannot say
        more.
        """
        if change is None:
            return None
        try:
            return await asyncio.to_thread(self._waited_for, change, datetime.now(UTC))
        except PenstockError:
            return None

    def _waited_for(self, change: str, at: datetime) -> str | None:
        record = self.ledger.change(change)
        told = told_of(self.ledger, record, at)
        if told.phase is Phase.WAITING:
            return told.what
        if told.phase is not Phase.STARTING or record.plan is None:
            return None
        answer = self._answer(self.ledger.plan(record.plan), at)
        return None if answer.fits else waiting(answer, at)

    def opening(self, fleet: Fleet, at: datetime) -> Opening | None:
        """Return the opening of the fleet's windows that is now; None outside, and while nobody knows."""
        try:
            frozen = self._asking.frozen(fleet, at)
        except BadInput:
            return None
        found = free(fleet, frozen, zones_of(fleet), at, at + timedelta(minutes=1)) if fleet.windows else []
        return next((one for one in found if one.opens <= at < one.closes), None)

    def next_one(self, fleet: Fleet, at: datetime) -> str | None:
        """Return when a window opens next, as people read it; None where none does.

        Raises:
            BadInput: A calendar cannot be read, so nobody knows.
        """
        everything = fleet.model_copy(update={"min_tail": timedelta(0)})
        return standing(everything, self._asking.frozen(fleet, at), at).opens

    def _answer(self, plan: Plan, at: datetime) -> WindowAnswer:
        first = plan.waves[0].number if plan.waves else 1
        return self._asking.standing(plan, first, at)

    def _of(self, fleet: Fleet, at: datetime) -> Windows:
        zones = zones_of(fleet)
        place = shown_in(fleet, zones)
        try:
            frozen, wrong = self._asking.frozen(fleet, at), None
        except BadInput as unreadable:
            frozen, wrong = (), unreadable
        found = [] if wrong or not fleet.windows else free(fleet, frozen, zones, at, at + SHOWN_AHEAD)
        return Windows(
            fleet=fleet.name,
            now=self._checked(fleet, at),
            windows=fleet.windows,
            zones=zones,
            openings=tuple(
                ShownOpening(
                    opens=one.opens,
                    closes=one.closes,
                    sentence=f"{moment(one.opens, place)} to {moment(one.closes, place)}",
                )
                for one in found[:SHOWN_OPENINGS]
            ),
            freezes=self._freezes(fleet, at),
            rules=RULES,
        )

    def _freezes(self, fleet: Fleet, at: datetime) -> tuple[ShownFreeze, ...]:
        shown = []
        for one in fleet.freezes:
            try:
                spans, why = self._asking.calendars.frozen_by(fleet, one, at), ""
            except BadInput as unreadable:
                spans, why = (), str(unreadable)
            shown.append(
                ShownFreeze(name=one.name, spans=tuple(spans)[:SHOWN_SPANS], count=len(spans), reason=why)
            )
        return tuple(shown) + tuple(
            ShownFreeze(
                name=kept.name,
                spans=kept.spans[:SHOWN_SPANS],
                count=len(kept.spans),
                reason=kept.reason,
                person=kept.person,
            )
            for kept in self.ledger.freezes(fleet.name)
        )

    def _checked(self, fleet: Fleet, at: datetime) -> Checked:
        try:
            answer = standing(
                fleet.model_copy(update={"min_tail": timedelta(0)}), self._asking.frozen(fleet, at), at
            )
        except BadInput as unreadable:
            answer = WindowAnswer(fits=False, is_open=False, sentence=f"closed: {unreadable}")
        return Checked(
            fleet=fleet.name, at=at, sentence=answer.sentence, open=answer.is_open, until=answer.until
        )


def _spans(freeze: Freeze, calendar: str | None, at: datetime) -> tuple[Frozen, ...]:
    """Return the times of a freeze that a person adds, with the content of its calendar where it has one."""
    match freeze.source:
        case Frozen() as time_itself:
            return (time_itself,)
        case CalendarFile(path):
            if calendar is None:
                raise BadInput(f"the freeze {freeze.name} came without its calendar; send that, too")
            return read_calendar(calendar.encode(), path, freeze.tz, at)
