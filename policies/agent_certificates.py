"""Judge the certificates by which relays know gateways' agents, from what the ledger keeps of them.

The ledger knows what relays issued and what was revoked. Whether a host could keep what it was given, and
what an authority of somebody's own has issued, it does not know; nothing here is good for want of evidence.
"""

from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

LATE = 0.25
"""The share of a certificate's life that is left when its renewal, due at a third, has failed for a while."""

ENDING = 0.1
"""The share of its life that is left when there is little time to mend what keeps it from being renewed."""


class CertificateState(StrEnum):
    """How a gateway's newest certificate stands; in this order they need somebody."""

    ENDED = "ended"
    ENDING = "ending"
    LATE = "late"
    STRAY = "stray"
    """It is good, and the fleet's file has no such gateway."""
    REVOKED = "revoked"
    UNKNOWN = "unknown"
    """None was issued, as far as the ledger remembers."""
    GOOD = "good"

    @property
    def rank(self) -> int:
        """Its place among all states: those that need somebody first."""
        return _RANKS[self]


_RANKS = {state: rank for rank, state in enumerate(CertificateState)}


class Life(NamedTuple):
    """When a certificate was issued, and until when it is good."""

    issued: datetime
    expires: datetime


def certificate_state(
    life: Life | None, now: datetime, *, revoked: bool, described: bool
) -> CertificateState | None:
    """Return how a gateway's newest certificate stands; None for a gateway that is neither here nor there.

    Args:
        life: Of the newest that was issued since the last revocation; None where none was.
        now: The present.
        revoked: Whether what was issued before that was revoked.
        described: Whether the fleet's file has such a gateway.
    """
    if life is None:
        if revoked:
            return CertificateState.REVOKED
        return CertificateState.UNKNOWN if described else None
    left = life.expires - now
    if not described:
        return CertificateState.STRAY if left.total_seconds() > 0 else None
    if left.total_seconds() <= 0:
        return CertificateState.ENDED
    whole = life.expires - life.issued
    if left < whole * ENDING:
        return CertificateState.ENDING
    return CertificateState.LATE if left < whole * LATE else CertificateState.GOOD
