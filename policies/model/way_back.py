"""Rollbacks by an operator: what is asked for, what it does, and when a second operator approves it first."""

import json
from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType

from pydantic import Field

from policies.model.value import Digest, Name, Value, digest_of

NOWHERE: Mapping[str, str] = MappingProxyType({})


class RollbackAsked(Value):
    """What a rollback takes back: the release, unless files are named."""

    to: str | None = None
    """An earlier release, in place of what each gateway had before."""
    settings: bool = False
    """The last change of settings, in place of the release."""
    of: Name | None = None
    """The reload or change of settings of that name, in place of the release."""
    force: bool = False
    """Whether the change under way is ended first, also one that no worker can go on with."""

    @property
    def of_files(self) -> bool:
        """Whether files that running instances were given are taken back, and no release."""
        return self.settings or self.of is not None

    @property
    def is_plain(self) -> bool:
        """Whether the release of before is meant, by no name."""
        return self.to is None and not self.of_files


RELEASE_OF_BEFORE = RollbackAsked()
"""What a rollback without a name takes back."""


class RollbackPreview(Value):
    """What a rollback that is asked for now does."""

    change: Name | None = None
    """The fleet's newest change, on which this rests."""
    does: bool
    """Whether it does anything."""
    sentence: str = Field(min_length=1)
    """Which release each gateway will serve after it, or why there is nothing to do."""
    confirm: str | None = None
    """Why a second operator has to approve it first, None when it begins at once."""
    below: Name | None = None
    """The upgrade that has gone back already, so that this goes further back."""
    digest: Digest
    """What a rollback is bound to whose operator was shown this: the release of each gateway."""


def digest_of_rollback(
    *, does: bool, confirm: str | None = None, targets: Mapping[str, str] = NOWHERE, files: str = ""
) -> Digest:
    """Return what a rollback is bound to.

    Args:
        does: Whether it does anything.
        confirm: Why a second operator has to approve it first.
        targets: The digest of the release that each gateway will serve after it.
        files: The change whose files it takes back, where it takes back no release.
    """
    return digest_of(json.dumps([does, confirm, sorted(targets.items()), files]).encode())


class Confirmation(Value):
    """Why a rollback waits for a second operator, how long, and what may be done without their answer."""

    reason: str
    within: timedelta
    change: Digest
    """What is shown; an approval binds to it."""
    known_good: Digest | None = None
    """The plan of the fleet's rollback without a name, which never waits; None where it has nothing to do."""
    by_itself: Digest | None = None
    """The plan that is carried out at the deadline; None where nothing is changed then."""
    then: str = ""
    """Which release each gateway will serve by that plan."""
    stays: str = ""
    """What gateways serve as long as nothing is changed."""

    @property
    def nothing_is_changed(self) -> str:
        """Return that everything stays as it is, and what serves."""
        return "nothing is changed" + (f": {self.stays}" if self.stays else "")
