"""Harm that was measured after a promotion: no upgrade begins before an operator has decided about it."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from policies.harm_asked import answers_to_harm
from policies.model.change import PENSTOCK_WATCH, KnownGoodMove
from policies.model.errors import Refused
from policies.model.offer import Offer
from policies.model.value import Value, sentence
from policies.model.verdict import HarmTold

LONGEST = 200
"""Characters of the harm in a refusal, which names both answers within what a step may report."""


class UndecidedHarm(Value):
    """Harm that was measured after promotions, for which upgrades wait until an operator decides about it."""

    sentence: str
    next: tuple[Offer, ...]
    """How operators decide."""


class HarmBook(Protocol):
    """The part of the ledger that has the harm found after promotions, and what stands of these."""

    def harm_told(self, fleet: str) -> dict[str, HarmTold]:
        """Return the harm that was found after promotions, by change, the oldest first."""
        ...

    def moves(self, fleet: str) -> Sequence[KnownGoodMove]:
        """Return the last move of each gateway's known-good."""
        ...


def undecided_harm(book: HarmBook, fleet: str) -> dict[str, str]:
    """Return the harm that is not decided, by the change that was promoted before it; the oldest first.

    A promotion of which no gateway has its release as known-good any more has been decided about.
    """
    told = {change: one.sentence for change, one in book.harm_told(fleet).items() if not one.accepted}
    standing = {move.change for move in book.moves(fleet)} if told else set()
    return {change: harm for change, harm in told.items() if change in standing}


def to_decide(fleet: str, found: Mapping[str, str]) -> UndecidedHarm | None:
    """Return what operators are told of harm that is not decided, as `undecided_harm` found it."""
    if not found:
        return None
    change, harm = next(iter(found.items()))
    more = f" (and harm after {len(found) - 1} more promotions)" if len(found) > 1 else ""
    return UndecidedHarm(
        sentence=f"harm was measured after {change} was promoted, and no operator has decided about it: "
        f"{sentence(harm, LONGEST)}{more}",
        next=answers_to_harm(fleet),
    )


def require_decided(book: HarmBook, fleet: str) -> None:
    """Return if no harm of the fleet waits for a decision.

    Raises:
        Refused: Some does; the sentence names it, the promoted change and both answers.
    """
    waits = to_decide(fleet, undecided_harm(book, fleet))
    if waits is None:
        return
    raise Refused(
        f"{waits.sentence}; decide first: penstock rollback {fleet}, or accept it by "
        f"penstock resume {fleet} --hold-of {PENSTOCK_WATCH}",
        *waits.next,
    )
