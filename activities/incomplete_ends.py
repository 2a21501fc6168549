"""Incomplete ends: rollbacks that ended without some gateways, which are completed once these are back."""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

from policies.incomplete_ends import Answer, completed_end, gateways_of
from policies.model.change import ChangeEnding, ChangeRecord, ChangeResult, KnownGoodMove, Outcome, Quarantine
from policies.model.instance import GatewayState
from policies.model.value import Name
from policies.status.told import NOT_BACK, Told


class EndBook(Protocol):
    """The part of the ledger that says how rollbacks ended, and what gateways answered since."""

    def incomplete_ends(self, fleet: str) -> tuple[ChangeRecord, ...]:
        """Return the newest changes of the fleet that ended with an incomplete rollback."""
        ...

    def told_by(self, changes: Collection[str]) -> dict[str, Told]:
        """Return what each of these changes reported last, of those that ever did."""
        ...

    def touched_by(self, change: str) -> frozenset[str]:
        """Return the gateways that the change has begun to upgrade."""
        ...

    def moves(self, fleet: str) -> Sequence[KnownGoodMove]:
        """Return the last move of each gateway's known-good."""
        ...

    def said_at(self, fleet: str, within: timedelta) -> dict[str, datetime]:
        """Return when gateways were asked that answered last, of those that were asked within that time."""
        ...

    def states_of(self, fleet: str, gateways: Sequence[str]) -> dict[str, GatewayState]:
        """Return what these gateways answered last, of those of which that can be read."""
        ...

    def quarantined(self, fleet: str) -> tuple[Quarantine, ...]:
        """Return the gateways that are left out now."""
        ...

    def close_change(self, ending: ChangeEnding) -> None:
        """Write down how a change ended."""
        ...


def complete_ends(book: EndBook, fleet: str, members: Collection[Name]) -> None:
    """Write down of each incomplete rollback of the fleet that it is complete, once it is.

    Args:
        book: The ledger.
        fleet: Whose rollbacks.
        members: The gateways of the fleet's file.
    """
    records = book.incomplete_ends(fleet)
    if not records:
        return
    told, moves = book.told_by([record.name for record in records]), book.moves(fleet)
    left_out = {one.gateway for one in book.quarantined(fleet)}
    for one in records:
        if one.ended is None:
            continue
        record, result = _as_ended(book, one, told.get(one.name), moves)
        gateways = gateways_of(result, members)
        # The times first: an answer that is newer than its time is from after the end as well.
        at = {} if gateways & left_out else book.said_at(fleet, datetime.now(UTC) - one.ended)
        if gateways - at.keys():
            continue  # what 10,000 gateways answered is read only where all have answered
        states = book.states_of(fleet, sorted(gateways))
        answers = {name: Answer(state, at[name]) for name, state in states.items()}
        ending = completed_end(record, result, gateways, moves, answers, left_out, datetime.now(UTC))
        if ending is not None:
            book.close_change(ending)


def _as_ended(
    book: EndBook, record: ChangeRecord, told: Told | None, moves: Sequence[KnownGoodMove]
) -> tuple[ChangeRecord, ChangeResult]:
    """Return a change and its result; where its workflow died no gateway that it began with is back.

    A rollback upgrades none: it began with those whose known-good it has moved.
    """
    if told is not None and told.result is not None:
        return record, told.result
    sentence = record.sentence.partition(NOT_BACK)[0]
    begun = book.touched_by(record.name) or {one.gateway for one in moves if one.change == record.name}
    result = ChangeResult(
        rollout=record.name,
        outcome=Outcome.ROLLBACK_INCOMPLETE,
        reason=sentence,
        incomplete=dict.fromkeys(sorted(begun), sentence),
    )
    return record.model_copy(update={"sentence": sentence}), result
