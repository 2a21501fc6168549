"""What one look at the metrics found, before any counting."""

from dataclasses import dataclass, field

from policies.judge.counts import Series

COMPLAINTS = "complaints"
"""What complaints are called among what could not be read."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Everything read at one moment, before any counting.

    `series` maps a selector to what it found; a selector that could not be read is in
    `unread` with the reason instead. `history` holds the same selectors one baseline earlier,
    for the first tick only. `unreachable` names instances that a probe from here did not reach.
    `complaints` has first complaints since counters were last folded, or is in `unread` as `COMPLAINTS`.
    """

    at: float
    series: dict[str, tuple[Series, ...]]
    unread: dict[str, str] = field(default_factory=dict)
    history: dict[str, tuple[Series, ...]] = field(default_factory=dict)
    unreachable: frozenset[str] = frozenset()
    complaints: dict[str, int] = field(default_factory=dict)
