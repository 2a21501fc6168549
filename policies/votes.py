"""Votes to promote without proof: two people who see the same verdict, and never whoever asked."""

from collections.abc import Collection

from policies.model.people import ROOT
from policies.model.verdict import Decision

PERSONS_NEEDED = 2


def needed_for(requesters: Collection[str]) -> int:
    """Return how many people promote without proof what these asked for."""
    return PERSONS_NEEDED + (ROOT in requesters)


class Votes:
    """Who has voted, and for which verdict; a vote ends with the verdict it saw."""

    def __init__(self, requesters: Collection[str]) -> None:
        """Count votes for what these asked for; with root among them, who may be one of those who vote."""
        self._requesters = frozenset(requesters)
        self._needed = needed_for(self._requesters)
        self._seen: tuple[str, str] | None = None
        self._persons: list[str] = []

    @property
    def persons(self) -> tuple[str, ...]:
        """Who has voted, in the order of the alphabet."""
        return tuple(sorted(self._persons))

    @property
    def passed(self) -> bool:
        """Whether enough people have voted."""
        return len(self._persons) >= self._needed

    def refusal_of(self, person: str) -> str | None:
        """Return why this person's vote does not count, None when it does."""
        if person in self._requesters:
            return f"{person} asked for this upgrade; two other people promote it without proof"
        if person == ROOT:
            return "root may be anybody, also who has voted; two people promote in their own names"
        return None

    def see(self, decision: Decision) -> None:
        """Forget votes for another verdict than this one."""
        now = (decision.action.value, decision.verdict.value)
        if now != self._seen:
            self._persons.clear()
        self._seen = now

    def add(self, person: str) -> None:
        """Take a vote for the verdict that is seen now; before there is one, nothing can be voted for."""
        if self._seen is not None and self.refusal_of(person) is None and person not in self._persons:
            self._persons.append(person)

    def forget(self) -> None:
        """Begin anew."""
        self._seen = None
        self._persons.clear()
