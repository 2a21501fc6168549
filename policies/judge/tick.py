"""One tick as the gates see it: all the judge ever needs of it, and what `judge replay` folds again."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from pydantic import Field

from policies.model.value import Value


class Sign(Value):
    """A bad sign on one instance, and since when it has lasted."""

    since: float
    until: float
    name: str = Field(default="", exclude_if=lambda name: not name, description="what a ticket says")


@dataclass(frozen=True, slots=True)
class Offence:
    """A bad sign as a filter, so that of many gateways only those come back that may show it.

    Values of a selector (over another's) are filtered for, or `shown` for any value at all. Who turns
    out innocent may pass, never is one held back who is not: the gate decides on the raw samples.
    `lookback` is how far back a change, or the last sample before it went, counts.
    """

    selector: str
    when: Literal["above", "below", "equals", "changes", "gone", "shown"]
    lookback: timedelta
    value: float = 0.0
    per: str | None = None


class Tick(Value):
    """Counts, gauges and signs by gate and instance, or why there are none.

    `counts` holds (events, bad events), of blind gates too: what was counted is evidence even where not
    enough was seen to judge. `baseline` is the same of control before the window, summed up; `other` the
    executables seen where another was planned, `unseen` the canaries that metrics do not reach, `rebooted`
    the instances whose host has booted since it was first seen, or started, and `started` those of them on
    which the planned executable is first seen in the new boot. `seen` says, by gates whose sign is or was
    just now on a changed gateway, when each of the control was last seen. At the users' port of the
    `unreachable` surely nobody takes users; of the `absent` neither that nor the agent answers. The users'
    port of the `silent` does not answer, which alone says neither.
    """

    at: float
    counts: dict[str, dict[str, tuple[int, int]]] = {}
    baseline: dict[str, tuple[int, int]] = {}
    gauges: dict[str, dict[str, float]] = {}
    signs: dict[str, dict[str, Sign]] = {}
    seen: dict[str, tuple[float, ...]] = Field(default={}, exclude_if=lambda seen: not seen)
    blind: dict[str, str] = {}
    other: dict[str, str] = {}
    unseen: tuple[str, ...] = ()
    rebooted: tuple[str, ...] = ()
    started: tuple[str, ...] = Field(default=(), exclude_if=lambda names: not names)
    unreachable: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """What one gate sees at one tick, by instance; what its kind does not look for stays None.

    `seen` is when each control gateway was last seen, in order, where a sign is or was on a changed one.
    """

    counts: dict[str, tuple[int, int]] | None = None
    gauges: dict[str, float] | None = None
    signs: dict[str, Sign] | None = None
    seen: tuple[float, ...] = ()
