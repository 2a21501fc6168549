"""Follow-ups: what caused a change to end as it did, and what is to be done about it by whom until when."""

from datetime import date, datetime

from pydantic import Field

from policies.model.value import Name, Value


class Cause(Value):
    """What people found to be the cause; the record of who did what has what was said before."""

    change: Name
    text: str = Field(min_length=1)
    person: str
    at: datetime


class FollowUp(Value):
    """Something to be done because of a change; open until somebody says that it is done."""

    change: Name
    number: int = Field(ge=1)
    fleet: Name
    text: str = Field(min_length=1)
    owner: str = Field(min_length=1)
    due: date
    person: str
    """Who wrote it down."""
    at: datetime
    done_at: datetime | None = None
    done_by: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether it is still to be done."""
        return self.done_at is None

    def is_overdue(self, today: date) -> bool:
        """Whether it is open and its day is over."""
        return self.is_open and self.due < today


class Afterwards(Value):
    """What people wrote down about one change: its cause, once it was found, and what is to be done."""

    cause: Cause | None = None
    follow_ups: tuple[FollowUp, ...] = ()
