"""The plan: which gateways change in which wave, printed before anything happens and bound by its digest."""

from enum import StrEnum

from pydantic import Field

from policies.gates import GatePolicy
from policies.words.fleet import Fleet
from policies.words.verdict import Window
from policies.words.word import Digest, Name, Word, digest_of


class Strategy(StrEnum):
    """The ways to make waves."""

    CANARY = "canary"
    ROLLING = "rolling"
    BLUE_GREEN = "blue_green"


class ReleaseRef(Word):
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
