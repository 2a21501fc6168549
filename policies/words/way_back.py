"""Going back by a person's order: when somebody else has to say yes first, and what they can say."""

from datetime import timedelta
from enum import StrEnum

from pydantic import Field

from policies.words.plan import ReleaseRef
from policies.words.word import Digest, Word


class Confirmation(Word):
    """Why a way back waits for a second person, how long, and what happens by itself after that.

    `change` is the digest of what is shown; an answer binds to it. `known_good` is what each
    gateway goes back to at the deadline; empty when nothing happens then.
    """

    reason: str
    within: timedelta
    change: Digest
    known_good: dict[str, ReleaseRef] = {}


class AnswerKind(StrEnum):
    """What a person can answer while a way back waits."""

    APPROVE = "approve"
    REJECT = "reject"
    KNOWN_GOOD = "known_good"
    """Go back to known-good now, which never waits."""


class Answer(Word):
    """A person's answer to exactly one change; `id` makes a repeat the same answer."""

    id: str = Field(min_length=1)
    kind: AnswerKind
    person: str = Field(min_length=1)
    reason: str = Field(min_length=1)
    change: Digest | None = None
