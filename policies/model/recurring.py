"""Recurring upgrades: a fleet that gets the newest release of its channel whenever a window of it opens."""

from typing import Annotated, Literal

from pydantic import Field

from policies.model.value import Name, Value


class RecurringUpgrade(Value):
    """What is started by itself in each opening of the fleet's windows."""

    channel: Name
    """Whose newest release it is: the fleet's own channel, said again, since nobody is asked any more."""
    strategy: Literal["canary", "rolling", "blue_green"] = "canary"
    """How the fleet gets there."""
    reason: Annotated[str, Field(min_length=1, max_length=500, pattern=r"\S")] = (
        "the newest release of its channel"
    )
    """Why, for the history of the fleet."""
