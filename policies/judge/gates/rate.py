"""Gates of kind `rate`: bad events among counted events, from two counters."""

from typing import Literal

from policies.judge.gates.counted import Counted, whole
from policies.judge.gates.kind import Selector
from policies.judge.look import Baseline, Look


class Rate(Counted):
    """Bad events among counted events, from two counters.

    The counter of bad events may be absent until the first one happens; the total may not.
    """

    kind: Literal["rate"]
    """Of two counters."""
    bad: Selector
    """The counter of bad events; absent until the first one."""
    total: Selector
    """The counter of all events."""

    @property
    def promised(self) -> tuple[str, ...]:
        """The total."""
        return (self.total,)

    @property
    def counters(self) -> tuple[str, ...]:
        """Both counters."""
        return (self.bad, self.total)

    def before(self, baseline: Baseline) -> tuple[None, tuple[int, int]]:
        """Return control's events and bad events before the window."""
        return None, whole(*(sum(baseline.grown(counter).values()) for counter in (self.total, self.bad)))

    def count(self, look: Look) -> tuple[dict[str, float], dict[str, float]]:
        """Return events, and bad events, per instance."""
        return look.grown(self.total), look.grown(self.bad)
