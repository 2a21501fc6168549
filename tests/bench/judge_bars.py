"""A bar of the acceptance list: what was measured, and whether it holds."""

from math import inf
from typing import Any


def bar(number: int, name: str, measured: float, limit: float, *, least: bool = False) -> dict[str, Any]:
    """Return the bar as JSON has it; `least` turns a limit from above into one from below."""
    holds = measured >= limit if least else measured <= limit
    return {"bar": number, "name": name, "measured": plain(measured), "limit": limit, "holds": holds}


def plain(value: float) -> float | None:
    """Return a number that JSON knows; None for what never happened."""
    return round(value, 5) if value < inf else None
