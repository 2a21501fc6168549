"""A rollout: one execution of a plan, what people can say to it, and what it can say to them."""

from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import Field

from policies.words.plan import Plan
from policies.words.verdict import Decision
from policies.words.word import Digest, Name, Word


class Phase(StrEnum):
    """Where a rollout is."""

    STARTING = "starting"
    SWITCHING = "switching"
    OBSERVING = "observing"
    HELD = "held"
    PROMOTING = "promoting"
    DRAINING = "draining"
    ROLLING_BACK = "rolling_back"
    ENDED = "ended"


class Outcome(StrEnum):
    """How a rollout ended."""

    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    ROLLBACK_INCOMPLETE = "rollback_incomplete"
    REFUSED = "refused"
    ABORTED = "aborted"
    HELD = "held"


class CommandKind(StrEnum):
    """What a person can tell a rollout to do."""

    HOLD = "hold"
    RESUME = "resume"
    PROMOTE = "promote"
    ABORT = "abort"
    ROLL_BACK = "roll_back"
    EXTEND = "extend"


class Command(Word):
    """A person's order, with the reason they gave; `id` makes a repeat the same order."""

    id: str = Field(min_length=1)
    kind: CommandKind
    person: str = Field(min_length=1)
    reason: str = Field(min_length=1)


class CommandReceipt(Word):
    """What became of a command, in one sentence."""

    id: str
    accepted: bool
    sentence: str


class RolloutOrder(Word):
    """Everything a rollout needs to know before its first step."""

    rollout: Name
    plan: Plan
    source: str
    requested_by: str
    reason: str
    even_if_unusual: bool = False
    """Whether somebody wants it although this hour is not like the same hour of past weeks."""


class GatewayProgress(Word):
    """One gateway during a rollout, as people want to see it."""

    gateway: str
    wave: int
    state: str
    release: str | None = None
    old_sessions: int | None = None


class Report(Word):
    """What a child tells its guardian; the engine does not promise that signals arrive in order."""

    at: datetime
    number: int = 0
    """Counts the reports of one child."""

    def follows(self, heard: "Report | None") -> bool:
        """Return whether this was said after the last report that was heard; an overtaken one is old news."""
        return heard is None or (self.at, self.number) > (heard.at, heard.number)


class WaveReport(Report):
    """What a wave tells its guardian whenever something changed."""

    wave: int
    phase: Phase
    gateways: tuple[GatewayProgress, ...]
    decision: Decision | None = None
    held_by: str | None = None


class RollbackReport(Report):
    """What a rollback tells the guardian: who is back, who is not yet, and why it goes back."""

    reason: str
    back: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


class Event(Word):
    """One line of a rollout's story."""

    at: datetime
    sentence: str


class RolloutStatus(Word):
    """The five sentences: what is happening, to how many users, why, what next and when, what you can do."""

    rollout: str
    fleet: str
    release: str
    version: str
    phase: Phase
    what: str
    users: str
    why: str
    next: str
    can_do: str
    wave: int = 0
    waves: int = 0
    gateways: tuple[GatewayProgress, ...] = ()
    decision: Decision | None = None
    events: tuple[Event, ...] = ()
    outcome: Outcome | None = None
    confirm: Digest | None = None
    """What waits for a second person's answer, by the digest that the answer names."""
    incomplete: tuple[str, ...] = ()
    """Gateways that are not back yet, each with what keeps it."""


class RolloutResult(Word):
    """How a rollout ended and why, in a sentence that is never empty."""

    rollout: str
    outcome: Outcome
    reason: str = Field(min_length=1)
    decision: Decision | None = None
    touched: tuple[str, ...] = ()
    incomplete: tuple[str, ...] = ()
    steered_back_after: timedelta | None = None
