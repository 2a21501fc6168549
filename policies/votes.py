"""Votes to promote without proof: two people who see the same verdict, and never whoever asked."""

import re
from collections.abc import Collection, Mapping

from policies.model.people import ROOT
from policies.model.value import Digest, digest_of
from policies.model.verdict import Action, Basis, Decision, GateVerdict

PERSONS_NEEDED = 2

SPEAKS_AGAINST = frozenset({GateVerdict.UNHEALTHY, GateVerdict.HARD, GateVerdict.CONFLICTING})
"""Verdicts of a gate that an operator votes against; missing proof is the verdict of the wave itself."""

HOLDS = frozenset({Action.HOLD, Action.HOLD_FOR_HUMAN, Action.ROLL_BACK})
"""Actions after which missing evidence speaks against the wave, too: before, it is borne for a while."""

NUMBERS = re.compile(r"[0-9]+(?:[.,:][0-9]+)*")


def basis_of(decision: Decision) -> Basis:
    """Return what a vote is bound to that sees this decision: its verdict, and the gates that hold."""
    holds = decision.action in HOLDS
    against = SPEAKS_AGAINST | ({GateVerdict.METRICS_UNAVAILABLE} if holds else set())
    gates = {reading.gate for reading in decision.readings if reading.verdict in against}
    if holds and not decision.readings:
        gates = {NUMBERS.sub("…", decision.reason)}
    return Basis(action=decision.action, verdict=decision.verdict, against=tuple(sorted(gates)))


def basis_of_harm(decision: Decision) -> Basis:
    """Return what operators decide about once a wave has passed: the verdict, and the gates that give it.

    The same gates do not ask again because the wave would have rolled back for them and the watch after it
    holds, because the metrics of another gate are missing meanwhile, or because the hold clears.
    """
    gates = {reading.gate for reading in decision.readings if reading.verdict is decision.verdict}
    against = {*decision.held_by} or gates or {NUMBERS.sub("…", decision.reason)}
    return Basis(action=Action.ROLL_BACK, verdict=decision.verdict, against=tuple(sorted(against)))


def ballot_of(decision: Decision) -> Digest:
    """Return the name of what a vote is bound to that sees this decision."""
    return digest_of(basis_of(decision).model_dump_json().encode())


def still_counting(votes: Mapping[str, Basis], now: Basis) -> dict[str, Basis]:
    """Return the votes that count for a wave with this basis."""
    return {person: seen for person, seen in votes.items() if seen.covers(now)}


def needed_for(requesters: Collection[str]) -> int:
    """Return how many people promote without proof what these asked for."""
    return PERSONS_NEEDED + (ROOT in requesters)


class Votes:
    """Who has voted, and on which basis; a vote ends when something else speaks against the wave."""

    def __init__(self, requesters: Collection[str]) -> None:
        """Count votes for what these asked for; with root among them, who may be one of those who vote."""
        self._requesters = frozenset(requesters)
        self._needed = needed_for(self._requesters)
        self._now: Basis | None = None
        self._votes: dict[str, Basis] = {}

    @property
    def persons(self) -> tuple[str, ...]:
        """Who has voted, in the order of the alphabet."""
        return tuple(sorted(self._votes))

    @property
    def passed(self) -> bool:
        """Whether enough people have voted."""
        return len(self._votes) >= self._needed

    def refusal_of(self, person: str) -> str | None:
        """Return why this person's vote does not count, None when it does."""
        if person in self._requesters:
            return f"{person} asked for this upgrade; two other people promote it without proof"
        if person == ROOT:
            return "root may be anybody, also who has voted; two people promote in their own names"
        return None

    def see(self, decision: Decision) -> None:
        """Forget the votes that do not count for this decision."""
        self._now = basis_of(decision)
        self._votes = still_counting(self._votes, self._now)

    def add(self, person: str, shown: Basis | None = None) -> None:
        """Take a vote that was shown this, without it what is seen now; it counts only for what it covers."""
        seen = shown or self._now
        if self._now is None or seen is None or not seen.covers(self._now):
            return
        if self.refusal_of(person) is None:
            self._votes[person] = seen

    def forget(self) -> None:
        """Begin anew."""
        self._now = None
        self._votes.clear()
