"""Gateways of a promotion that a later change has taken over: the watch over the promotion has the others."""

from collections.abc import Collection
from typing import NamedTuple, Protocol

from policies.model.change import PENSTOCK, ChangeRecord, Quarantine
from policies.model.plan import Plan
from policies.model.report import TakenOver
from policies.model.value import Name
from policies.status.told import Told


class TakenBook(Protocol):
    """The part of the ledger that has how far a change is with its gateways."""

    def change(self, name: str) -> ChangeRecord:
        """Return one change."""
        ...

    def plan(self, digest: str) -> Plan:
        """Return the whole plan of an upgrade."""
        ...

    def told_by(self, changes: Collection[str]) -> dict[str, Told]:
        """Return what each of these changes reported last, of those that ever did."""
        ...

    def quarantined(self, fleet: str) -> tuple[Quarantine, ...]:
        """Return the gateways that are left out now."""
        ...


class Taken(NamedTuple):
    """The gateways that a change without an end has taken over, and those that it still will."""

    change: Name = ""
    now: frozenset[Name] = frozenset()
    later: frozenset[Name] = frozenset()
    """Those of its waves that have not begun."""


def taken_over(book: TakenBook, left_to: TakenOver | None) -> Taken:
    """Return the gateways for which a later change answers now: none once it has ended.

    Of a rollback that only waits, these are the gateways that are not back: it may wait for days, moves no
    other gateway, and begins no further wave.
    """
    if left_to is None:
        return Taken()
    change = book.change(left_to.change)
    if change.ended is not None or change.plan is None:
        return Taken()
    waves = book.plan(change.plan).wave_of
    begun = frozenset(name for name, wave in waves.items() if left_to.has(wave))
    told = book.told_by((change.name,)).get(change.name)
    if told is None or not told.only_waits:
        return Taken(change.name, begun, frozenset(waves) - begun)
    return Taken(change.name, _not_back(book, change.fleet, begun, told))


def _not_back(book: TakenBook, fleet: Name, begun: frozenset[Name], told: Told) -> frozenset[Name]:
    """Return which gateways are not back: a change names the first of many, and each is left out of changes.

    Until the ledger has all of them as left out, none counts as back: it may run the release that failed.
    """
    named = begun & told.not_back.keys()
    if not told.more_not_back:
        return named
    left_out = {one.gateway for one in book.quarantined(fleet) if one.person == PENSTOCK}
    named |= begun & left_out
    return named if len(named) >= told.count_not_back else begun
