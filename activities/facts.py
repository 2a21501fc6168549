"""Facts of a fleet: what its gateways said of themselves, and what of that is not as the ledger wants it."""

import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import NamedTuple, Protocol

from temporalio import activity

from activities.host_record import Collected, HostRecordBook, today
from activities.incomplete_ends import EndBook, complete_ends
from activities.liveness import in_a_thread
from activities.lost_changes import LostBook, gateways_of, lost_changes, reports_count_since
from activities.quarantines import FRESH, QuarantineBook, end_quarantines
from activities.taken_over import TakenBook, taken_over
from policies.claims import Claim, is_due
from policies.drift import (
    handed_over,
    is_by_hand,
    left_behind,
    missed,
    pages_due,
    runs_beside,
    spoken,
    steered_by_hand,
    strays,
    taken_off,
    unset,
)
from policies.history import OrderedReloads, UnfinishedSettings
from policies.incomplete_ends import Answer, is_back
from policies.model.change import (
    IN_QUARANTINE,
    PENSTOCK,
    ChangeKind,
    ChangeRecord,
    KnownGoodMove,
    LostChange,
    Quarantine,
    Returns,
)
from policies.model.errors import BadInput
from policies.model.fleet import Fleet, GatewayRef
from policies.model.instance import GatewayState
from policies.model.plan import ReleaseRef
from policies.model.plan_part import MOST_MEMBERS, Member, PlanHeader
from policies.model.report import TakenOver
from policies.model.settings import lines_of
from policies.model.value import Digest, Name, Packed, Value
from policies.planning.capacity import Load, load_of, waits_for_capacity
from policies.rebuilding import later_than, what_is_ahead
from policies.returns import next_try, not_paged, relapses_too_often, waits

RECENT = timedelta(seconds=5)
"""Batches that ask within this time share one look at a fleet's facts, of which only new ones are read."""

NAMED = 20
"""Strays that an answer names; the way back finds all of them."""


class FleetQuery(Value):
    """Which page of a fleet, and how many pages are scanned at once; all of them without a number."""

    fleet: Name
    first: int = 0
    pages: int | None = None


class FleetPage(Value):
    """Some gateways of a fleet, how many it has, and where the pages begin that are scanned next."""

    total: int
    gateways: tuple[GatewayRef, ...]
    firsts: tuple[int, ...]


class StateRows(Value):
    """What some gateways said, and why others were silent."""

    fleet: Name
    states: tuple[GatewayState, ...] = ()
    silent: dict[str, str] = {}
    asked: dict[str, datetime] = {}
    """When each of them was asked, by the engine's clock."""


class Strays(Value):
    """Gateways that are not on their known-good, each with how, and changes without an end."""

    strays: dict[str, str] = {}
    untouched: tuple[Name, ...] = ()
    """The first of them that no change without an end has touched, which looks after its own."""
    open_changes: tuple[str, ...] = ()
    lets_nothing_in: bool = False
    """Whether one of them has a wave under way, so that it need not be asked to let anything in."""
    source: str | None = None
    """Where a known-good of theirs comes from, for a host that has lost it."""
    ahead: str | None = None
    """What is reported of gateways that changes steered which the ledger does not know, None without any."""
    by_hand: dict[str, str] = {}
    """Gateways that operators took from their known-good on their hosts, and that are not left out yet."""
    seen: dict[str, datetime] = {}
    """Since when those of them are left out that penstock left out."""
    unpaged: dict[str, str] = {}
    """Those of them about which operators were not paged in the last hours."""
    resting: dict[str, str] = {}
    """The first gateways that are not on their known-good and are brought back later, each with when."""
    more_resting: int = 0
    """How many there are besides these."""
    is_awaited: bool = False
    """Whether each change without an end waits for one of these, and ends after that is back."""
    taken_off: dict[Name, dict[Name, int]] = {}
    """Gateways that operators steered on their hosts off the release of a change without an end, after their
    wave had passed, by that change: each with the epoch of its break-glass."""
    missed: tuple[Name, ...] = ()
    """The first gateways that answer, and have not answered the last reload of credentials."""
    unset: tuple[Name, ...] = ()
    """The first gateways that answer, and have not answered the change of settings that the fleet is on."""


class MissedQuery(Value):
    """Which fleet's gateways are asked again, for credentials or for settings."""

    fleet: Name
    kind: ChangeKind
    is_beside: bool = False
    """Whether another change has the fleet's lock meanwhile."""
    still_moved: Packed[tuple[Name, ...]] = ()
    """Gateways that the other change still moves."""


class Repeat(Value):
    """How the last reload, or the change of settings that a fleet is on, gets to gateways that missed it.

    `repeats` is that change, and `takes_back` the one that it took back, where it was a way back.
    """

    plan: Digest
    repeats: Name
    takes_back: Name | None = None


