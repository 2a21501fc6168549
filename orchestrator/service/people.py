"""Who asks: recognised by the kernel at the local socket, by a token, or by the identity provider.

What a caller says of itself, and every variable of its environment, counts for nothing.
"""

import pwd
import threading
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from activities.files import Reread
from orchestrator.service.identity import IdentityProvider, Vouched
from orchestrator.service.provider_keys import Reading
from policies.access import Action, allows
from policies.model.errors import BadInput, NotAllowed
from policies.model.offer import Offer, Verb
from policies.model.people import (
    EVERY_FLEET,
    RESERVED,
    ROOT,
    Caller,
    Grants,
    Member,
    People,
    Role,
    Via,
    identity_of_subject,
    joined,
)

SUPERUSER = 0
OF_ROOT: Grants = {EVERY_FLEET: frozenset({Role.OPERATOR, Role.AUDITOR, Role.ADMIN})}
"""What root at the orchestrator's own socket may do.

It is one person, whoever became root; it may be the one who asked, so it approves nothing.
"""


class LoggedIn(NamedTuple):
    """Who has logged in."""

    caller: Caller
    is_named_by_provider: bool = False
    """Whether the name is the provider's: people.yaml names everybody else."""


class PeopleFile:
    """people.yaml, read anew when it changes; without the file only root is known.

    A file that is wrong lets nobody in but root: it may have been about to take somebody's roles away.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = Reread(path, People)
        self._provider: IdentityProvider | None = None
        self._one_provider = threading.Lock()
        self._users = frozenset[int]()
        """User numbers of people, as they were found last."""

    def people(self) -> People:
        """Return everybody who is known now.

        Raises:
            BadInput: The file is wrong, and the sentence names the line; or others may write it.
        """
        try:
            self._path.stat()
        except FileNotFoundError:
            return People(api_version="penstock/v1")
        except OSError:
            pass  # reading it says what is wrong
        return self._file.value()

    def at_the_socket(self, uid: int) -> Caller:
        """Return who has this user number on the orchestrator's host.

        Raises:
            NotAllowed: Nobody who is known has it.
            BadInput: The file is wrong, and this is not root.
        """
        try:
            found = self._of_uid(uid)
        except BadInput:
            if uid != SUPERUSER:
                raise
            found = None
        if found is not None and uid == SUPERUSER:
            return found.model_copy(update={"grants": joined([found.grants, OF_ROOT])})
        if found is not None:
            self._users |= {uid}
            return found
        if uid == SUPERUSER:
            return Caller(person=ROOT, grants=OF_ROOT, via=Via.CLI)
        raise NotAllowed(
            f"the system user {system_name(uid)} ({uid}) is nobody who is known here: "
            f"an administrator adds it to {self._path} under system_users"
        )

    def is_known(self, uid: int) -> bool:
        """Return whether root or a person had this user number when that was looked up last.

        It asks no file. It decides only who waits for whom: `at_the_socket` decides who may do what.
        """
        return uid == SUPERUSER or uid in self._users

    def read_users(self) -> None:
        """Look up the user numbers of everybody in the file; this blocks for files, and for the host's users.

        Raises:
            BadInput: The file is wrong.
        """
        written = {user for one in self.people().people for user in one.system_users}
        self._users = frozenset(found for user in written if (found := number_of(user)) is not None)

    def reading_for(self, token: str) -> Reading | None:
        """Have the provider's keys read where this ID token needs it; None where those held are enough."""
        provider = self.provider()
        return None if provider is None else provider.reading(token)

    def of_login(self, token: str) -> LoggedIn:
        """Return whom the identity provider vouches for, with the roles of people.yaml and of their groups.

        It waits for no network: `reading_for` comes before it.

        Raises:
            NotAllowed: The token is not to be believed, or gives nobody a role here.
            Unavailable: The key that it names is not held, and the provider does not answer.
        """
        provider = self.provider()
        if provider is None:
            sentence = "that is no token of penstock's, and no identity provider is believed here"
            raise NotAllowed(sentence, Offer(verb=Verb.CREDENTIAL))
        return self.of_vouched(provider.vouched(token))

    def of_vouched(self, vouched: Vouched) -> LoggedIn:
        """Return who this is for whom the provider has vouched, with the roles that people.yaml gives now.

        Raises:
            NotAllowed: That gives nobody a role here.
        """
        people, identity = self.people(), identity_of_subject(vouched.issuer, vouched.subject)
        member = next((one for one in people.people if vouched.subject in one.subjects), None)
        theirs = [one for one in people.groups if one.name in vouched.groups]
        granted, groups = joined(one.roles for one in theirs), tuple(one.name for one in theirs)
        if member is not None:
            found = _caller(people, member, identity, Via.API)
            update = {"grants": joined([member.roles, granted]), "groups": groups}
            return LoggedIn(found.model_copy(update=update))
        if not granted or vouched.name is None:
            raise NotAllowed(self._unknown(vouched, people, in_a_group=bool(granted)))
        if vouched.name in {*RESERVED, ROOT, *(one.name for one in people.people)}:
            raise NotAllowed(
                f"the provider calls {vouched.subject} {vouched.name}, and that is somebody else here: "
                f"an administrator adds the subject to {self._path}"
            )
        try:
            caller = Caller(
                person=vouched.name, grants=granted, via=Via.API, known_by=(identity,), groups=groups
            )
        except ValueError as error:
            raise NotAllowed(f"{vouched.name} cannot be a person's name here") from error
        return LoggedIn(caller, is_named_by_provider=True)

    def _unknown(self, vouched: Vouched, people: People, *, in_a_group: bool) -> str:
        """Return why the provider's person is nobody here, and what an administrator does."""
        added = "under subjects" if in_a_group else "under subjects, or to a group that is named there"
        nobody = (
            f"{vouched.subject} is nobody who is known here: an administrator adds it to {self._path} {added}"
        )
        found = [nobody, *(vouched.missing if people.groups else ())]
        if in_a_group and people.oidc is not None and people.oidc.name_claim is None:
            found.append(
                "its groups have roles, and oidc.name_claim is not set: set it to the claim with its name"
            )
        return ". ".join(found)

    def of_user(self, uid: int) -> Caller:
        """Return who this user of the host is away from it: with the roles of people.yaml and none of root's.

        Raises:
            NotAllowed: Nobody by name has it; whoever is root may be anybody.
        """
        found = self._of_uid(uid)
        if found is None:
            raise NotAllowed(
                f"the system user {system_name(uid)} is nobody by name here: an administrator adds it to "
                f"{self._path} under system_users"
            )
        return found

    def _of_uid(self, uid: int) -> Caller | None:
        people, number = self.people(), f"uid:{uid}"
        names = {number, system_name(uid)}
        member = next((one for one in people.people if names & {*one.system_users}), None)
        return _caller(people, member, number, Via.CLI) if member is not None else None

    def provider(self) -> IdentityProvider | None:
        """Return the identity provider that is believed now, None without one."""
        settings = self.people().oidc
        if settings is None:
            return None
        authorities = None if settings.authorities is None else self._path.parent / settings.authorities
        with self._one_provider:  # requests that come together wait for the same keys
            if self._provider is None or self._provider.settings != settings:
                self._provider = IdentityProvider(settings, authorities)
            return self._provider

    def identified(self) -> frozenset[tuple[str, str]]:
        """Return everything that recognises a person of the file now, each with that person's name."""
        people = self.people()
        return frozenset(
            (known_by, one.name) for one in people.people for known_by in people.identities_of(one)
        )

    def may_still(self, names: Collection[str], groups: Collection[str], action: Action, fleet: str) -> bool:
        """Return whether the person of these names and groups may do this by the people.yaml of now.

        Only the provider knows who is in a group: a person who was in one when they did it is believed. Where
        several entries of the file have one of the names, each of them must allow it.
        """
        people = self.people()
        by_name = [allows(one.roles, action, fleet) for one in people.people if one.name in names]
        by_group = (allows(one.roles, action, fleet) for one in people.groups if one.name in groups)
        return any(by_group) or (bool(by_name) and all(by_name))

    def knows(self, name: str) -> bool:
        """Return whether somebody has that name."""
        return any(one.name == name for one in self.people().people)


def _caller(people: People, member: Member, identity: str, via: Via) -> Caller:
    """Return a person of the file whom this identity has recognised."""
    known_by = tuple(sorted({identity, *people.identities_of(member)}))
    return Caller(person=member.name, grants=member.roles, via=via, known_by=known_by)


def system_name(uid: int) -> str:
    """Return the name of this user of the host, or the number where it has no name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def number_of(user: str) -> int | None:
    """Return the number of a user of the host, who is written by name or as `uid:` and the number."""
    if user.startswith("uid:"):
        return int(user.removeprefix("uid:"))
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return None
