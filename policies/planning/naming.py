"""Name gateways in a sentence: all of a few, the first of many."""

from collections.abc import Sequence

MOST = 4
"""More names than this are folded: a sentence is read, a list is asked for."""


def named(names: Sequence[str], most: int = MOST) -> str:
    """Return the names for a sentence: `gw-1, gw-2` or `gw-1, gw-2, gw-3 and 997 more`."""
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[: most - 1])} and {len(names) - most + 1} more"


def counted(count: int, noun: str) -> str:
    """Return `1 gateway` or `7 gateways`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
