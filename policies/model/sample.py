"""Samples: what gates had measured at one moment of a window, kept for people to look at."""

from datetime import datetime

from policies.model.value import Value
from policies.model.verdict import GateVerdict

BAD = frozenset({GateVerdict.UNHEALTHY, GateVerdict.HARD, GateVerdict.CONFLICTING})
"""Verdicts of a gate that has seen enough to call something wrong."""

MOST_OF_A_WINDOW = 300
"""Samples of a window's first so many ticks; from then on each doubling of its time adds half as many."""


class Sample(Value):
    """What one gate had measured at one moment: its verdict and its numbers."""

    at: datetime
    wave: int
    gate: str
    verdict: GateVerdict
    numbers: dict[str, float] = {}

    @property
    def is_bad(self) -> bool:
        """Whether the changed gateways look worse than what they are compared with, proven or not."""
        get = self.numbers.get
        total, bad = get("canary_total", 0.0), get("canary_bad", 0.0)
        if "canary_total" in self.numbers:
            others = get("control_total", 0.0)
            allowed = get("control_bad", 0.0) / others if others else get("limit", 0.0)
            return total > 0 and bad / total > allowed
        if "ratio" in self.numbers:
            return get("ratio", 0.0) > get("allowed", 0.0)
        if "canary_per_minute" in self.numbers:
            return self.verdict in BAD
        return get("canary", 0.0) > 0


def is_due(before: float, after: float, tick: float) -> bool:
    """Return whether a tick of a window is sampled: each at first, every second one later, then every fourth.

    Args:
        before: How long the window had lasted at the tick before, in seconds; 0 at its first.
        after: How long it has lasted at this one.
        tick: The time between two ticks.
    """
    every = tick
    while after > MOST_OF_A_WINDOW * every:
        every *= 2
    return int(before // every) != int(after // every) or before == 0
