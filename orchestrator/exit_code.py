"""Exit codes: how every command says how it ended, for scripts and for people."""

from enum import IntEnum
from typing import Self

from policies.model.change import Outcome


class ExitCode(IntEnum):
    """What a command's exit status means; the README's table is this list."""

    meaning: str

    def __new__(cls, value: int, meaning: str) -> Self:
        """Make a code with the meaning that people read."""
        code = int.__new__(cls, value)
        code._value_ = value
        code.meaning = meaning
        return code

    DONE = 0, "done, or promoted"
    INTERNAL = 1, "an internal error, or a peer that does not answer"
    USAGE = 2, "bad usage, a bad file or an unfit machine; nothing was changed"
    ROLLED_BACK = 3, "rolled back or aborted; the fleet is safe on its known-good releases"
    NOT_ALLOWED = 4, "not allowed for this person"
    REFUSED = 5, "refused by a policy: signature, capacity, known-good"
    HELD = 6, "held; a person has to decide"
    ROLLBACK_INCOMPLETE = 7, "rollback incomplete; wake somebody"
    TIMED_OUT = 8, "the wait was over before the rollout was; it goes on"
    CONFLICT = 9, "conflict: another rollout is under way, or the plan is stale"
    DIFFERENCES = 10, "differences were found"
    DETACHED = 130, "detached by Ctrl-C; the rollout goes on"


_CODES = {
    Outcome.PROMOTED: ExitCode.DONE,
    Outcome.ROLLED_BACK: ExitCode.ROLLED_BACK,
    Outcome.ABORTED: ExitCode.ROLLED_BACK,
    Outcome.REFUSED: ExitCode.REFUSED,
    Outcome.HELD: ExitCode.HELD,
    Outcome.ROLLBACK_INCOMPLETE: ExitCode.ROLLBACK_INCOMPLETE,
}


def code_of(outcome: Outcome | None) -> ExitCode:
    """Return the exit code of a rollout that ended so; one that has not ended goes on without us."""
    return _CODES[outcome] if outcome is not None else ExitCode.TIMED_OUT
