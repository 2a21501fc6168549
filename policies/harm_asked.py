"""Harm on gateways whose wave has passed: operators are asked once about each, until it is over."""

import re
from collections.abc import Iterable

from policies.adoption import is_adopted
from policies.model.change import ChangeKind, KnownGoodMove
from policies.model.offer import Offer, Verb
from policies.model.verdict import Basis, Decision, GateVerdict
from policies.status.awaited import finds_harm
from policies.votes import basis_of_harm


class HarmAsked:
    """The gates about whose harm operators were asked, each until a decision shows that its harm is over."""

    def __init__(self, bases: tuple[Basis, ...] = ()) -> None:
        """Remember the harm about which operators were asked before."""
        self.bases = bases
        self._watch: object = None
        self._shown: frozenset[str] = frozenset()
        """The gates that have shown harm to the watch that reports now."""

    def see(self, decision: Decision, watch: object) -> None:
        """Take over a decision of this watch: harm that is over is asked about again when it comes back.

        A watch that has just begun has not enough data: that ends only harm which the same watch has found.
        """
        if watch != self._watch:
            self._watch, self._shown = watch, frozenset()
        harm = frozenset(basis_of_harm(decision).against if finds_harm(decision) else ())
        self._shown |= harm
        verdicts = {reading.gate: reading.verdict for reading in decision.readings}

        def is_over(gate: str) -> bool:
            verdict = verdicts.get(gate, decision.verdict)
            unproven = verdict is GateVerdict.NOT_ENOUGH_DATA and decision.readings and gate in self._shown
            return gate not in harm and (verdict is GateVerdict.HEALTHY or bool(unproven))

        left = (tuple(gate for gate in basis.against if not is_over(gate)) for basis in self.bases)
        now = zip(self.bases, left, strict=True)
        self.bases = tuple(basis.model_copy(update={"against": gates}) for basis, gates in now if gates)

    def is_news(self, decision: Decision) -> bool:
        """Return whether a gate speaks for this decision about which operators were not asked."""
        basis = basis_of_harm(decision)
        asked = {gate for one in self.bases if one.verdict is basis.verdict for gate in one.against}
        return not {*basis.against} <= asked

    def add(self, decision: Decision) -> None:
        """Remember that operators are asked about this decision, or have decided about it."""
        self.bases = (*self.bases, basis_of_harm(decision))

    def drop(self, decision: Decision) -> None:
        """Forget the question about this decision, which did not reach operators."""
        lost = basis_of_harm(decision)
        self.bases = tuple(basis for basis in self.bases if not lost.covers(basis))


_HOLD = re.compile(r"(?P<change>.+)\.harm-[0-9]+")


def hold_of_harm(change: str, seq: int) -> str:
    """Return the name by which an operator accepts harm after a promotion.

    Args:
        change: What was promoted.
        seq: The entry in the audit record of the last harm that is shown. What is found later has another
            name, so that nobody accepts what they were not shown.
    """
    return f"{change}.harm-{seq}"


def harmed_by(hold_of: str | None) -> str | None:
    """Return the promotion after which the harm was found that is named so; None for any other hold."""
    found = _HOLD.fullmatch(hold_of or "")
    return found["change"] if found else None


def answers_to_harm(
    fleet: str, change: str, seq: int, moves: Iterable[KnownGoodMove] = ()
) -> tuple[Offer, ...]:
    """Return how operators decide about harm that was found after a promotion: roll back, or accept it.

    A rollback without a name takes back what was promoted last. Where that is something else, the release of
    before the harm is named: a rollback to it takes every gateway back.

    Args:
        fleet: Whose gateways were promoted.
        change: The promotion.
        seq: The entry of the last harm that is shown.
        moves: The last move of each gateway's known-good, as far as it is known.
    """
    accept = Offer(verb=Verb.RESUME, fleet=fleet, hold_of=hold_of_harm(change, seq))
    here = tuple(moves)
    mine = [move for move in here if move.change == change]
    number = max((move.number for move in mine), default=0)
    upgrades = [move for move in here if move.kind is ChangeKind.UPGRADE and not move.returned]
    later = {move.number: move.change for move in upgrades if move.number > number}
    before = next((move.before for move in mine if move.before and not is_adopted(move.before)), None)
    if not mine or not later:
        return Offer(verb=Verb.ROLL_BACK, fleet=fleet), accept
    if before is None:
        note = f"takes back {later[max(later)]} first, which was promoted after {change}"
        return Offer(verb=Verb.ROLL_BACK, fleet=fleet, note=note), accept
    note = f"every gateway; without --to it takes back {later[max(later)]} first"
    return Offer(verb=Verb.ROLL_BACK, fleet=fleet, release=before.version, note=note), accept
