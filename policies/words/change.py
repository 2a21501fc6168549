"""A change: one thing done to a fleet under its lock, whatever its kind."""

from enum import StrEnum

from pydantic import Field

from policies.words.way_back import Confirmation
from policies.words.word import Digest, Name, Word


class ChangeKind(StrEnum):
    """What a change does to its fleet."""

    UPGRADE = "upgrade"
    GO_BACK = "go_back"
    INSTALL = "install"
    RELOAD = "reload"


class ChangeOrder(Word):
    """Everything a change needs to know before its first step; its plan is read by digest.

    Without a plan a change that goes back looks up, under the lock, what is not on its known-good.
    `source` is where a release comes from that is not on a host; `cause` names the change or the
    watch that asked for this one.
    """

    name: Name
    fleet: Name
    kind: ChangeKind
    plan: Digest | None = None
    source: str | None = None
    requested_by: str = "penstock"
    reason: str = Field(min_length=1)
    cause: str = ""
    even_if_unusual: bool = False
    """Whether somebody wants it although this hour is not like the same hour of past weeks."""
    confirm: Confirmation | None = None
    """What a second person has to confirm first; only a person's request for another release needs one."""
