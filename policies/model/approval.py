"""An approval: a named person's yes to exactly one change, for a limited time."""

from pydantic import AwareDatetime, Field, model_validator

from policies.model.value import Digest, Value


class Approval(Value):
    """A yes that binds to digests, so that it is worth nothing for anything else."""

    person: str = Field(min_length=1)
    reason: str = Field(min_length=1)
    manifest: Digest
    change: Digest = Field(description="the digest of the change as it was shown")
    policy: Digest
    given_at: AwareDatetime
    expires_at: AwareDatetime

    @model_validator(mode="after")
    def _expires(self) -> "Approval":
        if self.expires_at <= self.given_at:
            raise ValueError("an approval expires after it was given")
        return self


class Change(Value):
    """What a release changes beside its programs: configuration keys, and which of them are credentials."""

    manifest: Digest
    before: Digest | None = Field(description="digest of the template in use, None on a first installation")
    after: Digest
    keys: tuple[str, ...]
    credentials: tuple[str, ...] = ()
    """Keys whose values are, or lead to, credentials."""
