"""Retries: when a sink that did not take a notice is tried again, and when no more."""

from datetime import timedelta

MOST_TRIES = 30
"""With the longest pause between them that is about four hours; then somebody has to mend the sink."""

_FIRST, _LONGEST = timedelta(seconds=5), timedelta(minutes=10)


def again_after(tries: int) -> timedelta | None:
    """Return how long is waited after so many tries in vain, None when it is given up."""
    if tries >= MOST_TRIES:
        return None
    return min(_FIRST * 2 ** min(tries, 10), _LONGEST)
