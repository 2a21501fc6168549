"""An offence: a bad sign as a filter, so that of many gateways only those come back that may show it."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

MOST_OFFENDERS = 500
"""Gateways whose signs are read in full; where there are more, their names add nothing."""


@dataclass(frozen=True, slots=True)
class Offence:
    """What to filter for: values of a selector (over another's), `shown` for any value at all.

    The filter may let through who turns out innocent, never hold back who is not: the gate decides
    on the raw samples. `lookback` is how far back a change, or the last sample before it went, counts.
    """

    selector: str
    when: Literal["above", "below", "equals", "changes", "gone", "shown"]
    lookback: timedelta
    value: float = 0.0
    per: str | None = None
