"""Going back by a person's request: when somebody else has to say yes first."""

from datetime import timedelta

from policies.model.fleet import AtDeadline
from policies.model.value import Digest, Value


class Confirmation(Value):
    """Why a rollback waits for a second person, how long, and what happens by itself after that.

    `change` is the digest of what is shown; an approval binds to it. `known_good` is the plan
    that takes every gateway to its known-good, which never waits.
    """

    reason: str
    within: timedelta
    change: Digest
    known_good: Digest
    at_deadline: AtDeadline = AtDeadline.KNOWN_GOOD
