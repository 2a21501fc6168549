"""How far a rollback is, and how that reads. The command line prints it without loading the models."""

from enum import StrEnum


class RollbackProgress(StrEnum):
    """How far the rollback is that a pin is about."""

    COMPLETE = "complete"
    INCOMPLETE = "incomplete"
    """It has ended, and some gateways are not back."""
    UNDER_WAY = "under_way"


def how_left(by: str | None, rollback: RollbackProgress, at: str) -> str:
    """Return how a fleet left the release of a pin, and when: `was taken back by ana at 03:12 UTC`.

    Args:
        by: The person who ordered the rollback, None for a change that rolled back itself.
        rollback: How far the rollback is.
        at: The time of the pin as the reader sees it, empty where it is not known.
    """
    person = f" by {by}" if by is not None else ""
    if rollback is RollbackProgress.UNDER_WAY:
        return f"is being taken back{person}" + (f" since {at}" if at else "")
    left = f"was taken back{person}" if person else "went back"
    if rollback is RollbackProgress.INCOMPLETE:
        return f"{left} on some gateways only" + (f", at {at}" if at else "")
    return left + (f" at {at}" if at else "")
