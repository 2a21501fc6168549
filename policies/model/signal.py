"""Signals from people: complaints and tickets, joined with what was on their gateway at that moment."""

from enum import StrEnum

from pydantic import Field

from policies.model.ticket import Ticket
from policies.model.value import Moment, Value

MOST_NAMED = 10
"""Gateways, and tickets, that are named; of more it is said how many there are."""


class Stand(StrEnum):
    """What a change had made of a gateway when somebody complained about it."""

    CHANGED = "changed"
    """Its new instance took new sessions, or would have."""
    UNCHANGED = "unchanged"
    """The change had not come to it yet, or never did."""
    BACK = "back"
    """It was changed, and is on its known-good again."""


class Complaining(Value):
    """How many users complained about one gateway while it stood like that, and since when."""

    gateway: str
    stand: Stand
    users: int
    since: Moment
    wave: int = 0
    slot: str | None = None


class TicketRow(Value):
    """A ticket, with what the change had made of its gateway when it was opened; None for a whole fleet."""

    ticket: Ticket
    stand: Stand | None = None
    wave: int = 0


class Signals(Value):
    """What people said while a change went on, beside the judge's numbers; it proves nothing healthy."""

    complaining: tuple[Complaining, ...] = Field(default=(), description="most users first, a few")
    users: dict[Stand, int] = Field(default={}, description="distinct users of each kind of gateway")
    named: dict[Stand, int] = Field(default={}, description="gateways they complain about")
    gateways: dict[Stand, int] = Field(default={}, description="gateways that stand like that now")
    tickets: tuple[TicketRow, ...] = Field(default=(), description="open ones first, a few")
    open_tickets: int = 0
    all_tickets: int = 0
    cut: bool = Field(default=False, description="whether there are more complaints than were looked through")

    @property
    def is_silent(self) -> bool:
        """Whether nobody has said anything."""
        return not (self.complaining or self.tickets)
