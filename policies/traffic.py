"""Traffic: how many sessions live on which release now, and when those on the old one will have ended."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from policies.model.value import Value

FEWEST_SAMPLES = 4
SLOWEST_PER_MINUTE = 0.05
"""A number of sessions that falls more slowly than this does not fall, as far as anybody can say."""

FURTHEST = timedelta(hours=24)
"""What would take longer than this is not foretold."""

Samples = Sequence[tuple[float, float]]
"""Sessions by the second of the epoch."""


class OnRelease(Value):
    """The sessions on one release."""

    version: str
    """As people call it; `an unknown release` for what the ledger does not know."""
    newer: bool = False
    """Whether it is the release of the change that is shown."""
    sessions: int
    per_minute: float | None = None
    """By how many they grow, or fall; None where too little was seen."""
    ended_at: datetime | None = None
    """When the last of them will have ended, if they go on falling like this."""


class Traffic(Value):
    """The sessions of a fleet, as its exporters count them; unknown is never zero."""

    releases: tuple[OnRelease, ...] = ()
    seen: int = 0
    """Gateways that were counted."""
    gateways: int = 0
    """All gateways of the fleet."""
    unknown: str = ""
    """Why nothing is known, empty where something is."""
    at: datetime | None = None


def per_minute(samples: Samples) -> float | None:
    """Return the slope of sessions in a minute by least squares; None for fewer than four samples."""
    if len(samples) < FEWEST_SAMPLES:
        return None
    mean_at = sum(at for at, _ in samples) / len(samples)
    mean = sum(value for _, value in samples) / len(samples)
    spread = sum((at - mean_at) ** 2 for at, _ in samples)
    if not spread:
        return None
    return 60 * sum((at - mean_at) * (value - mean) for at, value in samples) / spread


def ended_at(samples: Samples) -> datetime | None:
    """Return when the last session will have ended if they go on falling; None if nobody can say."""
    slope = per_minute(samples)
    if slope is None or slope > -SLOWEST_PER_MINUTE:
        return None
    at, sessions = samples[-1]
    left = timedelta(minutes=sessions / -slope)
    return datetime.fromtimestamp(at, UTC) + left if left <= FURTHEST else None


def on_release(version: str, samples: Samples, *, newer: bool) -> OnRelease:
    """Return how the sessions on one release stand by these samples, of which there is at least one."""
    return OnRelease(
        version=version,
        newer=newer,
        sessions=round(samples[-1][1]),
        per_minute=per_minute(samples),
        ended_at=None if newer else ended_at(samples),
    )
