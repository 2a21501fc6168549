"""Who asks: recognised by the kernel at the local socket, by a token, or by the identity provider.

What a caller says of itself, and every variable of its environment, counts for nothing.
"""

import pwd
from collections.abc import Iterable
from pathlib import Path

from activities.files import Reread
from policies.model.errors import BadInput, NotAllowed
from policies.model.people import EVERY_FLEET, ROOT, Caller, Grants, People, Role, Via, joined

SUPERUSER = 0
OF_ROOT: Grants = {EVERY_FLEET: frozenset({Role.OPERATOR, Role.APPROVER, Role.AUDITOR, Role.ADMIN})}
"""What root at the orchestrator's own socket may do. It is one person, so it approves nothing of its own."""


class PeopleFile:
    """people.yaml, read anew when it changes; without the file only root is known.

    A file that is wrong lets nobody in but root: it may have been about to take somebody's roles away.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = Reread(path, People)

    def people(self) -> People:
        """Return everybody who is known now.

        Raises:
            BadInput: The file is wrong; the sentence names the line.
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
        names = {str(uid), _system_name(uid)}
        try:
            member = next((one for one in self.people().people if names & {*one.system_users}), None)
        except BadInput:
            if uid != SUPERUSER:
                raise
            member = None
        if member is not None:
            granted = joined([member.roles, OF_ROOT]) if uid == SUPERUSER else member.roles
            return Caller(person=member.name, grants=granted, via=Via.CLI)
        if uid == SUPERUSER:
            return Caller(person=ROOT, grants=OF_ROOT, via=Via.CLI)
        raise NotAllowed(
            f"the system user {_system_name(uid)} ({uid}) is nobody who is known here: "
            f"an administrator adds it to {self._path} under system_users"
        )

    def of_subject(self, subject: str, groups: tuple[str, ...], via: Via) -> Caller:
        """Return who the identity provider vouches for, with the roles of its groups.

        Raises:
            NotAllowed: The provider's word gives nobody a role here.
        """
        people = self.people()
        member = next((one for one in people.people if subject in one.subjects), None)
        if member is None:
            raise NotAllowed(
                f"{subject} is nobody who is known here: an administrator adds it to {self._path}"
            )
        granted = joined([member.roles, *(one.roles for one in people.groups if one.name in groups)])
        return Caller(person=member.name, grants=granted, via=via)

    def named_by(self, identities: Iterable[str]) -> frozenset[str]:
        """Return whose names or subjects these are."""
        known = {*identities}
        return frozenset(one.name for one in self.people().people if known & {one.name, *one.subjects})

    def knows(self, name: str) -> bool:
        """Return whether somebody has that name."""
        return any(one.name == name for one in self.people().people)


def _system_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
