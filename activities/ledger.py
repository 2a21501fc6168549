"""The ledger's steps: what a change writes down and looks up; each entry has a natural key.

Answers are small whatever the size of the fleet: a header, counts, or at most 500 named gateways.
"""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Protocol

from pydantic import Field
from temporalio import activity

from activities.liveness import in_a_thread
from activities.lost_changes import LeftBook, gateways_of, left_by, lost_changes
from activities.quarantines import QuarantineBook, end_quarantines
from activities.undecided_harm import HarmBook, require_decided
from policies.drift import astray
from policies.exposure import Exposure
from policies.history import ending_of_lost, left_of_bake
from policies.model.change import (
    PENSTOCK,
    ChangeEnding,
    ChangeKind,
    ChangeOpening,
    ChangeOrder,
    ChangeRecord,
    GatewayResult,
    Outcome,
    Quarantine,
)
from policies.model.fleet import Automation, GatewayRef
from policies.model.instance import GatewayState
from policies.model.plan import ReleaseRef
from policies.model.release_tests import RELEASE_TESTED, Finding
from policies.model.report import TakenOver
from policies.model.status import Event
from policies.model.value import Digest, Name, Value, digest_of
from policies.model.verdict import Basis, Decision
from policies.status.told import Told

MOST_TOGETHER = 500
"""Gateways that one step names: no message grows with its fleet."""

_log = logging.getLogger(__name__)


class VerdictEntry(Value):
    """A decision of a wave, with every reading behind it; one per rollout, wave and time."""

    rollout: Name
    wave: int
    at: datetime
    decision: Decision


class EventEntry(Value):
    """Something people have to know of, for the audit record; one per key."""

    action: str
    """What happened, in the past tense."""
    subject: str
    sentence: str
    key: str
    person: str = "penstock"
    fleet: Name | None = None
    basis: Basis | None = Field(
        default=None, exclude_if=lambda basis: basis is None, description="what operators decide about"
    )


class TestsEntry(Value):
    """What the release tests of one instance found; one per change, gateway and time."""

    __test__ = False  # for pytest, which takes the name for a test's

    change: Name
    gateway: GatewayRef
    slot: Name
    at: datetime
    exposure: Exposure
    findings: tuple[Finding, ...]


class GatewayResults(Value):
    """How a few gateways fare in a change."""

    change: Name
    results: tuple[GatewayResult, ...] = Field(max_length=MOST_TOGETHER)


class MovedQuery(Value):
    """Whether a change, or what it takes back, has moved sessions on a gateway that goes back to `to`."""

    change: Name
    fleet: Name
    gateway: Name
    to: ReleaseRef


class StoryEntry(Value):
    """All that a change has to tell now, and the events that came since the last entry."""

    order: ChangeOrder
    told: Told
    first: int
    """The number of the first of these events, counted from the change's beginning."""
    events: tuple[Event, ...]


class OthersEntry(Value):
    """The change that has brought gateways back, and so ends others of the fleet that have no end."""

    fleet: Name
    change: Name
    plan: Digest | None = None
    """The plan whose gateways it was ordered to bring back, None where it found them under the lock."""
    completes: tuple[Name, ...] = ()
    """Without such a plan: the changes of which every gateway has reported that it is back, or was to be
    brought back by it."""
    all_back: bool = True
    """Whether it brought all gateways back that it was to."""


class DueBake(Value):
    """A promotion that stands and is still to be watched: for how long, and whether harm acts by itself."""

    change: Name
    plan: Digest
    left: timedelta
    automation: Automation
    source: str | None = None
    """Where its release comes from."""
    left_to: TakenOver | None = None
    """Gateways for which a change that has not ended answers."""
    not_back: tuple[Name, ...] = ()
    """Gateways that failed alone, of which operators were notified that they are not back."""
    asked: tuple[Basis, ...] = ()
    """The harm about which operators were asked, whatever they decided."""


class BakesQuery(Value):
    """Which plan of a fleet begins."""

    fleet: Name
    plan: Digest


class ReturnEntry(Value):
    """Gateways that take part in changes again, and who said so."""

    fleet: Name
    gateways: tuple[Name, ...]
    person: str
    reason: str


