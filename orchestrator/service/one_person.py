"""One person, one name: whoever the identity provider vouches for is nobody else here, by whichever door."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from orchestrator.service.people import LoggedIn, PeopleFile
from orchestrator.store.ledger import Ledger
from policies.model.approval import Approval
from policies.model.errors import NotAllowed
from policies.model.people import Caller


@dataclass(frozen=True)
class KnownNames:
    """By which names people are or were known here: whoever has two of them is one person still.

    Whom a group gave roles had the provider's name, until people.yaml gave the subject another one.
    """

    ledger: Ledger
    people: PeopleFile

    def of(self, names: Collection[str]) -> frozenset[str]:
        """Return these people's names, and those by which the provider knew them before or does now."""
        subjects = {*self.people.subjects_of(names), *self.ledger.subjects_known_as(names)}
        return frozenset({*names, *self.ledger.names_known_of(subjects), *self.people.named_by(subjects)})

    def of_different_people(self, given: Sequence[Approval]) -> list[Approval]:
        """Return these without what somebody has approved by another name before."""
        found: list[Approval] = []
        for one in given:
            names = self.of({one.person}) - {one.person}
            if not any(before.person in names for before in found):
                found.append(one)
        return found

    def require_another_person(self, person: str, involved: Collection[str]) -> None:
        """Return unless the person is one of those involved by another name.

        Raises:
            NotAllowed: They are.
        """
        if same := (self.of({person}) - {person}) & {*involved}:
            raise NotAllowed(f"{person} is {min(same)} by another name, and one person has one voice")


def one_person(ledger: Ledger, login: LoggedIn) -> Caller:
    """Return who has logged in.

    Raises:
        NotAllowed: The name is a machine's, or another subject's, or the subject had another name.
    """
    found = login.caller
    if ledger.makers_of(found.person):
        raise NotAllowed(f"{found.person} is a machine's name here; nobody else can have it")
    if login.named is not None:
        ledger.know_login(login.named, found.person)
    return found
