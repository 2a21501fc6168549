"""Tickets: what a network operations centre has written down about a fleet, or one of its gateways."""

from typing import Annotated

from pydantic import Field, model_validator

from policies.model.value import Name, Value

MOST_OF_A_LINE = 200
"""Characters of a ticket's text."""

TicketId = Annotated[str, Field(pattern=r"^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?$")]
"""How the centre's own system calls a ticket."""

Line = Annotated[str, Field(min_length=1, max_length=MOST_OF_A_LINE)]
Seconds = Annotated[float, Field(gt=0, lt=7_258_118_400, allow_inf_nan=False)]


class Ticket(Value):
    """One ticket as it stood at `at`, in seconds since the epoch; told again it is brought up to date."""

    id: TicketId
    gateway: Name | None = Field(default=None, description="which one, None for the whole fleet")
    severity: Name = Field(description="as your own system calls it, in small letters, like `page`")
    text: Line = Field(description="one line that names no user")
    link: str | None = Field(default=None, max_length=500, pattern=r"^https?://[!-~]+$")
    opened: Seconds
    closed: Seconds | None = None
    at: Seconds = Field(description="when it was like this, by the clock of who sends it")

    @property
    def is_open(self) -> bool:
        """Whether nobody has closed it."""
        return self.closed is None

    @model_validator(mode="after")
    def _is_one_line(self) -> "Ticket":
        if not self.text.isprintable() or self.text != self.text.strip():
            raise ValueError("text must be one line of printable characters")
        if "@" in self.text:
            raise ValueError("text must name no user, so it has no @")
        if self.closed is not None and self.closed < self.opened:
            raise ValueError("a ticket is closed after it was opened")
        if self.closed is not None and self.closed > self.at:
            raise ValueError("a ticket is closed by the time at which it was so: closed is no later than at")
        return self
