"""Rollbacks by an operator: what is asked for, what it does, and when a second operator approves it first."""

import json
from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType

from pydantic import Field

from policies.model.fleet import AtDeadline
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
    """Why a rollback waits for a second person, how long, and what happens by itself after that.

    `change` is the digest of what is shown; an approval binds to it. `known_good` is the plan
    that takes every gateway to its known-good, which never waits.
    """

    reason: str
    within: timedelta
    change: Digest
    known_good: Digest
    at_deadline: AtDeadline = AtDeadline.KNOWN_GOOD
