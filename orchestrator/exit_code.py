"""Exit codes: how every command says how it ended, for scripts and for people."""

from enum import IntEnum
from typing import Self


class ExitCode(IntEnum):
    """What a command's exit status means; the README's table is this list."""

    meaning: str

    def __new__(cls, value: int, meaning: str) -> Self:
        """Make a code with the meaning that people read."""
        code = int.__new__(cls, value)
        code._value_ = value
        code.meaning = meaning
        return code

    DONE = 0, "done, promoted, or well"
    INTERNAL = 1, "an internal error, or a peer that does not answer"
    USAGE = 2, "bad usage, a bad file or an unfit machine; nothing was changed"
    ROLLED_BACK = 3, "rolled back or aborted; the fleet is safe on its known-good releases"
    NOT_ALLOWED = 4, "not allowed for this person, or not logged in"
    REFUSED = 5, "refused by a policy (signature, capacity, known-good), or by a second operator"
    HELD = 6, "held, or an operator has to act"
    ROLLBACK_INCOMPLETE = 7, "rolled back, but some gateways are not on their known-good; wake somebody"
    TIMED_OUT = (
        8,
        "only stored, as no worker has begun it; or the wait was over before the change was, which goes on",
    )
    CONFLICT = 9, "conflict: another change is under way, or the plan is stale"
    DIFFERENCES = 10, "differences were found"
    DETACHED = 130, "detached by Ctrl-C; the change goes on"


OF_OUTCOMES = {
    "promoted": ExitCode.DONE,
    "rolled_back": ExitCode.ROLLED_BACK,
    "aborted": ExitCode.ROLLED_BACK,
    "refused": ExitCode.REFUSED,
    "held": ExitCode.HELD,
    "rollback_incomplete": ExitCode.ROLLBACK_INCOMPLETE,
}
"""By the outcome of a change, as every surface names it; a test compares them with the model's."""


def code_of_order(*, is_stored: bool, is_incomplete: bool = False) -> ExitCode:
    """Return the exit code of an order that was given and is not followed.

    Args:
        is_stored: Whether the engine has only stored it, since no worker has begun it.
        is_incomplete: Whether it is a rollback that is under way already, and gateways are not back.
    """
    if is_stored:
        return ExitCode.TIMED_OUT
    return ExitCode.ROLLBACK_INCOMPLETE if is_incomplete else ExitCode.DONE


def code_of(outcome: str | None) -> ExitCode:
    """Return the exit code of a change that ended so; one that has not ended goes on without us."""
    return OF_OUTCOMES[outcome] if outcome is not None else ExitCode.TIMED_OUT
