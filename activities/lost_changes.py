"""Lost changes: those without an end whose workflow does not run any more, and what each one left."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

from policies.incomplete_ends import Answer, is_back
from policies.model.change import (
    IN_QUARANTINE,
    MOVES_NOBODY,
    ChangeKind,
    ChangeOrder,
    ChangeRecord,
    KnownGoodMove,
    LostChange,
    Quarantine,
)
from policies.model.instance import GatewayState
from policies.model.plan_part import Member, PlanHeader
from policies.model.value import Name
from policies.planning.cohorts import LEFT_OUT, SET_ASIDE
from policies.status.told import Told


class LastStory(Protocol):
    """What a change reported last."""

    @property
    def order(self) -> ChangeOrder:
        """What was asked of it, with the plan by which it went."""
        ...

    @property
    def told(self) -> Told:
        """What it reported."""
        ...


class LostBook(Protocol):
    """The part of the ledger that says how far a change came."""

    def open_changes(self, fleet: str) -> tuple[str, ...]:
        """Return the names of the fleet's changes that have not ended, the oldest first."""
        ...

    def change(self, name: str) -> ChangeRecord:
        """Return one change."""
        ...

    def moves(self, fleet: str) -> Sequence[KnownGoodMove]:
        """Return the last move of each gateway's known-good."""
        ...

    def plan_header(self, digest: str) -> PlanHeader:
        """Return a plan without its gateways."""
        ...

    def plan_members(self, digest: str) -> dict[str, Member]:
        """Return all gateways of a plan by name."""
        ...

    def story(self, change: str) -> LastStory | None:
        """Return what the change reported last, None when it never did."""
        ...

    def counts_of(self, change: str) -> dict[str, int]:
        """Return how many gateways of the change are in each state."""
        ...

    def touched_by(self, change: str) -> frozenset[str]:
        """Return the gateways that the change has begun to upgrade."""
        ...

    def lock_passed_on(self, change: str) -> datetime | None:
        """Return when the next change got the fleet's lock, None where this one may have it still."""
        ...

    def back_since(self, fleet: str, since: datetime) -> frozenset[str]:
        """Return the gateways that reported their known-good after that time, and whatever since."""
        ...


class LeftBook(LostBook, Protocol):
    """The part of the ledger that also says who is in quarantine, and what gateways answered last."""

    def quarantined(self, fleet: str) -> tuple[Quarantine, ...]:
        """Return the gateways that are left out now."""
        ...

    def said_at(self, fleet: str, within: timedelta) -> dict[str, datetime]:
        """Return when gateways were asked that answered last, of those that were asked within that time."""
        ...

    def states_of(self, fleet: str, gateways: Sequence[str]) -> dict[str, GatewayState]:
        """Return what these gateways answered last, of those of which that can be read."""
        ...


def left_by(book: LeftBook, lost: LostChange, *, all_back: bool) -> dict[Name, str]:
    """Return which gateways of the change may serve its release still, each with why.

    These have not reported that they are back. No return brings back what operators look after.

    Args:
        book: The ledger.
        lost: A change without an end, whose gateways were brought back.
        all_back: Whether all were that are not in quarantine.
    """
    fleet, now = lost.record.fleet, datetime.now(UTC)
    why = {one.gateway: f"{IN_QUARANTINE} by {one.person}: {one.reason}" for one in book.quarantined(fleet)}
    gateways = gateways_of(book, lost)
    names = sorted(gateways & why.keys() if all_back else gateways)
    if not names:
        return {}
    since = reports_count_since(book, lost) or now
    names = sorted(frozenset(names) - book.back_since(fleet, since))
    known_good = {move.gateway: move.release for move in book.moves(fleet)}
    at = book.said_at(fleet, now - since + timedelta(minutes=1))  # its clock goes on, and this is a bound
    states = book.states_of(fleet, names)
    answers = {name: Answer(states[name], at[name]) for name in states.keys() & at.keys()}
    return {
        name: why.get(name, "it has not reported that it is back")
        for name in names
        if not is_back(answers.get(name), known_good.get(name), since, datetime.now(UTC))
    }


def lost_changes(book: LostBook, fleet: str, but: str) -> tuple[LostChange, ...]:
    """Return the fleet's changes without an end, the oldest first, except the one that has the lock."""
    names = [name for name in book.open_changes(fleet) if name != but]
    if not names:
        return ()
    moves = book.moves(fleet)
    return tuple(_lost(book, name, moves) for name in names)


def gateways_of(book: LostBook, lost: LostChange) -> frozenset[Name]:
    """Return the gateways that the change may have changed: all of them are to be back before it ends.

    These are the gateways that an upgrade has begun with or promoted, and all in the plan of a way back,
    which moves their known-good when it begins.
    """
    record = lost.record
    if record.kind in MOVES_NOBODY:
        return frozenset()
    if record.kind is not ChangeKind.GO_BACK:
        return book.touched_by(record.name) | lost.before.keys()
    story = book.story(record.name)
    plan = story.order.plan if story is not None else record.plan
    return frozenset(book.plan_members(plan)) if plan is not None else frozenset()


def reports_count_since(book: LostBook, lost: LostChange, locked: datetime | None = None) -> datetime | None:
    """Return since when a gateway's report shows whether the change has left it on its known-good.

    A rollback moves known-good when it begins, and steers gateways only to that: reports count since then.
    Any other change may steer a gateway after it has recorded its last result of it, until its workflow is
    gone. The workflow is gone once another change has the fleet's lock.

    Args:
        book: The ledger.
        lost: A change without an end.
        locked: Since when the caller has the fleet's lock, None where it has not.

    Returns:
        That time, None where the change's workflow may still run.
    """
    passed_on = book.lock_passed_on(lost.record.name)
    known = [at for at in (passed_on, locked) if at is not None]
    if not known:
        return None
    return lost.record.began if lost.record.kind is ChangeKind.GO_BACK else min(known)


def _lost(book: LostBook, name: str, moves: Sequence[KnownGoodMove]) -> LostChange:
    record = book.change(name)
    if record.kind is not ChangeKind.UPGRADE or record.plan is None:
        return LostChange(record=record)
    mine = [move for move in moves if move.change == name and move.is_promotion]
    counts = book.counts_of(name)
    accounted = record.moved + counts.get(SET_ASIDE, 0) + counts.get(LEFT_OUT, 0)
    is_complete = accounted >= book.plan_header(record.plan).changing
    return LostChange(
        record=record,
        before={move.gateway: move.before for move in mine if move.before is not None},
        is_complete=is_complete and bool(mine) and not record.is_taken_back,
    )
