"""A command: what a person asks of a change, carried out once."""

from enum import StrEnum

from pydantic import Field

from policies.model.value import Digest, Name, Value


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
    """Go on without a gateway that refuses or is silent."""


class Command(Value):
    """A person's command, with the reason they gave; `id` makes a repeat the same command."""

    id: str = Field(min_length=1)
    kind: CommandKind
    person: str = Field(min_length=1)
    reason: str = Field(min_length=1)
    hold_of: str | None = Field(default=None, description="whose hold a resume lifts, if not its own")
    approves: Digest | None = Field(default=None, description="what an approval was shown")
    gateway: Name | None = None
    run: str = Field(default="", description="the change that goes on by it, as the engine names it")

    @property
    def is_safe(self) -> bool:
        """Whether it stops or goes back: every change obeys that, whichever was meant."""
        return self.kind in {CommandKind.HOLD, CommandKind.ABORT, CommandKind.ROLL_BACK}


class CommandReceipt(Value):
    """What became of a command, in one sentence."""

    id: str
    accepted: bool
    sentence: str
