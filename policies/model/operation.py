"""An operation: the identity of one mutating step on one gateway, the same in every repeat."""

from pydantic import Field

from policies.model.value import Digest, Message, Name, digest_of

LAST_EPOCH = 2**53
"""Epochs are milliseconds since 1970, and every reader of JSON understands whole numbers up to this."""

BREAK_GLASS = "break-glass"
"""The rollout of what an operator does on a gateway's host, until a newer order owns the gateway."""

LONGEST_STEP = 200
"""Characters of a step's name: the longest has the name of a slot in it."""


class Operation(Message):
    """Which rollout orders which step of which gateway, in which epoch.

    Repeats of a step carry the same key; a rollback raises the epoch first, so that
    a gateway refuses whatever an abandoned wave still sends.
    """

    rollout: Name
    epoch: int = Field(ge=0, le=LAST_EPOCH)
    gateway: Name
    step: str = Field(max_length=LONGEST_STEP)
    digest: Digest

    @property
    def key(self) -> str:
        """The idempotency key: the same step of the same rollout has one effect."""
        return digest_of(f"{self.rollout}\n{self.gateway}\n{self.step}\n{self.digest}".encode())
