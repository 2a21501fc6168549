"""What a change waits for whose next wave may not start yet: one sentence, the same on every surface."""

from datetime import datetime

from policies.model.length import length
from policies.model.windows import WindowAnswer


def waiting(answer: WindowAnswer, at: datetime | None = None) -> str:
    """Return what the change waits for and until when, as `waiting for its window: opens Tue …`.

    Args:
        answer: Why the wave may not start.
        at: The moment at which somebody looks, for how long that is from now; none for what is kept, since
            that stays so.
    """
    if answer.until is None:
        return f"waiting until it may start: {answer.lasting}"
    opens = answer.opens or f"{answer.until:%a %Y-%m-%d %H:%M} UTC"
    left = f", in {length(answer.until - at)}" if at is not None and at < answer.until else ""
    return f"{_for_what(answer)}: opens {opens}{left}"


def _for_what(answer: WindowAnswer) -> str:
    if answer.freeze is not None:
        return f"waiting for its window, closed by the freeze {answer.freeze}"
    if answer.is_open:
        return "waiting for its next window, since this one closes too soon"
    return "waiting for its window"
