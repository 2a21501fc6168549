"""When a certificate is renewed, and when again after a failure: a fleet never asks in one moment."""

import hashlib
from datetime import datetime, timedelta

RENEWED_AT = 2 / 3
"""Of a certificate's life, when the first gateway asks for the next one."""
SPREAD = 1 / 12
"""Of a certificate's life, within which all gateways of a fleet have asked, each at a moment of its own."""
RESTED = 1 / 6
"""Of a certificate's life, how long it lies there at least before the next one is asked for.

To a clock that is weeks ahead each new certificate is due at once, and of too many a gateway gets none.
"""
FIRST_AGAIN = timedelta(minutes=5)
"""After the first failure; each further one doubles it. Let's Encrypt takes five failures an hour."""
LONGEST_AGAIN = timedelta(hours=6)
"""At most, before a gateway's own share of as much again."""
_DOUBLINGS = 7


def due(begin: datetime, end: datetime, came: datetime, now: datetime, name: str) -> datetime:
    """Return when a certificate with this life is renewed.

    Args:
        begin: From when it is good.
        end: Until when.
        came: When it was laid down, by this host's clock.
        now: The present; a certificate that comes later than that says nothing of how long it lies there.
        name: Whose it is, which gives it a moment of its own.
    """
    life = end - begin
    by_life = begin + life * (RENEWED_AT + SPREAD * _share(name))
    return by_life if came > now else max(by_life, came + life * RESTED)


def again(failures: int, name: str) -> timedelta:
    """Return how long to wait after that many failures in a row; gateways that failed together part."""
    waits = min(LONGEST_AGAIN, FIRST_AGAIN * (1 << min(failures - 1, _DOUBLINGS)))
    return waits * (1 + _share(name))


def _share(name: str) -> float:
    """Return a number from 0 to 1 that is the name's own."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) / 2**64
