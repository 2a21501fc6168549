"""Hand-overs: one person gives a fleet to another, who has it once they have said so."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from policies.model.value import Moment, Name, Value

MOST_OF_A_NOTE = 500
"""Characters of what whoever gives wants to be known."""

Note = Annotated[str, Field(max_length=MOST_OF_A_NOTE, pattern=r"^[^\x00-\x1f\x7f]*$")]


class HandoverEnd(StrEnum):
    """What became of a hand-over."""

    ACCEPTED = "accepted"
    DECLINED = "declined"
    WITHDRAWN = "withdrawn"
    REPLACED = "replaced"
    """Another one was begun before anybody had answered."""


class Handover(Value):
    """One hand-over; until it is accepted the giver is on duty, and the taker is not."""

    id: int
    fleet: Name
    change: Name | None = Field(default=None, description="the change that went on then")
    giver: str
    taker: str
    note: str = ""
    began: Moment
    ended: Moment | None = None
    end: HandoverEnd | None = None

    @property
    def seconds(self) -> float | None:
        """How long nobody knew whether the taker had it; None while it was not accepted."""
        if self.end is not HandoverEnd.ACCEPTED or self.ended is None:
            return None
        return round((self.ended - self.began).total_seconds(), 1)


class Duty(Value):
    """Who has a fleet: whoever accepted it last, and who is asked to take it now."""

    person: str | None = Field(default=None, description="None where nobody ever accepted it")
    since: Moment | None = None
    asked: Handover | None = Field(default=None, description="the hand-over that nobody has answered yet")
