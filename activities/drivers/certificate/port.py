"""What a source of certificates promises."""

from dataclasses import dataclass
from typing import Protocol

from activities.drivers.certificate.pending import Pending


@dataclass(frozen=True)
class Pair:
    """A certificate with those above it, and its key, in PEM; the key is never printed."""

    chain: str
    key: bytes

    def __repr__(self) -> str:
        """Return the kind alone."""
        return "Pair(…)"


class Source(Protocol):
    """Where certificates come from; what it gives is believed by nobody before it is proved."""

    def obtain(self, pending: Pending) -> Pair:
        """Return the next certificate and its key.

        Killed anywhere it goes on from what it kept in `pending`, and asks for no second one.

        Raises:
            BadInput: What it was told is wrong, or others may read it.
            Refused: It gives none; what was pending is of no more use.
            Unavailable: It does not answer, or not in time.
        """
        ...
