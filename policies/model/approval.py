"""Approvals: who said yes to which plan, and how many have to."""

from datetime import timedelta

from pydantic import AwareDatetime, Field, model_validator

from policies.model.people import PersonName
from policies.model.value import Digest, Value

PLAN_APPROVED = "plan approved"
"""What the audit record says when somebody says yes to a plan."""

APPROVAL_AWAITED = "approval awaited"
"""What it says when a change was to begin and too few people had said yes to its plan."""


class Approval(Value):
    """A named person's yes to exactly one plan, for a limited time."""

    plan: Digest
    person: PersonName
    reason: str = Field(min_length=1)
    given_at: AwareDatetime
    expires_at: AwareDatetime
    groups: tuple[str, ...] = ()
    """Groups of the identity provider by which the person had roles then."""

    @model_validator(mode="after")
    def _expires(self) -> "Approval":
        if self.expires_at <= self.given_at:
            raise ValueError("an approval expires after it was given")
        return self


class Required(Value):
    """How many people must approve a plan, and what in it asks for them."""

    count: int = Field(default=0, ge=0)
    kind: str = "fleet"
    """Which rule asks for them: of the fleet, or of the trust policy by kind of change."""
    reason: str = ""
    lasts: timedelta = timedelta(hours=4)
    """How long an approval of it is good."""


class Approved(Value):
    """How far a plan has come: how many must approve it, and who has whose word counts."""

    required: Required
    people: tuple[PersonName, ...] = ()

    @property
    def lacking(self) -> int:
        """How many more must approve."""
        return max(0, self.required.count - len(self.people))
