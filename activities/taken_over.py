"""Gateways of a promotion that a later change has taken over: the watch over the promotion has the others."""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

from policies.model.change import PENSTOCK, ChangeKind, ChangeRecord, Quarantine
from policies.model.plan import Plan, ReleaseRef
from policies.model.plan_part import Member
from policies.model.report import TakenOver
from policies.model.value import Name
from policies.rollback import Takes
from policies.status.told import Told


class TakenBook(Protocol):
    """The part of the ledger that has how far a change is with its gateways."""

    def change(self, name: str) -> ChangeRecord:
        """Return one change."""
        ...

    def lock_passed_on(self, change: str) -> datetime | None:
        """Return when the next change got the fleet's lock, None where this one may have it still."""
        ...

    def open_changes(self, fleet: str) -> tuple[str, ...]:
        """Return the names of the fleet's changes that have not ended, the oldest first."""
        ...

    def plan(self, digest: str) -> Plan:
        """Return the whole plan of an upgrade."""
        ...

    def plan_members(self, digest: str) -> dict[str, Member]:
        """Return all gateways of a plan by name."""
        ...

    def told_by(self, changes: Collection[str]) -> dict[str, Told]:
        """Return what each of these changes reported last, of those that ever did."""
        ...

    def quarantined(self, fleet: str) -> tuple[Quarantine, ...]:
        """Return the gateways that are left out now."""
        ...

    def known_good(self, fleet: str) -> Mapping[str, ReleaseRef]:
        """Return what each gateway goes back to."""
        ...

    def takes(self, fleet: str) -> Mapping[str, Takes]:
        """Return which release takes new sessions on each gateway by its last report."""
        ...

    def back_since(self, fleet: str, since: datetime) -> frozenset[str]:
        """Return the gateways that reported their known-good after that time, and whatever since."""
        ...


class Taken(NamedTuple):
    """The gateways that a change without an end has taken over, and those that it still will."""

    change: Name = ""
    now: frozenset[Name] = frozenset()
    later: frozenset[Name] = frozenset()
    """Those of its waves that have not begun."""


def taken_over(book: TakenBook, left_to: TakenOver | None) -> Taken:
    """Return the gateways for which a later change answers now: none once it has ended.

    A change that goes back, or whose workflow is gone, begins no further wave. Of its gateways those are left
    that are not known to be back: a rollback, or a change without a workflow, may have no end for days.
    """
    if left_to is None:
        return Taken()
    change = book.change(left_to.change)
    if change.ended is not None or change.plan is None:
        return Taken()
    waves, told = book.plan(change.plan).wave_of, book.told_by((change.name,)).get(change.name, Told())
    last = told.begun if left_to.up_to is None else left_to.up_to
    begun = frozenset(name for name, wave in waves.items() if wave <= last)
    since = book.lock_passed_on(change.name)
    if since is None and not told.goes_back:
        return Taken(change.name, begun, frozenset(waves) - begun)
    now = _not_back(book, change.fleet, begun, told) if told.only_waits else begun
    return Taken(change.name, now if since is None else now - _back_since(book, change, now, since))


def _back_since(
    book: TakenBook, change: ChangeRecord, gateways: frozenset[Name], since: datetime
) -> frozenset[Name]:
    """Return which gateways are back, by their own report since then or by that of a rollback.

    A gateway that is silent now may have come back before: the ledger has its report of that, or that of a
    rollback which waits for others.
    """
    takes, known_good = book.takes(change.fleet), book.known_good(change.fleet)
    now = datetime.now(UTC)
    back = {
        name
        for name in gateways & takes.keys() & known_good.keys()
        if since < takes[name].at <= now and takes[name].release == known_good[name].digest
    }
    back |= gateways & book.back_since(change.fleet, since)
    open_changes = book.open_changes(change.fleet)
    for name, told in book.told_by(open_changes).items():
        record = book.change(name)
        if record.kind is ChangeKind.GO_BACK and told.only_waits and record.plan is not None:
            members = frozenset(book.plan_members(record.plan))
            back |= gateways & members - _not_back(book, change.fleet, members, told)
    return frozenset(back)


def _not_back(book: TakenBook, fleet: Name, gateways: frozenset[Name], told: Told) -> frozenset[Name]:
    """Return which gateways are not back: a change names the first of many, and each is left out of changes.

    Until the ledger has all of them as left out, none counts as back: it may run the release that failed.
    """
    named = gateways & told.not_back.keys()
    if not told.more_not_back:
        return named
    left_out = {one.gateway for one in book.quarantined(fleet) if one.person == PENSTOCK}
    named |= gateways & left_out
    return named if len(named) >= told.count_not_back else gateways
