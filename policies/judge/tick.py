"""One tick as the gates see it: all the judge ever needs of it, and what `judge replay` folds again."""

from dataclasses import dataclass

from policies.model.value import Value


class Sign(Value):
    """A bad sign on one instance, and since when it has lasted."""

    since: float
    until: float


class Tick(Value):
    """Counts, gauges and signs by gate and instance, or why there are none.

    `counts` holds (events, bad events), of blind gates too: what was counted is evidence even where
    not enough was seen to judge. `baseline` is the same of control before the window, summed up;
    `other` the executables seen where another was planned, `unseen` the canaries that metrics do not
    reach, `rebooted` the instances whose host has booted since it was first seen.
    """

    at: float
    counts: dict[str, dict[str, tuple[int, int]]] = {}
    baseline: dict[str, tuple[int, int]] = {}
    gauges: dict[str, dict[str, float]] = {}
    signs: dict[str, dict[str, Sign]] = {}
    blind: dict[str, str] = {}
    other: dict[str, str] = {}
    unseen: tuple[str, ...] = ()
    rebooted: tuple[str, ...] = ()
    unreachable: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """What one gate sees at one tick, by instance; what its kind does not look for stays None."""

    counts: dict[str, tuple[int, int]] | None = None
    gauges: dict[str, float] | None = None
    signs: dict[str, Sign] | None = None
