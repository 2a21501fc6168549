"""Exempt people: whose sessions no deadline ends. The patterns stay in the gateway's own file."""

from fnmatch import fnmatchcase

from pydantic import Field

from policies.model.value import Value


class Exempt(Value):
    """Shell patterns of user and group names, such as `vip-*`; nobody is exempt without one."""

    users: tuple[str, ...] = Field(default=(), description="patterns of user names")
    groups: tuple[str, ...] = Field(default=(), description="patterns of group names")

    def spares(self, user: str, group: str) -> bool:
        """Return whether a session of that user, in that group, is exempt."""
        by_user = any(fnmatchcase(user, pattern) for pattern in self.users)
        return by_user or any(fnmatchcase(group, pattern) for pattern in self.groups)