class ReturnQuery(Value):
    """Which fleet's strays go back; `change` is the one that asks, `beside` one that only waits meanwhile.

    Beside another change only the gateways `drifted` go back: that one does not move them.
    """

    fleet: Name
    change: Name
    locked: datetime | None = None
    """Since when it has the fleet's lock, by the engine's clock."""
    beside: Name | None = None
    drifted: tuple[Name, ...] = ()


class TriesEntry(Value):
    """Gateways that a change begins to bring back, each with whether it drifted by no doing of a change."""

    fleet: Name
    change: Name
    gateways: dict[Name, bool]


class LeftAlone(Value):
    """How gateways that a change left alone go back."""

    plan: Digest | None
    """None where every gateway that answers is on its known-good already."""
    lost: tuple[Name, ...] = ()
    """Upgrades that died before they were promoted: what they promoted is taken back, and not watched."""
    is_awaited: bool = False
    """Whether a gateway that a change without an end has touched is brought back later."""
    awaited: dict[Name, str] = {}
    """The first of these gateways, each with why it is not back."""
    more_awaited: int = 0
    """How many there are besides these."""
    completes: tuple[Name, ...] = ()
    """The changes without an end that end once the gateways of the plan are back."""


class UndoQuery(Value):
    """Which gateways go back to what they had before a change that was promoted."""

    fleet: Name
    change: Name
    gateways: tuple[Name, ...]
    left_to: TakenOver | None = None
    """Gateways for which a later change answers until they are back, or it ends."""


class LeftOutQuery(Value):
    """Which gateways may be left out by operators: an answer never grows with its fleet."""

    fleet: Name
    gateways: tuple[Name, ...]


class StandsQuery(Value):
    """Which promotion is taken back, by its plan."""

    fleet: Name
    change: Name
    plan: Digest


class Undo(Value):
    """How gateways go back to what they had before a change; those in no field are not promoted yet."""

    plan: Digest | None = None
    """None where none of them goes back now."""
    gateways: tuple[Name, ...] = ()
    left_out: dict[Name, str] = {}
    """Gateways that stay as they are for now, each with why: quarantined, or a later change moves them."""
    taken: tuple[Name, ...] = ()
    """Gateways that a later change has taken over."""
    settled: tuple[Name, ...] = ()
    """Gateways that another change has moved since, or that left the fleet's file."""


class CapacityQuery(Value):
    """Which gateways of a plan are to start, and the loads that have just been read of some of them."""

    plan: Digest
    gateways: tuple[Name, ...]
    loads: dict[Name, Load]


class Readiness(Value):
    """Which of some gateways may not start now, and which are left out of changes, each with why."""

    short: dict[str, str] = {}
    left_out: dict[str, str] = {}


class Fleets(Protocol):
    """The fleets of this installation by name."""

    def fleet(self, name: str) -> Fleet:
        """Return the fleet as its file describes it now; BadInput when there is none of that name."""
        ...


