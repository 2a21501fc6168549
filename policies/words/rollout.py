"""A rollout: one execution of a plan, what people can say to it, and what it can say to them."""

from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import Field

from policies.words.change import ChangeKind
from policies.words.parts import PartKey
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
    APPROVE = "approve"
    """A second person's yes to a rollback that waits for one."""
    REJECT = "reject"
    QUARANTINE = "quarantine"
    """Go on without a gateway that refuses or is silent."""


class Command(Word):
    """A person's command, with the reason they gave; `id` makes a repeat the same command."""

    id: str = Field(min_length=1)
    kind: CommandKind
    person: str = Field(min_length=1)
    reason: str = Field(min_length=1)
    hold_of: str | None = None
    """Whose hold a resume lifts, when it is not the person's own."""
    approves: Digest | None = None
    """What an approval was shown."""
    gateway: Name | None = None


class CommandReceipt(Word):
    """What became of a command, in one sentence."""

    id: str
    accepted: bool
    sentence: str


class GatewayProgress(Word):
    """One gateway during a change, as people want to see it."""

    gateway: str
    wave: int
    state: str
    release: str | None = None


class Report(Word):
    """What a child tells its guardian; the engine does not promise that signals arrive in order."""

    at: datetime
    number: int = 0
    """Counts the reports of one child."""

    def follows(self, heard: "Report | None") -> bool:
        """Return whether this was said after the last report that was heard; an overtaken one is old news."""
        return heard is None or (self.at, self.number) > (heard.at, heard.number)


class BatchReport(Report):
    """What a batch tells its wave; gateways by name only where the fleet is small."""

    part: int
    switched: bool = False
    ready: bool = False
    """Whether everybody who is not aside waits at the barrier."""
    counts: dict[str, int] = {}
    aside: dict[str, str] = {}
    gateways: tuple[GatewayProgress, ...] = ()


class WatchReport(Report):
    """What a watch tells whoever asked for it, whenever its decision is another one."""

    decision: Decision


class WaveReport(Report):
    """What a wave tells its change whenever something changed: counts, and who needs attention."""

    wave: int
    phase: Phase
    share: int = 100
    counts: dict[str, int] = {}
    gateways: tuple[GatewayProgress, ...] = ()
    aside: dict[str, str] = {}
    decision: Decision | None = None
    holds: dict[str, str] = {}
    switching: bool = False
    """Whether gateways are still being started, which a hold lets finish."""


class RestoreReport(Report):
    """What a restore tells of one part: how many are back, who is not yet and why, who was given up."""

    part: PartKey
    reason: str
    back: int = 0
    names: tuple[str, ...] = ()
    missing: dict[str, str] = {}
    given_up: dict[str, str] = {}


class Event(Word):
    """One line of a rollout's story."""

    at: datetime
    sentence: str


class ChangeStatus(Word):
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
    kind: ChangeKind = ChangeKind.UPGRADE
    wave: int = 0
    waves: int = 0
    gateways: tuple[GatewayProgress, ...] = ()
    """Every gateway of a small fleet; of a large one those that need attention."""
    counts: dict[str, int] = {}
    """How many gateways are in which state."""
    aside: dict[str, str] = {}
    """Gateways that failed by themselves and were left out, each with why."""
    decision: Decision | None = None
    events: tuple[Event, ...] = ()
    earlier_events: int = 0
    """Events before the first of `events`, which only the ledger still has."""
    needs_you: str | None = None
    """What waits for a person, None when nothing does."""
    outcome: Outcome | None = None
    confirm: Digest | None = None
    """What waits for a second person's answer, by the digest that the answer names."""
    incomplete: tuple[str, ...] = ()
    """Gateways that are not back yet, each with what keeps it."""


class ChangeResult(Word):
    """How a rollout ended and why, in a sentence that is never empty."""

    rollout: str
    outcome: Outcome
    reason: str = Field(min_length=1)
    decision: Decision | None = None
    touched: int = 0
    aside: dict[str, str] = {}
    """Gateways that were left out, each with why."""
    incomplete: dict[str, str] = {}
    """Gateways that are not back and were given up, each with who said so."""
    steered_back_after: timedelta | None = None
