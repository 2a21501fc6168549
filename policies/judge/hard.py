"""Hard signals: bad signs that need no statistics, only to last and not to be everybody's."""

from collections.abc import Collection, Sequence
from itertools import pairwise

from policies.gates import Fires

EVERYBODYS = 1 / 3
"""Part of the control gateways from which on a sign is the fleet's and not the release's."""


def firing_since(
    samples: Sequence[tuple[float, float]], fires: Fires | None, divisor: float = 1.0
) -> float | None:
    """Return since when the newest samples fire without a break; None when the newest does not.

    Without a rule a sample fires by being there and not zero, as Prometheus writes alerts.
    A change fires at the last sample that differs from the one before by more than the rule's value.
    """
    if fires is not None and fires.when == "changes":
        changes = [at for (_, was), (at, value) in pairwise(samples) if abs(value - was) > fires.value]
        return changes[-1] if changes else None
    since = None
    for at, value in reversed(samples):
        if not _fires(value / divisor if divisor else value, fires):
            break
        since = at
    return since


def gone_since(last_shown: float | None, reached: Sequence[float]) -> float | None:
    """Return since when a series has been missing from scrapes that reached its target.

    None when the newest scrape has it, or when it was never there: that is not known, not gone.
    """
    if last_shown is None or not reached or reached[-1] <= last_shown:
        return None
    return last_shown


def _fires(value: float, fires: Fires | None) -> bool:
    if fires is None:
        return value != 0
    match fires.when:
        case "above":
            return value > fires.value
        case "below":
            return value < fires.value
        case _:
            return value == fires.value


def is_everybodys(on: Collection[str], control: Collection[str]) -> bool:
    """Whether a third of the control gateways or more show the sign too."""
    return bool(control) and len(set(on) & set(control)) >= max(1.0, EVERYBODYS * len(control))
