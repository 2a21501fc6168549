"""Split the time from a fault until all gateways were safe: each step with its source, or why it is unknown.

Nothing is guessed. The clocks of metrics, engine and gateways are several; a step that would come before
one that it follows is not known, whatever its own clock says, so that no part is ever negative.
"""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum

from pydantic import Field

from policies.model.value import Value


class Moment(StrEnum):
    """The steps of going back, in the order in which they come."""

    FAULT = "fault"
    EVIDENCE = "enough evidence"
    DECISION = "decision"
    FIRST_BACK = "first gateway back"
    SAFE = "all safe"


class Step(Value):
    """One step: when it was and where that is from, or why it is not known."""

    moment: Moment
    at: datetime | None = None
    source: str = Field(min_length=1)


class TimeSplit(Value):
    """All five steps, known or not."""

    steps: tuple[Step, ...]


def split(steps: Iterable[Step]) -> TimeSplit:
    """Return the steps in their order; one that would come before an earlier one is not known."""
    found, last = list[Step](), None
    for step in sorted(steps, key=lambda one: list(Moment).index(one.moment)):
        if step.at is not None and last is not None and last.at is not None and step.at < last.at:
            source = f"not known: by its own clock it was before the {last.moment.value} ({step.source})"
            found.append(Step(moment=step.moment, source=source))
            continue
        found.append(step)
        last = step if step.at is not None else last
    return TimeSplit(steps=tuple(found))
