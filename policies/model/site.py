"""The site: whom to wake for a fleet, where its logs are, and where its runbooks and boards can be opened."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints

from policies.model.value import Name, Value

Line = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
"""One line that people write and read."""

Link = Annotated[str, StringConstraints(max_length=500, pattern=r"^https?://[^\s<>\"']+$")]
"""An address that a browser opens."""

MOST = 64


class Contact(Value):
    """One of those who are called, in the order of the file."""

    name: Line
    """Who it is: a person, or a rota."""
    role: Line
    """What they are called for, such as `network` or `release owner`."""
    reach: Line
    """How: a number, a channel, an address."""
    fleets: tuple[Name, ...] = Field(default=(), max_length=MOST)
    """The fleets they are called for; every fleet when none is named."""


class LogPlace(Value):
    """Where a log is read."""

    what: Line
    """Whose log it is, such as `agent` or `worker`."""
    where: Line
    """A command, a folder or an address."""


class Board(Value):
    """A board that shows how things are."""

    what: Line
    """What it shows."""
    link: Link
    """Where it opens."""


class Site(Value):
    """site.yaml: what a runbook leaves open, since every site has its own."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    api_version: Literal["penstock/v1"] = Field(alias="apiVersion")
    """The form of this file."""
    contacts: tuple[Contact, ...] = Field(default=(), max_length=MOST)
    """The call chain: who is called first stands first."""
    logs: tuple[LogPlace, ...] = Field(default=(), max_length=MOST)
    """Where logs are read."""
    runbooks: Link | None = None
    """The address under which the runbooks are published; without it pages are named, not linked."""
    boards: tuple[Board, ...] = Field(default=(), max_length=MOST)
    """Boards that are opened first."""

    def called_for(self, fleet: str | None) -> tuple[Contact, ...]:
        """Return the call chain of a fleet; of no fleet in particular, everybody."""
        return tuple(one for one in self.contacts if fleet is None or not one.fleets or fleet in one.fleets)

    def address_of(self, page: str) -> str | None:
        """Return where a runbook's page opens, None when nobody publishes them."""
        return f"{self.runbooks.rstrip('/')}/{page}.md" if self.runbooks is not None else None
