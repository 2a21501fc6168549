"""Exempt people: whose sessions no deadline ends. The patterns stay in the gateway's own file."""

import re
from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase

from pydantic import Field

from policies.model.value import Value

UNREADABLE = "\ufffd"
"""In place of bytes that are no UTF-8 (str.decode)."""
MOST_BYTES = 4
"""Of a character in UTF-8."""
_PART = re.compile(r"\[!?\]?+[^\]]*\]|.", re.DOTALL)
"""What stands for one character of a name, or `*`, as fnmatch(3) reads it."""


class Exempt(Value):
    """Shell patterns of user and group names, such as `vip-*`; nobody is exempt without one."""

    users: tuple[str, ...] = Field(default=(), description="patterns of user names")
    groups: tuple[str, ...] = Field(default=(), description="patterns of group names")

    def spares(self, user: str, group: str, lost: str = UNREADABLE) -> bool:
        """Return whether a session of that user, in that group, is exempt, or may be.

        Args:
            user: The name as the daemon prints it.
            group: The same of the group.
            lost: What the daemon prints in place of bytes beyond ASCII; such a name may be any of several.
        """
        by_user = any(_may_match(user, pattern, lost) for pattern in self.users)
        return by_user or any(_may_match(group, pattern, lost) for pattern in self.groups)


def _may_match(printed: str, pattern: str, lost: str) -> bool:
    if fnmatchcase(printed, pattern):
        return True
    if not any(one in printed for one in lost):
        return False
    places: Collection[int] = {0}  # up to which the name has been matched
    for part in _PART.findall(pattern):
        if part == "*" and places:
            places = range(min(places), len(printed) + 1)
        else:
            places = {end for begin in places for end in _ends(printed, begin, part, lost)}
    return len(printed) in places


def _ends(printed: str, begin: int, part: str, lost: str) -> Iterator[int]:
    """Yield where the character for which that part stands may end."""
    if fnmatchcase(printed[begin : begin + 1], part):
        yield begin + 1
    if not part.isascii() or part == "?" or part.startswith("[!"):
        for end in range(begin, min(begin + MOST_BYTES, len(printed))):
            if printed[end] not in lost:
                return
            yield end + 1
