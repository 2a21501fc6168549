"""A notice: what people are told without asking, once for each occurrence, on every sink that is to."""

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
    also_resolves: tuple[str, ...] = ()
    """The keys of what was made louder because nobody acted, settled with `resolves`."""


class Occasion(StrEnum):
    """Why a sink is told of a notice now."""

    SAID = "said"
    """It has just happened."""
    REPEATED = "repeated"
    """It is still so, for receivers that take silence for an end."""
    SETTLED = "settled"
    """Only what the notice resolves is over: the sink was told of that, and is not told of this otherwise."""
    ACKNOWLEDGED = "acknowledged"
    """A person has it; nobody else is to be woken."""


class Delivery(Value):
    """One notice on its way to one sink."""

    sink: Name
    notice: Notice
    occasion: Occasion = Occasion.SAID
    resolved: tuple[Notice, ...] = ()
    """What this notice settles and the sink was told of."""
    waits: bool = False
    """Whether it is so until it is settled."""
    settled: Moment | None = None
    """Since when it is over, where it is already."""
    tries: int = Field(default=0, ge=0)
    """How often it was tried in vain."""


class NoticeRow(Value):
    """What one sink was told of one notice, or was not told yet, and why."""

    notice: Notice
    sink: Name
    tries: int = 0
    due: Moment | None = None
    """When it is tried next, None when nothing is left to be done."""
    delivered: Moment | None = None
    given_up: Moment | None = None
    """Since when it is not tried any more."""
    folded_into: str | None = None
    """The notice that told it with others, where the sink was away for long."""
    error: str = ""
    """What kept it the last time."""
    settled: Moment | None = None
    acknowledged: Moment | None = None
    acknowledged_by: str | None = None
