"""Codes: by which somebody confirms what they have asked for in a chat, and what each is bound to."""

from datetime import timedelta

from policies.model.status import ChangeStatus
from policies.model.value import digest_of

ALPHABET = "23456789abcdefghjkmnpqrstuvwxyz"
"""Letters and digits that nobody takes for another one."""

LENGTH = 4
LIVES = timedelta(seconds=120)
TRIES = 5
"""Wrong codes of one person after which their codes are worth nothing."""


def state_of(verb: str, change: ChangeStatus | None) -> str:
    """Return what a code is bound to: the order, the change, and whether that has ended or goes back.

    That a wave or a phase is another one makes the order no other one.
    """
    if change is None:
        return digest_of(f"{verb}/none".encode())
    goes_back = change.phase.value == "rolling_back"
    outcome = change.outcome.value if change.outcome is not None else ""
    return digest_of(f"{verb}/{change.rollout}/{outcome}/{goes_back}".encode())