class FactBook(QuarantineBook, EndBook, HostRecordBook, LostBook, TakenBook, Protocol):
    """The part of the ledger that facts are compared with; every write may be repeated."""

    def record_states(
        self,
        fleet: str,
        states: Sequence[GatewayState],
        silent: Mapping[str, str],
        asked: Mapping[str, datetime],
    ) -> None:
        """Write down what gateways said, and when each was asked."""
        ...

    def asked_at(self, fleet: str) -> dict[str, datetime]:
        """Return when each gateway was asked for the last time, whatever it said."""
        ...

    def states(self, fleet: str, within: timedelta) -> tuple[dict[str, GatewayState], dict[str, str]]:
        """Return what gateways said within that time, and who was silent."""
        ...

    def said_at(self, fleet: str, within: timedelta) -> dict[str, datetime]:
        """Return when gateways were asked that answered last, of those that were asked within that time."""
        ...

    def states_of(self, fleet: str, gateways: Sequence[str]) -> dict[str, GatewayState]:
        """Return what these gateways said last, of those of which that can be read."""
        ...

    def record_tries(self, fleet: str, gateways: Mapping[str, bool], change: str) -> None:
        """Write down that this change begins to bring back these gateways; a person's are not counted.

        Each comes with whether it drifted by no doing of a change.
        """
        ...

    def returns(self, fleet: str) -> dict[str, Returns]:
        """Return how often gateways were brought back in the last hours, of those that were."""
        ...

    def known_good(self, fleet: str) -> dict[str, ReleaseRef]:
        """Return what each gateway goes back to."""
        ...

    def targets(self, fleet: str, change: str, gateways: Collection[str]) -> dict[str, ReleaseRef]:
        """Return what these gateways had before the change, if no other has moved them since."""
        ...

    def moves(self, fleet: str, gateways: Collection[str] | None = None) -> tuple[KnownGoodMove, ...]:
        """Return the last move of the known-good of each of these gateways, or of all."""
        ...

    def newest_number(self, fleet: str) -> int:
        """Return the number of the fleet's newest change, 0 when there never was one."""
        ...

    def source_of(self, digests: Collection[str]) -> str | None:
        """Return where the newest of these releases comes from."""
        ...

    def ordered_reloads(self, fleet: str) -> OrderedReloads:
        """Return the reloads of credentials that gateways may have missed."""
        ...

    def unfinished_settings(self, fleet: str) -> UnfinishedSettings | None:
        """Return the change of settings that the fleet is on if some gateways may have missed it."""
        ...

    def touched_by_open_changes(self, fleet: str) -> frozenset[str]:
        """Return the gateways whose sessions changes without an end have moved.

        A way back that only waits for gateways has moved the others back, and looks after them no more.
        """
        ...

    def kept_by_open_changes(self, fleet: str, gateways: Collection[str]) -> dict[str, str]:
        """Return which of these gateways run the release of a change without an end, and of which one.

        Their waves have passed.
        """
        ...

    def record_reload(self, fleet: Fleet, names: tuple[str, ...]) -> str:
        """Write down that these gateways get their hosts' present credentials; return the plan's digest."""
        ...

    def record_repeat(self, header: PlanHeader, members: Sequence[Member]) -> str:
        """Write down that these gateways get what that plan had for them; return the plan's digest."""
        ...

    def departed(
        self, fleet: str, gateways: Collection[str], *, plan: Digest | None = None
    ) -> dict[str, Member]:
        """Return these gateways, which the fleet's file does not have any more, as that plan had them."""
        ...

    def record_return(
        self,
        fleet: Fleet,
        targets: Mapping[str, ReleaseRef],
        departed: Mapping[str, Member] | None = None,
        *,
        drifted: Collection[str] = (),
    ) -> str:
        """Write down which gateways go back to what; return the plan's digest."""
        ...


@dataclass(frozen=True)
class _Look:
    """What a fleet's gateways last said, and what of that is not as the ledger wants it."""

    fleet: str
    states: Mapping[str, GatewayState]
    silent: Collection[str]
    """The gateways that did not answer when they were asked last."""
    asked: Mapping[str, datetime]
    """When the gateways were asked that answered last; an answer is no older than this."""
    ahead: str | None
    known_good: Mapping[str, ReleaseRef]
    """What gateways go back to: those that the ledger knows less of than they do, to nothing."""
    left_out: tuple[Quarantine, ...]
    returns: Mapping[str, Returns]
    by_hand: Mapping[str, str]
    """Gateways that operators took from their known-good on their hosts, which are left alone."""
    members: Collection[str] | None
    """The gateways of the fleet's file, None where no file is."""

    @cached_property
    def taking_part(self) -> Mapping[str, GatewayState]:
        """What those gateways of the fleet's file said that answered, without any that is left out."""
        out = {one.gateway for one in self.left_out} | self.by_hand.keys()
        there = self.members if self.members is not None else ()
        return {name: state for name, state in self.states.items() if name in there and name not in out}

    @cached_property
    def looked_after(self) -> frozenset[str]:
        """The gateways that penstock brings back: not those that operators left out or steered by hand."""
        out = {one.gateway for one in self.left_out if one.person != PENSTOCK}
        return frozenset(self.known_good.keys() - self.by_hand.keys() - out)

    def is_back(self, gateway: str, since: datetime) -> bool:
        """Return whether the gateway reported after that time that it is on its known-good."""
        state, at = self.states.get(gateway), self.asked.get(gateway)
        answer = Answer(state, at) if state is not None and at is not None else None
        return is_back(answer, self.known_good.get(gateway), since, datetime.now(UTC))


@dataclass(frozen=True)
class _Loads:
    """What each gateway carried when that was read, and when it had said so."""

    at: float = float("-inf")
    moments: Mapping[str, datetime] = field(default_factory=dict)
    loads: Mapping[str, Load] = field(default_factory=dict)


class _Found(NamedTuple):
    """Gateways that are brought back now, and those that are later, each with how it strays."""

    now: dict[str, str]
    later: dict[str, str]
    unreported: dict[str, str]
    """Gateways that are brought back now, since they have not reported that a lost change left them back."""
    awaited: dict[str, str]
    """Those of the later ones for which lost changes wait."""
    waiting: frozenset[str]
    """These changes."""


