"""A notice: what people are told without asking, once for each occurrence, on every sink that is to have it."""

from enum import StrEnum

from pydantic import Field

from policies.model.offer import Offer
from policies.model.value import Moment, Name, Value


class NoticeLevel(StrEnum):
    """How loud a notice is."""

    INFO = "info"
    """Somebody may want to know; it goes to the thread of its change."""
    NEEDS_YOU = "needs_you"
    """A person has to decide; it mentions people and is mailed."""
    PAGE = "page"
    """Somebody has to be woken; quiet hours never silence it."""


class Notice(Value):
    """One occurrence, said in the words of the status; the same occurrence always has the same key."""

    key: str = Field(min_length=1, max_length=200)
    """What receivers tell a repeat by: the change (or the fleet), the state, and which time it was."""
    fleet: Name
    change: Name | None = None
    """The change in whose thread it belongs, None for what concerns no change."""
    gateway: Name | None = None
    state: str = Field(min_length=1, max_length=63)
    """What waits or has ended, as `policies.notices` names it, such as `held` or `rolled_back`."""
    level: NoticeLevel
    headline: str = Field(min_length=1, max_length=500)
    """One line: what happened, to which fleet."""
    sentences: tuple[str, ...] = ()
    """To how many users, why, and what happens next by itself and when."""
    offers: tuple[Offer, ...] = ()
    """What can be done now; each sink spells it."""
    runbook: str | None = None
    """The page of `runbooks/` that fits, without its ending."""
    resolves: str | None = None
    """The key of the notice that is settled by this one: what paged ends its page."""
    at: Moment
