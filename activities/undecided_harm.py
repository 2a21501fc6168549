"""Harm that was measured after a promotion: no upgrade begins before an operator has decided about it."""

from collections.abc import Sequence
from typing import Protocol

from policies.harm_asked import answers_to_harm, hold_of_harm
from policies.model.change import KnownGoodMove
from policies.model.errors import Refused
from policies.model.offer import Offer
from policies.model.value import Name, Value, sentence
from policies.model.verdict import HarmTold

LONGEST = 200
"""Characters of the harm in a refusal, which names both answers within what a step may report."""


class UndecidedHarm(Value):
    """Harm after a promotion about which no operator has decided; upgrades wait until one does."""

    change: Name
    """What was promoted."""
    hold_of: str
    """By what name an operator accepts all that is shown here, and nothing that is found later."""
    harm: str
    """All of it, the newest first."""
    sentence: str
    """What operators are told."""
    next: tuple[Offer, ...]
    """How an operator decides."""


class HarmBook(Protocol):
    """The part of the ledger that has the harm found after promotions, and what stands of these."""

    def harm_told(self, fleet: str) -> dict[str, HarmTold]:
        """Return the harm that was found after promotions, by change, the oldest first."""
        ...

    def moves(self, fleet: str) -> Sequence[KnownGoodMove]:
        """Return the last move of each gateway's known-good."""
        ...


def undecided_harm(book: HarmBook, fleet: str) -> tuple[UndecidedHarm, ...]:
    """Return the harm that is not decided, of each promotion, the oldest first.

    A promotion of which no gateway has its release as known-good any more has been decided about.
    """
    told = {change: one.undecided for change, one in book.harm_told(fleet).items() if one.undecided}
    moves = book.moves(fleet) if told else ()
    standing, found = {move.change for move in moves}, list[UndecidedHarm]()
    for change, entries in told.items():
        if change not in standing:
            continue
        harm = "; ".join(dict.fromkeys(entries[seq] for seq in sorted(entries, reverse=True)))
        last = max(entries)
        found.append(
            UndecidedHarm(
                change=change,
                hold_of=hold_of_harm(change, last),
                harm=harm,
                sentence=_said(change, harm),
                next=answers_to_harm(fleet, change, last, moves),
            )
        )
    return tuple(found)


def require_decided(book: HarmBook, fleet: str) -> None:
    """Return if no harm of the fleet waits for a decision.

    Raises:
        Refused: Some does; the sentence names it, the promoted change and both answers.
    """
    found = undecided_harm(book, fleet)
    if not found:
        return
    first, said = found[0], _said(found[0].change, sentence(found[0].harm, LONGEST))
    more = f" (and harm after {len(found) - 1} more promotions)" if len(found) > 1 else ""
    to = f" --to {first.next[0].release}" if first.next[0].release else ""
    raise Refused(
        f"{said}{more}; decide first: penstock rollback {fleet}{to}, or accept it by "
        f"penstock resume {fleet} --hold-of {first.hold_of}",
        *first.next,
    )


def _said(change: str, harm: str) -> str:
    return f"harm was measured after {change} was promoted, and no operator has decided about it: {harm}"