class FactActivities:
    """Reading fleets and writing down what is true of them."""

    def __init__(self, book: FactBook, fleets: Fleets) -> None:
        self._book = book
        self._fleets = fleets
        self._looking = threading.Lock()
        self._looked: dict[str, _Loads] = {}

    @activity.defn(name="read_fleet")
    async def read_fleet(self, asked: FleetQuery) -> FleetPage:
        """Return the next gateways of the fleet, at most as many as one workflow looks after."""
        return await in_a_thread(self._read_fleet, asked)

    @activity.defn(name="record_states")
    async def record_states(self, rows: StateRows) -> dict[str, int]:
        """Ensure that the ledger knows what these gateways said.

        Returns:
            Whose own record has another number of lines than are in the ledger, and how many are there.
        """
        # They were asked by the engine's clock; the ledger's times are of the clock here.
        here = datetime.now(UTC) - activity.info().started_time
        asked = {name: at + here for name, at in rows.asked.items()}
        return await in_a_thread(self._record_states, rows, asked)

    @activity.defn(name="find_short_of_capacity")
    async def find_short_of_capacity(self, asked: CapacityQuery) -> Readiness:
        """Return which of these gateways may not start now, each with why, by the newest facts.

        One that an operator has left out since the plan was made starts no more in its change.
        """
        return await in_a_thread(self._find_short_of_capacity, asked)

    @activity.defn(name="find_strays")
    async def find_strays(self, fleet: str) -> Strays:
        """Return who is not on known-good, by the newest facts, and which changes have no end.

        An incomplete rollback whose gateways are back by these facts gets its end. So does a quarantine whose
        only reason was break-glass, once its gateway is on its known-good.
        """
        return await in_a_thread(self._find_strays, fleet)

    @activity.defn(name="plan_return")
    async def plan_return(self, asked: ReturnQuery) -> LeftAlone | None:
        """Write a plan that takes every stray to its known-good; None when there is nothing to do.

        Of a change without an end, what it left running beside goes back, too. So does each gateway that it
        may have changed and that has not reported since then that it is on its known-good.
        """
        # The caller's time is of the engine's clock; the ledger's times are of the clock here.
        here = datetime.now(UTC) - activity.info().started_time
        locked = asked.locked + here if asked.locked is not None else None
        return await in_a_thread(self._plan_return, asked, locked)

    @activity.defn(name="record_tries")
    async def record_tries(self, entry: TriesEntry) -> None:
        """Ensure that these gateways count as tried by the change, however often it says so."""
        await in_a_thread(self._book.record_tries, entry.fleet, entry.gateways, entry.change)

    @activity.defn(name="plan_missed")
    async def plan_missed(self, asked: MissedQuery) -> Repeat | None:
        """Write a plan for the gateways that missed the last reload, or settings; None where none did.

        Settings are those of the change that counts now: nobody has started what the fleet's file says
        meanwhile. Beside another change they come to no gateway whose sessions that one has moved.
        """
        return await in_a_thread(self._plan_missed, asked)

    @activity.defn(name="plan_undo")
    async def plan_undo(self, asked: UndoQuery) -> Undo:
        """Write a plan that takes gateways to what they had before the change.

        One whose known-good is that again goes there once more: its return has not ended with it back.
        """
        return await in_a_thread(self._plan_undo, asked)

    @activity.defn(name="plan_what_stands")
    async def plan_what_stands(self, asked: StandsQuery) -> Digest | None:
        """Return the plan by which that promotion is taken back; None where nothing of it stands.

        That is its own plan, unless later changes have moved gateways of it, which are left to them, or some
        have left the fleet's file, which go back if they answer.
        """
        return await in_a_thread(self._plan_what_stands, asked)

    @activity.defn(name="find_left_out")
    async def find_left_out(self, asked: LeftOutQuery) -> dict[Name, str]:
        """Return which of these gateways operators have quarantined, each with by whom and why."""
        out = await in_a_thread(self._left_out, asked.fleet)
        return {name: out[name] for name in asked.gateways if name in out}

    @activity.defn(name="find_handed_over")
    async def find_handed_over(self, asked: LeftOutQuery) -> dict[Name, datetime]:
        """Return which of these gateways operators have returned that are not back yet, and since when."""
        found = await in_a_thread(lambda: handed_over(self._book.quarantined(asked.fleet)))
        return {name: found[name] for name in asked.gateways if name in found}

    def _read_fleet(self, asked: FleetQuery) -> FleetPage:
        gateways = self._fleets.fleet(asked.fleet).gateways
        firsts = tuple(range(0, len(gateways), MOST_MEMBERS))
        if asked.pages is not None and asked.pages < len(firsts):
            names, at = [gateway.name for gateway in gateways], self._book.asked_at(asked.fleet)
            firsts = pages_due(names, at, MOST_MEMBERS, asked.pages, datetime.now(UTC))
        page = gateways[asked.first : asked.first + MOST_MEMBERS]
        return FleetPage(total=len(gateways), gateways=page, firsts=firsts)

    def _record_states(self, rows: StateRows, asked: Mapping[str, datetime]) -> dict[str, int]:
        self._book.record_states(rows.fleet, rows.states, rows.silent, asked)
        recorded = {state.gateway: state.recorded for state in rows.states}
        here, day = self._book.collected(rows.fleet, recorded), today()
        collected = {name: here.get(name, Collected()) for name in recorded}
        return {
            name: one.number
            for name, one in collected.items()
            if recorded[name] != one.number and one.room(day) > 0
        }

    def _find_short_of_capacity(self, asked: CapacityQuery) -> Readiness:
        plan = self._book.plan(asked.plan)
        left_out = {
            one.gateway: f"{IN_QUARANTINE} by {one.person}: {one.reason}"
            for one in self._book.quarantined(plan.fleet.name)
        }
        loads = {**self._loads(plan.fleet.name), **asked.loads}
        able = [name for name in asked.gateways if name not in left_out]
        return Readiness(
            short=waits_for_capacity(plan, able, loads, left_out),
            left_out={name: left_out[name] for name in asked.gateways if name in left_out},
        )

    def _loads(self, fleet: str) -> Mapping[str, Load]:
        """Return what each gateway carries by the newest facts, of which only those are read that are new."""
        with self._looking:
            before = self._looked.get(fleet, _Loads())
            if time.monotonic() - before.at <= RECENT.total_seconds():
                return before.loads
            moments = self._book.said_at(fleet, FRESH)
            same = {
                name: load for name, load in before.loads.items() if moments.get(name) == before.moments[name]
            }
            states = self._book.states_of(fleet, [name for name in moments if name not in same])
            loads = same | {name: load_of(state) for name, state in states.items()}
            self._looked[fleet] = _Loads(time.monotonic(), moments, loads)
            return loads

    def _plan_undo(self, asked: UndoQuery) -> Undo:
        fleet = self._fleets.fleet(asked.fleet)
        members = {gateway.name for gateway in fleet.gateways}
        targets = self._book.targets(asked.fleet, asked.change, asked.gateways)
        # A dead host may have been taken out of the fleet's file meanwhile.
        settled = {*asked.gateways} - members
        if {*asked.gateways} - targets.keys():
            again, elsewhere = self._moved_since(asked, targets.keys())
            targets, settled = targets | again, settled | elsewhere
        left_to = taken_over(self._book, asked.left_to)
        taken = left_to.now.intersection(asked.gateways)
        why = f"{left_to.change} has the fleet's lock, and changes it in a later wave"
        waits = dict.fromkeys(left_to.later.intersection(asked.gateways), why)
        settled -= taken
        out = self._left_out(asked.fleet) | waits
        able = {name: back for name, back in targets.items() if name not in out.keys() | settled | taken}
        return Undo(
            plan=self._book.record_return(fleet, able) if able else None,
            gateways=tuple(sorted(able)),
            left_out={
                name: out[name] for name in asked.gateways if name in out and name not in settled | taken
            },
            taken=tuple(sorted(taken)),
            settled=tuple(sorted(settled)),
        )

    def _moved_since(self, asked: UndoQuery, but: Collection[str]) -> tuple[dict[str, ReleaseRef], set[str]]:
        """Return where a return of this change has taken gateways, and which others took elsewhere."""
        change, again = self._book.change(asked.change), dict[str, ReleaseRef]()
        waiting = set[str]() if change.ended else {*asked.gateways}
        for move in self._book.moves(asked.fleet, asked.gateways):
            if move.number < change.number:
                continue
            waiting.discard(move.gateway)
            if move.returned and self._book.change(move.change).cause == asked.change:
                again[move.gateway] = move.release
        return again, {*asked.gateways} - waiting - again.keys() - {*but}

    def _left_out(self, fleet: str) -> dict[str, str]:
        """Return what operators have quarantined; what penstock has, it has to bring back."""
        found = (one for one in self._book.quarantined(fleet) if one.person != PENSTOCK)
        return {one.gateway: f"{IN_QUARANTINE} by {one.person}: {one.reason}" for one in found}

    def _plan_what_stands(self, asked: StandsQuery) -> Digest | None:
        plan, number = self._book.plan(asked.plan), self._book.change(asked.change).number
        moved = {move.gateway for move in self._book.moves(asked.fleet) if move.number > number}
        there = self._members_of_file(asked.fleet)
        if moved.isdisjoint(plan.wave_of) and (there is None or there.issuperset(plan.wave_of)):
            return asked.plan
        targets = {name: plan.known_good[name] for name in sorted(plan.wave_of) if name not in moved}
        if not targets:
            return None
        fleet = self._fleets.fleet(asked.fleet)
        gone = targets.keys() - {gateway.name for gateway in fleet.gateways}
        # One that failed by itself was never promoted: only the promotion's own plan has it.
        departed = self._book.departed(asked.fleet, gone, plan=asked.plan)
        return self._book.record_return(fleet, targets, departed)

    def _find_strays(self, fleet: str) -> Strays:
        end_quarantines(self._book, fleet)  # before the ends, for which a gateway has to take part
        look = self._look(fleet)
        if look.members is not None:
            complete_ends(self._book, fleet, look.members)
        lost = lost_changes(self._book, fleet, "")
        strays, resting, unreported, _, waiting = self._strays(fleet, look, self._not_back(look, lost))
        found = strays | unreported
        known = {one.gateway for one in look.left_out if one.person != PENSTOCK}
        fresh = {name: why for name, why in sorted(look.by_hand.items()) if name not in known}
        fresh = dict(list(fresh.items())[:NAMED])
        before = [release for one in _unpromoted(lost) for release in one.before.values()]
        back = {release.digest for release in (*(look.known_good[name] for name in found), *before)}
        touched = self._book.touched_by_open_changes(fleet) if found else frozenset()
        open_changes = self._book.open_changes(fleet)
        told = self._book.told_by(open_changes) if open_changes else {}
        claims = {name: one.claims for name, one in told.items()}
        waves = [name for name, one in told.items() if one.lets_nothing_in]
        return Strays(
            lets_nothing_in=any(self._book.lock_passed_on(name) is None for name in waves),
            by_hand=fresh,
            seen={one.gateway: one.since for one in look.left_out if one.gateway in fresh},
            unpaged=not_paged(fresh, look.returns, datetime.now(UTC)),
            resting=dict(sorted(resting.items())[:NAMED]),
            more_resting=max(0, len(resting) - NAMED),
            is_awaited=bool(waiting) and waiting.issuperset(open_changes),
            ahead=look.ahead,
            strays=dict(sorted(found.items())[:NAMED]),
            untouched=tuple(sorted(strays.keys() - touched)[:MOST_MEMBERS]),
            open_changes=open_changes,
            source=self._book.source_of(back) if back else None,
            taken_off=self._taken_off(fleet, look.states, look.left_out, claims),
            missed=self._missed(fleet, look)[:NAMED],
            unset=tuple(member.gateway.name for member in self._unset(fleet, look)[1][:NAMED]),
        )

    def _taken_off(
        self,
        fleet: str,
        states: Mapping[str, GatewayState],
        left_out: Collection[Quarantine],
        claims: Mapping[Name, Mapping[Name, Claim]],
    ) -> dict[Name, dict[Name, int]]:
        """Return the first of whom operators steered off the release of a change after their wave passed.

        None of them is one that an operator has returned since, or whose claim was looked into just now.
        """
        returned = handed_over(left_out)
        hand = {name: state.epoch for name, state in states.items() if is_by_hand(state, returned)}
        kept = self._book.kept_by_open_changes(fleet, hand) if hand else {}
        found, now = dict[Name, dict[Name, int]](), datetime.now(UTC)
        for change in sorted({*kept.values()}):
            release = self._book.change(change).release_digest
            off = [
                name
                for name in sorted(kept)
                if kept[name] == change
                and taken_off(states[name], release)
                and is_due(claims.get(change, {}), name, hand[name], now)
            ]
            if off:
                found[change] = {name: hand[name] for name in off[:NAMED]}
        return found

    def _look(self, fleet: str) -> _Look:
        """Read once what of 10,000 gateways takes seconds to read."""
        # The times first: an answer that is newer than its time is no older than that says.
        asked = self._book.said_at(fleet, FRESH)
        states, silent = self._book.states(fleet, FRESH)  # before the number: a change is written down first
        newest = self._book.newest_number(fleet)
        later = later_than(fleet, states, newest)
        members = self._members_of_file(fleet)
        known_good = {
            name: back
            for name, back in self._book.known_good(fleet).items()
            if name not in later and (members is None or name in members)
        }
        left_out = self._book.quarantined(fleet)
        by_hand = steered_by_hand(fleet, states, known_good, left_out)
        found = what_is_ahead(fleet, later, newest, len(states))
        ahead = found.sentence if found is not None else None
        returns = self._book.returns(fleet)
        return _Look(
            fleet, states, silent.keys(), asked, ahead, known_good, left_out, returns, by_hand, members
        )

    def _members_of_file(self, fleet: str) -> frozenset[str] | None:
        """Return the gateways of the fleet's file: others are not looked after; None where no file is."""
        try:
            found = self._fleets.fleet(fleet)
        except BadInput:
            return None
        return frozenset(gateway.name for gateway in found.gateways)

    def _missed(self, fleet: str, look: _Look) -> tuple[Name, ...]:
        """Return the gateways that answer, and have not answered the last reload of credentials.

        Another one comes first after each repeat: the first alone is asked first, and one that fails must
        not keep all others from it for ever.
        """
        found = self._book.ordered_reloads(fleet)
        if not found.is_time(datetime.now(UTC)):
            return ()
        names = set(missed(look.taking_part, found.of_all.name)) if found.of_all is not None else set()
        if found.of_changed is not None and found.of_changed.plan is not None:
            late = set(missed(look.taking_part, found.of_changed.name))
            names |= late & self._book.plan_members(found.of_changed.plan).keys() if late else late
        back = sorted(names)
        first = len(found.repeats) % len(back) if back else 0
        return (*back[first:], *back[:first])

    def _unset(self, fleet: str, look: _Look) -> tuple[ChangeRecord | None, tuple[Member, ...]]:
        """Return the change of settings that counts now, and the gateways that answer and have missed it."""
        found = self._book.unfinished_settings(fleet)
        if found is None or found.change.plan is None:
            return None, ()
        if found.rests_until is not None and datetime.now(UTC) < found.rests_until:
            return None, ()
        if not unset(look.taking_part, {}, found):
            return None, ()  # without a look at all parts of its plan in every minute
        members = self._book.plan_members(found.change.plan)
        states = {name: state for name, state in look.taking_part.items() if name in members}
        lines = {name: lines_of(members[name].settings or ()) for name in states}
        return found.change, tuple(members[name] for name in unset(states, lines, found))

    def _plan_missed(self, asked: MissedQuery) -> Repeat | None:
        look = self._look(asked.fleet)
        if asked.kind is ChangeKind.RELOAD:
            names = tuple(name for name in self._missed(asked.fleet, look) if name not in asked.still_moved)
            newest = self._book.ordered_reloads(asked.fleet).newest
            if not names or newest is None:
                return None
            plan = self._book.record_reload(self._fleets.fleet(asked.fleet), names)
            return Repeat(plan=plan, repeats=newest.name)
        change, members = self._unset(asked.fleet, look)
        moved = self._book.touched_by_open_changes(asked.fleet) if asked.is_beside else frozenset()
        moved |= {*asked.still_moved}
        members = tuple(member for member in members if member.gateway.name not in moved)
        if change is None or change.plan is None or not members:
            return None
        plan = self._book.record_repeat(self._book.plan_header(change.plan), members)
        return Repeat(plan=plan, repeats=change.told, takes_back=change.cause)

    def _not_back(
        self, look: _Look, lost: Sequence[LostChange], locked: datetime | None = None
    ) -> dict[Name, frozenset[Name]]:
        """Return, by lost change, its gateways that have not reported that they are back since it was lost.

        Without a change whose workflow may still run, and one that promoted all of its gateways: that one
        leaves them on its release. A gateway that has reported that it is back stays so, whatever it reports
        later: the change does not move it any more.

        Args:
            look: The fleet's newest facts.
            lost: Its changes without an end.
            locked: Since when the caller has the fleet's lock, by the ledger's clock; None where it has not.
        """
        found = dict[Name, frozenset[Name]]()
        for one in lost:
            since = reports_count_since(self._book, one, locked)
            if since is not None and not one.is_complete:
                gateways = gateways_of(self._book, one) & look.looked_after
                left = gateways - self._book.back_since(look.fleet, since)
                found[one.record.name] = frozenset(n for n in left if not look.is_back(n, since))
        return found

    def _left_running(
        self,
        look: _Look,
        lost: Sequence[LostChange],
        not_back: Mapping[Name, frozenset[Name]],
        locked: datetime | None,
    ) -> frozenset[Name]:
        """Return the gateways on which lost changes have left an instance running beside the one that serves.

        An upgrade that was not promoted leaves instances of its release there, and any on a gateway that is
        not back. A gateway that another change has begun to bring back since is left to its drain: a new one
        would have a new deadline.

        Args:
            look: The fleet's newest facts.
            lost: Its changes without an end.
            not_back: By lost change, its gateways that have not reported that they are back.
            locked: Since when the caller has the fleet's lock, by the ledger's clock; None where it has not.
        """
        looked_after = look.known_good.keys() - look.by_hand.keys()
        running, found = {*left_behind(look.states)} & looked_after, set[Name]()
        for one in lost if running else ():
            release = self._release_of(one)
            if release is not None:
                mine = {name for name in running if runs_beside(look.states[name], release)}
                mine |= running & not_back.get(one.record.name, frozenset())
            else:
                mine = running & gateways_of(self._book, one)
            gone = self._book.lock_passed_on(one.record.name) or locked
            if gone is not None:
                mine -= {name for name, tried in look.returns.items() if tried.last > gone}
            found |= mine
        return frozenset(found)

    def _release_of(self, lost: LostChange) -> Digest | None:
        """Return the release that an upgrade leaves where it was not promoted; None for any other change."""
        record = lost.record
        if record.kind is not ChangeKind.UPGRADE or lost.is_complete:
            return None
        if record.release_digest is not None or record.plan is None:
            return record.release_digest
        header = self._book.plan_header(record.plan)
        return header.release.digest if header.release is not None else None

    def _strays(self, fleet: str, look: _Look, not_back: Mapping[Name, frozenset[Name]]) -> _Found:
        """Return which gateways are to be brought back now, and which ones later, each with how it strays.

        Those in quarantine that came back by themselves are taken in by the same change, unless they do not
        keep their known-good. A gateway that does not report is tried once, and then as soon as it answers:
        its silence takes the fleet's lock once and makes no pause longer.

        Args:
            fleet: Whose gateways.
            look: Its newest facts.
            not_back: By lost change, its gateways that have not reported that they are back.
        """
        now, out = datetime.now(UTC), {one.gateway: one for one in look.left_out}
        resting = {
            name
            for name in out.keys() | look.returns.keys()
            if waits(out.get(name), look.returns.get(name), now)
        }
        touched = frozenset[str]()
        if resting - out.keys():  # what a change did that died is none of a gateway's own doing
            touched = self._book.touched_by_open_changes(fleet) & resting - out.keys()
            resting -= {name for name in touched if look.returns[name].came_back}
        waiting = resting | look.by_hand.keys()
        found = strays({n: state for n, state in look.states.items() if n not in waiting}, look.known_good)
        back = {
            name
            for name in out.keys() & look.states.keys() & look.known_good.keys() - waiting - found.keys()
            if not relapses_too_often(look.returns.get(name), now)
        }
        found |= dict.fromkeys(sorted(back), "is on its known-good and still left out of changes")
        mine = {name for name in resting if name not in out or out[name].person == PENSTOCK}
        later = strays({n: state for n, state in look.states.items() if n in mine}, look.known_good)
        why_later = {
            name: f"{why}; the next try is at {spoken(next_try(out.get(name), look.returns.get(name)))}"
            for name, why in later.items()
        }
        unreported = dict[str, str]()
        for change, names in not_back.items():
            why = f"has not reported since {change} changed it"
            for name in sorted(names - found.keys() - why_later.keys() - unreported.keys()):
                if name in resting:
                    again = spoken(next_try(out.get(name), look.returns.get(name)))
                    why_later[name] = f"{why}; the next try is at {again}"
                elif name in look.silent and name in look.returns and not look.returns[name].came_back:
                    why_later[name] = f"{why}; it is brought back once it answers"
                else:
                    unreported[name] = why
        every = {name for names in not_back.values() for name in names}
        awaited = {name: why for name, why in why_later.items() if name in every}
        waits_for = frozenset(change for change, names in not_back.items() if not names.isdisjoint(awaited))
        return _Found(found, why_later, unreported, awaited, waits_for)

    def _plan_return(self, asked: ReturnQuery, locked: datetime | None) -> LeftAlone | None:
        look = self._look(asked.fleet)
        # Beside a change that waits no known-good moves: what died in its promotion waits for that.
        every = lost_changes(self._book, asked.fleet, asked.change) if asked.beside is None else ()
        not_back = self._not_back(look, every, locked)
        strays, _, unreported, awaited, _ = self._strays(asked.fleet, look, not_back)
        found = {*strays}
        out = {one.gateway for one in look.left_out}
        drifted = out | found - self._book.touched_by_open_changes(asked.fleet) if found else out
        found |= self._left_running(look, every, not_back, locked)
        found |= unreported.keys()
        if asked.beside is not None:
            found &= {*asked.drifted}
        lost = _unpromoted(every)
        looked_after = look.known_good.keys() - look.by_hand.keys()
        before = {
            name: release
            for change in lost
            for name, release in change.before.items()
            if name in looked_after
        }
        targets = {name: look.known_good[name] for name in sorted(found)} | before
        ends = tuple(
            one.record.name
            for one in every
            if not_back.get(one.record.name, frozenset[Name]()) <= targets.keys()
        )
        if not targets and not lost and not awaited and not ends:
            return None
        plan = None
        if targets:
            plan = self._book.record_return(self._fleets.fleet(asked.fleet), targets, drifted=drifted)
        names = tuple(one.record.name for one in lost)
        return LeftAlone(
            plan=plan,
            lost=names,
            is_awaited=bool(awaited),
            awaited=dict(sorted(awaited.items())[:NAMED]),
            more_awaited=max(0, len(awaited) - NAMED),
            completes=ends,
        )


def _unpromoted(lost: Sequence[LostChange]) -> tuple[LostChange, ...]:
    """Return the upgrades that died before they, or all of their gateways, were promoted."""
    return tuple(one for one in lost if one.record.kind is ChangeKind.UPGRADE and not one.is_complete)
