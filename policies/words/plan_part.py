"""Parts of a plan that a workflow can carry: what holds for all, how large each wave is, a few gateways."""

from pydantic import Field

from policies.gates import GatePolicy
from policies.words.fleet import Gateway, Limits, RollbackRules
from policies.words.plan import ReleaseRef, Strategy
from policies.words.verdict import Window
from policies.words.word import Digest, Name, Word

BATCH = 50
"""Gateways in one batch of a recorded plan, and in one workflow."""


class PlanWave(Word):
    """How large a wave is; number 0 are the gateways of the fleet that no wave changes."""

    number: int = Field(ge=0)
    gateways: int = Field(ge=0)
    batches: int = Field(ge=0)


class PlanHeader(Word):
    """A plan without its gateways."""

    digest: Digest
    fleet: Name
    product: Name
    channel: Name
    limits: Limits
    rollback: RollbackRules
    release: ReleaseRef
    strategy: Strategy
    waves: tuple[PlanWave, ...]
    window: Window
    gates: GatePolicy
    trust_policy: Digest


class PlanGateway(Word):
    """All that a plan says of one gateway; `wave` is 0 when no wave changes it."""

    gateway: Gateway
    wave: int = Field(ge=0)
    known_good: ReleaseRef | None = None
    sessions: int | None = None
    skipped: str | None = Field(default=None, description="why the plan leaves it alone")
