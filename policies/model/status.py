"""The status of a change: the five sentences, and the facts under them."""

from datetime import datetime

from pydantic import Field

from policies.model.change import ChangeKind, Outcome, Phase
from policies.model.offer import Offer
from policies.model.report import GatewayProgress
from policies.model.value import Digest, Value
from policies.model.verdict import Decision
from policies.model.windows import WindowAnswer


class Event(Value):
    """One line of a rollout's story."""

    at: datetime
    sentence: str


class EventRow(Event):
    """One event of a fleet, by a number that grows over all fleets."""

    id: int
    change: str
    number: int
    """Counted from the beginning of its change."""


class ChangeStatus(Value):
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
    can_do: tuple[Offer, ...]
    """What makes sense now; each frontend spells it."""
    kind: ChangeKind = ChangeKind.UPGRADE
    wave: int = 0
    waves: int = 0
    gateways: tuple[GatewayProgress, ...] = ()
    """Every gateway of a small fleet; of a large one those that need attention."""
    counts: dict[str, int] = Field(default={}, description="how many gateways are in which state")
    planned: dict[int, int] = Field(default={}, description="how many gateways each wave changes")
    by_wave: dict[int, dict[str, int]] = Field(default={}, description="the counts of each wave that began")
    executable: str = Field(default="", description="the digest that its instances run, where it has one")
    aside: dict[str, str] = Field(default={}, description="the first gateways that were left out, with why")
    more_aside: int = Field(default=0, description="how many were left out besides these")
    decision: Decision | None = None
    events: tuple[Event, ...] = ()
    earlier_events: int = Field(default=0, description="events that only the ledger still has")
    needs_you: str | None = Field(default=None, description="what waits for a person, None when nothing does")
    runbook: str | None = Field(default=None, description="the page for it, None when nothing is to be done")
    outcome: Outcome | None = None
    confirm: Digest | None = Field(default=None, description="what waits for a second person's answer")
    ballot: Digest | None = Field(
        default=None, description="what a vote to promote is bound to: the verdict, and the gates that hold"
    )
    alone: bool = Field(default=False, description="whether only single gateways return, within a minute")
    banner: str | None = Field(default=None, description="what everybody has to know who looks at it")
    window: WindowAnswer | None = Field(default=None, description="what the next wave waits for, until when")
    waits_for: tuple[str, ...] = Field(
        default=(), description="the first gateways that a rollback still tries; each is in quarantine"
    )
    not_back: int = Field(default=0, description="how many gateways it still tries")
    incomplete: tuple[str, ...] = Field(
        default=(), description="what keeps the first that are not back yet, or were not at its end"
    )
    more_incomplete: int = Field(
        default=0, exclude_if=lambda count: not count, description="how many were not back at its end besides"
    )
