"""Spare gateways: those of a fleet that have no users, on which drills are rehearsed by the clock."""

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field

from policies.model.value import Duration, Name, Value

SpareDrill = Literal["way-open"]
"""Drills that harm nobody where there are no users."""


class SpareDrills(Value):
    """Which gateways have no users, and what is rehearsed on them; only inside a patch window."""

    spare: Annotated[tuple[Name, ...], Field(min_length=1, max_length=20)]
    """Gateways that have no users; one that has some is left alone, and its drill says so."""
    every: Duration = Field(
        default=timedelta(days=7),
        ge=timedelta(hours=1),
        le=timedelta(days=90),
        description="how long after its last run a drill is due again on a gateway",
    )
    which: Annotated[tuple[SpareDrill, ...], Field(min_length=1)] = ("way-open",)
    """`way-open`: the gateway is asked, logged in to and read back; nothing is changed there."""
