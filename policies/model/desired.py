"""Desired state: the upgrade that a file asks for, what was applied of such files, and what pins a fleet."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from policies.model.plan import Strategy
from policies.model.rollback_progress import RollbackProgress
from policies.model.value import Digest, Name, Value

Label = Annotated[str, Field(pattern=r"^[0-9A-Za-z][0-9A-Za-z.+~_:-]*$", max_length=64)]
"""A version as people call it."""

Why = Annotated[str, Field(min_length=1, max_length=500, pattern=r"\S")]
"""Why something is wanted, for the history."""

Commit = Annotated[str, Field(pattern=r"^(?:[0-9a-f]{40}|[0-9a-f]{64})$")]
"""A commit of Git by its whole name."""


class Text(Value):
    """A file as whoever applies it has it."""

    path: str = Field(
        min_length=1, max_length=500, description="how its owner calls it; sentences name it so"
    )
    text: str


class Compared(Value):
    """Files of one fleet that are to be compared with what is so."""

    description: Text | None = None
    upgrade: Text | None = None


class StartWhen(StrEnum):
    """When an upgrade that is applied starts."""

    NEVER = "never"
    """It is planned and shown."""
    ON_APPROVAL = "on-approval"
    """When it is applied and as many people have approved its plan as it needs."""
    IN_WINDOW = "in-window"
    """Likewise, and it waits for the fleet's next window."""


class Upgrade(Value):
    """The release that a fleet is to be on: the content of upgrade.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    api_version: Literal["penstock/v1"] = Field(default="penstock/v1", alias="apiVersion")
    """The form of this file."""
    kind: Literal["Upgrade"]
    """What tells it from the description of a fleet."""
    fleet: Name
    """Which fleet; the orchestrator has its description."""
    release: Digest
    """The release by its digest, which alone says what it is."""
    version: Label | None = Field(
        default=None, description="what people call that release; applying is refused where it is another's"
    )
    strategy: Strategy = Strategy.CANARY
    """How the fleet gets there."""
    reason: Why
    """Why, for the history of the fleet."""
    start: StartWhen = StartWhen.NEVER
    """What applying does: `never` plans and shows it, `on-approval` starts what has its approvals,
    `in-window` likewise in the fleet's next window."""


class AppliedKind(StrEnum):
    """Of which file something was applied."""

    DESCRIPTION = "description"
    UPGRADE = "upgrade"


class Revision(Value):
    """One text that was applied to a fleet, from where, and by whom."""

    fleet: Name
    kind: AppliedKind
    number: int = Field(ge=1)
    digest: Digest
    commit: Commit | None = None
    author: str = ""
    """Who wrote that commit, as it says itself."""
    person: str
    """Who applied it, as this installation knows them."""
    at: datetime


class Pin(Value):
    """Why a fleet does not get a release again by itself: it went back from it, and nobody has said more."""

    release: Digest
    version: str
    change: Name
    """The change that was taken back."""
    by: str | None
    """Who took it back after its promotion; None for a change that went back itself, whose end says why."""
    at: datetime | None
    """When the rollback ended; while it is under way, when it began."""
    rollback: RollbackProgress = RollbackProgress.COMPLETE
    why: str


class WishState(StrEnum):
    """How far a fleet is from the release that a file asks for."""

    REACHED = "reached"
    UNDER_WAY = "under_way"
    """The change to this very release goes on."""
    BUSY = "busy"
    """Another change goes on, after which it can be applied again."""
    PINNED = "pinned"
    EMPTY = "empty"
    """No gateway of the fleet has a release yet, so there is nothing to upgrade."""
    WANTED = "wanted"
    """It takes an upgrade."""
