"""Steering: which slot gets a gateway's new sessions, and for how long unless somebody confirms."""

from datetime import timedelta

from policies.model.value import Message


class Steering(Message):
    """The steering table of one gateway as read back from its kernel or balancer.

    `serving` is the permanent slot; `trial` wins over it while its lease lasts, for `share`
    percent of the source addresses. A table that was never primed has neither. `pinned` counts
    the source addresses whose new connections still go to the slot their sessions live on.
    """

    primed: bool = False
    serving: str | None = None
    trial: str | None = None
    trial_expires_in: timedelta | None = None
    share: int = 100
    """Percent of the source addresses whose new sessions the trial gets; 100 where there is no trial."""
    pinned: int = 0
    generation: str = ""
    """Who wrote the table last: rollout and epoch."""
    changed: bool = False
