"""The plan: which gateways change in which wave, printed before anything happens and bound by its digest."""

from datetime import timedelta
from enum import StrEnum

from pydantic import Field

from policies.gates import GatePolicy
from policies.words.fleet import Fleet
from policies.words.verdict import Window
from policies.words.word import Digest, Message, Name, Word, digest_of


class Strategy(StrEnum):
    """The ways to make waves."""

    CANARY = "canary"
    ROLLING = "rolling"
    BLUE_GREEN = "blue_green"


class ReleaseRef(Message):
    """A release as a plan names it: by manifest digest, with labels for people."""

    digest: Digest
    product: Name
    version: str
    executable: Digest = Field(description="the daemon's digest that must be seen running")


class Wave(Word):
    """Gateways that are upgraded and judged together."""

    number: int = Field(ge=1)
    gateways: tuple[str, ...] = Field(min_length=1)


class Skipped(Word):
    """A gateway the plan leaves alone, and why."""

    gateway: str
    reason: str


class Progress(Word):
    """Where a rollout stands, gathered from facts before each batch; a position is never remembered.

    A gateway is `switching` until new sessions go to its new instance, then `draining` while
    old sessions last, then `switched`. `out` are gateways that take no users now.
    """

    passed: int = Field(default=0, ge=0, description="waves judged good, from the first")
    held: bool = False
    switching: tuple[str, ...] = ()
    draining: tuple[str, ...] = ()
    switched: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    out: tuple[str, ...] = ()
    sessions: dict[str, int | None] = Field(default={}, description="live counts; else the plan's are used")


class Affected(Word):
    """Whom a plan touches and how long it takes, for people to read before they start it.

    `users` are the sessions counted on gateways that change; `uncounted` names gateways whose
    sessions are unknown, so that a sum never looks complete when it is not. `exposed` is the
    largest number of users on the gateways of one wave: what a bad release could reach before its verdict.
    """

    users: int
    exposed: int
    uncounted: tuple[str, ...]
    expected: timedelta
    longest: timedelta


class Plan(Word):
    """What will happen, to whom, and what everyone goes back to if it fails."""

    fleet: Fleet
    release: ReleaseRef
    strategy: Strategy
    waves: tuple[Wave, ...]
    skipped: tuple[Skipped, ...] = ()
    known_good: dict[str, ReleaseRef]
    sessions: dict[str, int | None] = {}
    window: Window
    gates: GatePolicy
    trust_policy: Digest

    @property
    def digest(self) -> str:
        """The identity to which approvals bind."""
        return digest_of(self.model_dump_json().encode())
