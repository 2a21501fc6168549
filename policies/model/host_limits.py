"""Host limits: what a gateway's host does at most, whoever orders it; they stand in the agent's own file."""

from datetime import timedelta

from pydantic import Field

from policies.model.fleet import LONGEST_LEASE
from policies.model.settings import Key
from policies.model.value import Duration, Value

CLOCK_DIFFERENCE = timedelta(minutes=10)
"""How far ahead of its clock a host takes an order's epoch, unless its agent's file says otherwise."""


class HostLimits(Value):
    """Bounds that no order of the engine can widen."""

    longest_lease: Duration = Field(
        default=LONGEST_LEASE, gt=timedelta(0), description="how long an instance may be on trial unconfirmed"
    )
    endings_per_minute: int = Field(
        default=600, ge=0, description="sessions that may be ended in any minute; 0 ends nobody by order"
    )
    # One gateway that tries a load again and again, until its patience is over, needs 18.
    loads_per_hour: int = Field(
        default=20, ge=0, description="load tests that may be made in any hour; 0 makes none by order"
    )
    shadow_logins_per_minute: int = Field(
        default=60,
        ge=0,
        description="logins of a mirror in any minute, at each of its two instances; 0 makes none by order",
    )
    settings: tuple[Key, ...] | None = Field(
        default=None,
        description="settings that orders may change; left out, all that a fleet may have, [] none",
    )
    clock_difference: Duration = Field(
        default=CLOCK_DIFFERENCE,
        gt=timedelta(0),
        description="how far an order's epoch may be ahead of this host's clock",
    )