class ByHandEntry(Value):
    """Gateways that operators steered off their known-good on their hosts, each with why it is left alone."""

    fleet: Name
    reasons: dict[Name, str]
    seen: dict[Name, datetime] = {}
    """Since when those of them were left out that were, when that was found."""


class LedgerBook(QuarantineBook, LeftBook, HarmBook, Protocol):
    """The database of what was, is allowed and is good; every write may be repeated."""

    def record_verdict(self, rollout: str, wave: int, decision: Decision, at: datetime) -> None:
        """Write down a decision with its evidence."""
        ...

    def record_story(self, order: ChangeOrder, told: Told, first: int, events: Sequence[Event]) -> None:
        """Write down what a change has to tell now, and what happened since."""
        ...

    def open_change(self, opening: ChangeOpening) -> str:
        """Write down that a change began; return its name, the same for the same key."""
        ...

    def require_open(self, name: str) -> None:
        """Return if the change has no end yet; ChangeEnded when it has one."""
        ...

    def close_change(self, ending: ChangeEnding) -> None:
        """Write down how a change ended."""
        ...

    def standing_promotions(self, fleet: str) -> tuple[ChangeRecord, ...]:
        """Return the newest promoted upgrades that were not taken back wholly, the newest first."""
        ...

    def source_of(self, digests: Collection[str]) -> str | None:
        """Return where the newest of these releases comes from."""
        ...

    def not_taken_back(self, fleet: str) -> dict[str, str]:
        """Return why gateways that failed alone on a passed release still serve it, by name."""
        ...

    def gateways_of(
        self, change: str, state: str | None = None, *, after: str = "", limit: int = MOST_TOGETHER
    ) -> Sequence[GatewayResult]:
        """Return how gateways fare in the change, by name."""
        ...

    def record_gateways(self, change: str, results: Sequence[GatewayResult]) -> None:
        """Write down how these gateways fare in the change."""
        ...

    def has_moved(self, change: str, gateway: str, to: Digest) -> bool:
        """Return whether the gateway's sessions have been moved by the change, or by what it takes back."""
        ...

    def states_of(self, fleet: str, gateways: Sequence[str]) -> dict[str, GatewayState]:
        """Return what these gateways said last, of those of which that can be read."""
        ...

    def set_quarantine(self, quarantine: Quarantine) -> bool:
        """Leave a gateway out of changes; return whether that is new."""
        ...

    def leave_to_operators(
        self, fleet: str, reasons: Mapping[str, str], seen: Mapping[str, datetime]
    ) -> set[str]:
        """Leave gateways out that were steered on their hosts, but where an operator said otherwise since."""
        ...

    def clear_quarantines(self, fleet: str, gateways: Iterable[str], person: str, reason: str) -> set[str]:
        """Let these gateways take part again; return those who were left out and now are not."""
        ...

    def audit(
        self,
        person: str,
        via: str,
        action: str,
        subject: str,
        body: object,
        key: str | None = None,
        *,
        fleet: str | None = None,
    ) -> object:
        """Append to the audit record, once for each key."""
        ...


