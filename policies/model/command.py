"""A command: what a person asks of a change, carried out once."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import Field, model_validator

from policies.model.change import ChangeKind
from policies.model.value import Digest, Name, Value
from policies.model.verdict import Basis

MOST_GATEWAYS = 1000
"""Gateways that one command names; the longest names of so many are a quarter of the largest payload."""


class CommandKind(StrEnum):
    """What a person can tell a change to do."""

    HOLD = "hold"
    RESUME = "resume"
    PROMOTE = "promote"
    ABORT = "abort"
    ROLL_BACK = "roll_back"
    APPROVE = "approve"
    """A second person's yes to a rollback that waits for one."""
    REJECT = "reject"
    QUARANTINE = "quarantine"
    """Go on without gateways that refuse or are silent."""


class Command(Value):
    """A person's command, with the reason they gave; `id` makes a repeat the same command."""

    id: str = Field(min_length=1)
    kind: CommandKind
    person: str = Field(min_length=1)
    known_as: tuple[str, ...] = Field(
        default=(), exclude_if=lambda names: not names, description="the other names of the same person"
    )
    reason: str = Field(min_length=1)
    hold_of: str | None = Field(default=None, description="whose hold a resume lifts, if not its own")
    approves: Digest | None = Field(
        default=None, description="what an approval, or a vote to promote, was shown"
    )
    gateways: tuple[Name, ...] = Field(
        default=(),
        max_length=MOST_GATEWAYS,
        description="who is given up",
        exclude_if=lambda names: not names,
    )
    seen: Basis | None = Field(
        default=None,
        exclude_if=lambda basis: basis is None,
        description="what a vote to promote is bound to; the change writes it down",
    )
    run: str = Field(default="", description="the change that goes on by it, as the engine names it")

    @model_validator(mode="before")
    @classmethod
    def _of_one(cls, given: Any) -> Any:
        """Read what was said before one command could name several gateways."""
        if not isinstance(given, dict) or "gateway" not in given:
            return given
        others = {field: value for field, value in given.items() if field != "gateway"}
        return others if given["gateway"] is None else others | {"gateways": (given["gateway"],)}

    @property
    def is_safe(self) -> bool:
        """Whether it stops or goes back: every change obeys that, whichever was meant."""
        return self.kind in {CommandKind.HOLD, CommandKind.ABORT, CommandKind.ROLL_BACK}


class Stored(Value):
    """What the engine has stored, and no worker has carried out yet."""

    at: datetime
    person: str = ""
    reason: str = ""
    unopened: str = Field(
        default="",
        exclude_if=lambda why: not why,
        description="why its payload cannot be opened here; then only its time is known",
    )


class StoredCommand(Stored):
    """A command that the engine has stored for a change, and that no worker has carried out yet."""

    kind: CommandKind | None = None
    """None where it cannot be opened."""


class StoredOrder(Stored):
    """The order of a change that the engine has stored, and that no worker has begun yet."""

    kind: ChangeKind | None = None
    """None where it cannot be opened."""


class CommandReceipt(Value):
    """What became of a command, in one sentence."""

    id: str
    accepted: bool
    sentence: str
    change: Name | None = Field(
        default=None, description="the change that carries it out; null while no worker has given it a name"
    )
    stored: bool = Field(
        default=False,
        exclude_if=lambda stored: not stored,
        description="whether the engine has stored it only, since no worker has begun it yet",
    )
    only_ends: bool = Field(
        default=False,
        exclude_if=lambda only: not only,
        description="of a rollback: whether the change has moved nothing and ends, so that nothing goes back",
    )
    only_waits: bool = Field(
        default=False,
        exclude_if=lambda only: not only,
        description="of a rollback: whether the change goes back already and only waits for gateways",
    )
    incomplete: bool = Field(
        default=False,
        exclude_if=lambda incomplete: not incomplete,
        description="of a rollback: whether the change goes back already and gateways are not back",
    )
