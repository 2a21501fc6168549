"""Quarantines of gateways that operators steered on their hosts: each ends once its only reason is over."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from policies.drift import spoken
from policies.incomplete_ends import Answer
from policies.model.change import ChangeRecord, KnownGoodMove, Quarantine
from policies.model.instance import GatewayState
from policies.model.operation import BREAK_GLASS
from policies.quarantine import is_over

FRESH = timedelta(minutes=30)
"""How long what a gateway said counts; a large fleet is looked at in turns."""


class QuarantineBook(Protocol):
    """The part of the ledger that says who is left out of changes, and what is known of them today."""

    def quarantined(self, fleet: str) -> tuple[Quarantine, ...]:
        """Return the gateways that are left out now."""
        ...

    def said_at(self, fleet: str, within: timedelta) -> dict[str, datetime]:
        """Return when gateways were asked that answered last, of those that were asked within that time."""
        ...

    def states_of(self, fleet: str, gateways: Sequence[str]) -> dict[str, GatewayState]:
        """Return what these gateways answered last, of those of which that can be read."""
        ...

    def moves(self, fleet: str, gateways: Collection[str] | None = None) -> Sequence[KnownGoodMove]:
        """Return the last move of the known-good of each of these gateways, or of all."""
        ...

    def change(self, name: str) -> ChangeRecord:
        """Return one change."""
        ...

    def end_quarantine(self, quarantine: Quarantine, reason: str) -> bool:
        """Let the gateway take part again; False where it is left out for another reason by now."""
        ...


def end_quarantines(book: QuarantineBook, fleet: str) -> None:
    """Ensure that no gateway is left out of changes for break-glass that is on its known-good again.

    Args:
        book: The ledger.
        fleet: Whose gateways.
    """
    rows = [one for one in book.quarantined(fleet) if one.person == BREAK_GLASS]
    if not rows:
        return
    # The times first: an answer that is newer than its time is no older than that says.
    at = book.said_at(fleet, FRESH)
    heard = [row for row in rows if row.gateway in at]
    names = [row.gateway for row in heard]
    states = book.states_of(fleet, names)
    moves = {move.gateway: move for move in book.moves(fleet, names)}
    began = {name: book.change(name).began for name in {move.change for move in moves.values()}}
    for row in heard:
        move, state = moves.get(row.gateway), states.get(row.gateway)
        if move is None or state is None:
            continue
        answer = Answer(state, at[row.gateway])
        if is_over(row, answer, move.release, began[move.change]):
            seen = f"it is on its known-good {move.release.version}, seen at {spoken(answer.at)}"
            book.end_quarantine(row, seen)