class LedgerActivities:
    """Writes to the ledger; each is tried until it is written."""

    def __init__(self, book: LedgerBook) -> None:
        self._book = book

    @activity.defn(name="record_verdict")
    async def record_verdict(self, entry: VerdictEntry) -> None:
        """Ensure that a decision and its evidence are in the ledger."""
        await in_a_thread(self._book.record_verdict, entry.rollout, entry.wave, entry.decision, entry.at)

    @activity.defn(name="record_story")
    async def record_story(self, entry: StoryEntry) -> None:
        """Ensure that the ledger tells the change's story as it is now, and each of its events once."""
        await in_a_thread(self._book.record_story, entry.order, entry.told, entry.first, entry.events)

    @activity.defn(name="record_event")
    async def record_event(self, entry: EventEntry) -> None:
        """Ensure that the event is in the audit record, from which notices are sent."""
        write = partial(self._book.audit, fleet=entry.fleet)
        body = entry.model_dump(mode="json", include={"sentence", "basis"})
        key = digest_of(entry.key.encode())
        await in_a_thread(write, entry.person, "workflow", entry.action, entry.subject, body, key)

    @activity.defn(name="record_tests")
    async def record_tests(self, entry: TestsEntry) -> None:
        """Ensure that what the tests of an instance asked, measured and allow is in the audit record."""
        gateway = entry.gateway
        body = entry.model_dump(mode="json", include={"slot", "exposure", "findings"})
        key = digest_of(f"tests {entry.change} {gateway.name} {entry.at.isoformat()}".encode())
        subject = f"{entry.change}/{gateway.name}"
        write = partial(self._book.audit, fleet=gateway.fleet)
        await in_a_thread(write, PENSTOCK, "workflow", RELEASE_TESTED, subject, body, key)

    @activity.defn(name="open_change")
    async def open_change(self, opening: ChangeOpening) -> str:
        """Ensure that the change's beginning is in the ledger; return its name, the same for the same key."""
        name = await in_a_thread(self._book.open_change, opening)
        _log.info("%s: opened", name, extra={"VPN_CHANGE": name})  # its step could not know it before
        return name

    @activity.defn(name="require_open")
    async def require_open(self, name: str) -> None:
        """Return if the change may begin its next wave.

        Raises:
            ChangeEnded: It has ended.
            Refused: It has begun no wave yet, and harm after a promotion of its fleet waits for a decision.
        """
        await in_a_thread(self._require_open, name)

    def _require_open(self, name: str) -> None:
        self._book.require_open(name)
        change, story = self._book.change(name), self._book.story(name)
        has_begun = story is not None and story.told.begun > 0
        if change.kind is ChangeKind.UPGRADE and not has_begun:
            require_decided(self._book, change.fleet)

    @activity.defn(name="require_goes_back")
    async def require_goes_back(self, name: str) -> None:
        """Return if the change may still end as rolled back.

        A ledger that was slow may have taken the end of its promotion after its way back had begun.

        Raises:
            ChangeEnded: It has another end.
        """
        await in_a_thread(self._require_goes_back, name)

    def _require_goes_back(self, name: str) -> None:
        if self._book.change(name).outcome is not Outcome.PROMOTED:
            self._book.require_open(name)

    @activity.defn(name="close_change")
    async def close_change(self, ending: ChangeEnding) -> None:
        """Ensure that the change's end is in the ledger, and the end of each quarantine that it is over for.

        The change has read gateways back on their known-good, which it may have moved.
        """
        await in_a_thread(self._close_change, ending)
        _log.info("%s: ended, %s", ending.change, ending.outcome.value)

    def _close_change(self, ending: ChangeEnding) -> None:
        self._book.close_change(ending)
        end_quarantines(self._book, self._book.change(ending.change).fleet)

    @activity.defn(name="close_others")
    async def close_others(self, entry: OthersEntry) -> None:
        """Ensure that other changes without an end have the one that is true, each that this one completes.

        A change of which it has left out a gateway stays without an end: reconcile brings that gateway back.
        So does one of which a gateway has not reported since that it is back, but for one in quarantine:
        operators look after that, and the end names it as not back.
        """
        await in_a_thread(self._close_others, entry)

    def _close_others(self, entry: OthersEntry) -> None:
        lost = lost_changes(self._book, entry.fleet, entry.change)
        if entry.plan is None:
            lost = tuple(one for one in lost if one.record.name in entry.completes)
        elif lost:
            back = self._book.plan_members(entry.plan).keys()
            lost = tuple(one for one in lost if gateways_of(self._book, one) <= back)
        for one in lost:
            left = left_by(self._book, one, all_back=entry.all_back)
            self._book.close_change(ending_of_lost(one, entry.change, all_back=entry.all_back, left=left))

    @activity.defn(name="read_open_changes")
    async def read_open_changes(self, fleet: str) -> tuple[str, ...]:
        """Return the names of the fleet's changes that have not ended, the oldest first."""
        return await in_a_thread(self._book.open_changes, fleet)

    @activity.defn(name="find_due_bakes")
    async def find_due_bakes(self, fleet: str) -> tuple[DueBake, ...]:
        """Return the promotions that are still to be watched, the newest first."""
        return await in_a_thread(self._find_due_bakes, fleet)

    @activity.defn(name="ends_bakes")
    async def ends_bakes(self, asked: BakesQuery) -> bool:
        """Return whether the plan changes a gateway of a promotion that is still watched."""
        return await in_a_thread(self._ends_bakes, asked)

    def _find_due_bakes(self, fleet: str) -> tuple[DueBake, ...]:
        found = self._due_bakes(fleet)
        if not found:
            return ()
        left_to, not_back = self._left_to(fleet), self._book.not_taken_back(fleet).keys()
        told = self._book.harm_told(fleet)
        return tuple(
            due.model_copy(
                update={
                    "left_to": left_to,
                    "not_back": tuple(sorted(gateways & not_back)),
                    "asked": told[due.change].bases if due.change in told else (),
                }
            )
            for due, gateways in found
        )

    def _left_to(self, fleet: str) -> TakenOver | None:
        """Return the upgrade without an end that has taken gateways over; its story has which waves began."""
        for name in reversed(self._book.open_changes(fleet)):
            if self._book.change(name).kind is ChangeKind.UPGRADE and self._book.gateways_of(name, limit=1):
                return TakenOver(change=name)
        return None

    def _ends_bakes(self, asked: BakesQuery) -> bool:
        due = self._due_bakes(asked.fleet)
        changed = self._book.plan_members(asked.plan) if due else {}
        return any(not gateways.isdisjoint(changed) for _, gateways in due)

    def _due_bakes(self, fleet: str) -> list[tuple[DueBake, frozenset[Name]]]:
        """Return each promotion that is due, with its gateways that no later change has moved."""
        moves = self._book.moves(fleet)
        found = []
        for promoted in self._book.standing_promotions(fleet):
            gateways = frozenset(move.gateway for move in moves if move.change == promoted.name)
            due = self._due_bake(promoted) if gateways else None
            if due is not None:
                found.append((due, gateways))
        return found

    def _due_bake(self, promoted: ChangeRecord) -> DueBake | None:
        if promoted.plan is None:
            return None
        header = self._book.plan_header(promoted.plan)
        left = left_of_bake(promoted, header.limits.kept, datetime.now(UTC))
        if left is None:
            return None
        digests = (header.release.digest,) if header.release is not None else ()
        return DueBake(
            change=promoted.name,
            plan=header.digest,
            left=left,
            automation=header.limits.automation,
            source=self._book.source_of(digests),
        )

    @activity.defn(name="record_gateways")
    async def record_gateways(self, told: GatewayResults) -> None:
        """Ensure that the ledger says how these gateways fare."""
        await in_a_thread(self._book.record_gateways, told.change, told.results)

    @activity.defn(name="has_moved")
    async def has_moved(self, asked: MovedQuery) -> bool:
        """Return whether the change, or what it takes back, has moved the gateway's sessions.

        They have been moved, too, where the gateway said last that it gives new ones to another release.
        """
        return await in_a_thread(self._has_moved, asked)

    def _has_moved(self, asked: MovedQuery) -> bool:
        if self._book.has_moved(asked.change, asked.gateway, asked.to.digest):
            return True
        said = self._book.states_of(asked.fleet, (asked.gateway,)).get(asked.gateway)
        return said is not None and astray(said, asked.to) is not None

    @activity.defn(name="quarantine_gateway")
    async def quarantine_gateway(self, quarantine: Quarantine) -> bool:
        """Ensure that the gateway is left out of changes; return whether that is new."""
        return await in_a_thread(self._book.set_quarantine, quarantine)

    @activity.defn(name="leave_to_operators")
    async def leave_to_operators(self, entry: ByHandEntry) -> tuple[str, ...]:
        """Ensure that the gateways are left out of changes, and return which ones are.

        Those are not that operators have quarantined or returned since they were seen.
        """
        left = partial(self._book.leave_to_operators, entry.fleet, entry.reasons, entry.seen)
        return tuple(sorted(await in_a_thread(left)))

    @activity.defn(name="return_gateways")
    async def return_gateways(self, entry: ReturnEntry) -> tuple[str, ...]:
        """Ensure that the gateways take part in changes; return which of them were left out."""
        return await in_a_thread(self._return, entry)

    def _return(self, entry: ReturnEntry) -> tuple[str, ...]:
        # By name: to read who is left out takes half a second of each that comes back where thousands are.
        back = self._book.clear_quarantines(entry.fleet, entry.gateways, entry.person, entry.reason)
        return tuple(name for name in entry.gateways if name in back)
