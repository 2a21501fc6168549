"""What all words share: frozen, closed to unknown fields, named by digests."""

import hashlib
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
"""`sha256:` and 64 lower-case hex digits; the only identity the code compares."""

Name = Annotated[str, Field(pattern=r"^[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?$", max_length=63)]
"""A name that is safe in files, workflow ids and labels."""


class Word(BaseModel):
    """A value of the vocabulary: immutable, equal by content, refusing fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def digest_of(content: bytes) -> str:
    """Return the digest of these bytes in the one form that is compared."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
