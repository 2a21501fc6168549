"""One person is one person, by whatever name and whichever frontend: an identity says who somebody is."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from orchestrator.service.people import LoggedIn, PeopleFile
from orchestrator.store.ledger import Ledger
from policies.access import Action
from policies.model.approval import Approval
from policies.model.errors import NotAllowed
from policies.model.people import Caller, subject_of_identity
from policies.model.revocation import same_identity


@dataclass(frozen=True)
class KnownNames:
    """By which names people are or were known here: a person with two of them is one person still.

    The ledger remembers what recognised a person under each name; people.yaml has the names of now.
    """

    ledger: Ledger
    people: PeopleFile

    def of(self, names: Collection[str], since: datetime | None = None) -> frozenset[str]:
        """Return these people's names, and all others that the same identities have or had.

        Args:
            names: As the records have them.
            since: When the oldest of these records was made. A name that was another person's before that
                names only the person who has had it since.
        """
        return _joined(self._known(since), names)

    def of_signers(self, identities: Collection[str]) -> frozenset[str]:
        """Return by which names those are or were known here whose names or subjects these are."""
        known = self._known(None)
        theirs = {
            name
            for identity, name in known
            if {same_identity(name), same_identity(subject_of_identity(identity))} & {*identities} - {""}
        }
        return _joined(known, {*identities, *theirs})

    def of_different_people(self, given: Sequence[Approval]) -> list[Approval]:
        """Return these without what somebody has approved by another name before."""
        known = self._known(first_of(given))
        found: list[Approval] = []
        for one in given:
            names = _joined(known, {one.person})
            if not any(before.person in names for before in found):
                found.append(one)
        return found

    def who_may_still(self, given: Sequence[Approval], action: Action, fleet: str) -> list[Approval]:
        """Return these without those of people who have lost the role since, by whatever name they go now."""
        return [
            one
            for one in given
            if self.people.may_still(self.of({one.person}, one.given_at), one.groups, action, fleet)
        ]

    def others(
        self, person: str, involved: Collection[str], makers: Collection[str], since: datetime | None
    ) -> tuple[str, ...]:
        """Return the person's other names, none of which is that of anybody involved in a change.

        Args:
            person: The name of now.
            involved: Names of those who asked for the change or voted on it, as its records have them.
            makers: Who made the tokens through which it was asked for. Such a name is as old as the token, so
                that every person counts who ever had it.
            since: When the change began.

        Raises:
            NotAllowed: The person is one of them by another name.
        """
        found = self.of({person}, since)
        same = (found & {*involved}) | {maker for maker in makers if found & self.of({maker})}
        if same := same - {person}:
            raise NotAllowed(f"{person} is {min(same)} by another name, and one person has one voice")
        return tuple(sorted(found - {person}))

    def _known(self, since: datetime | None) -> frozenset[tuple[str, str]]:
        return self.ledger.names_since(since) | self.people.identified()


def first_of(given: Sequence[Approval]) -> datetime | None:
    """Return when the first of these was given, None without any."""
    return min((one.given_at for one in given), default=None)


def _joined(known: Collection[tuple[str, str]], names: Collection[str]) -> frozenset[str]:
    """Return the names with all others that lead to the same identities."""
    found, before = frozenset(names), frozenset[str]()
    while found != before:
        before = found
        theirs = {identity for identity, name in known if name in found}
        found |= {name for identity, name in known if identity in theirs}
    return found


def one_person(ledger: Ledger, login: LoggedIn) -> Caller:
    """Return who has logged in.

    Raises:
        NotAllowed: The name is a machine's, or another subject's, or the provider gave another name before.
    """
    found = login.caller
    if ledger.makers_of(found.person):
        raise NotAllowed(f"{found.person} is a machine's name here; nobody else can have it")
    if login.is_named_by_provider:
        ledger.know_login(found.known_by[0], found.person)
    return found
