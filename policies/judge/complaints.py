"""Complaints and tickets that arrive by signed webhook: genuine, fresh, and one per user and window.

The signature is HMAC-SHA256 over `<seconds since the epoch>.<fleet>.<body>`, hexadecimal, with a key
only the sender and we hold. The clock is part of what is signed, so an old message cannot be
sent again after `FRESH`; within it, a repeat is the same complaint and counts once. So is the fleet, and
no message can be sent again to another one.
"""

import hmac
import json
from collections import Counter
from collections.abc import Iterable
from datetime import timedelta
from hashlib import sha256

from pydantic import Field, ValidationError

from policies.model.errors import BadInput, NotAllowed
from policies.model.value import Value

FRESH = timedelta(minutes=5)
LATE = timedelta(hours=1)
"""How long after it was made a complaint may arrive; an older one says nothing of what is watched now."""
MOST_BYTES = 64 * 1024


class Complaint(Value):
    """One user's complaint about one gateway; the user is named by a hash only."""

    user: str = Field(pattern=r"^[0-9a-f]{16,64}$", description="hash of the user's name")
    gateway: str = Field(min_length=1, max_length=255)
    at: float = Field(gt=0, description="seconds since the epoch")


def sign(key: bytes, at: int, fleet: str, body: bytes) -> str:
    """Return the signature a sender puts beside its message about a fleet."""
    return hmac.new(key, f"{at}.{fleet}.".encode() + body, sha256).hexdigest()


def read_complaint(key: bytes, fleet: str, body: bytes, at: str, signature: str, now: float) -> Complaint:
    """Return the complaint of a webhook call about that fleet.

    Raises:
        NotAllowed: the signature does not fit, or the message is too old or from the future.
        BadInput: signed, but no complaint, or one made long ago or in the future.
    """
    require_genuine("complaint", key, fleet, body, at, signature, now)
    try:
        complaint = Complaint.model_validate(json.loads(body))
    except (ValidationError, ValueError, RecursionError) as error:
        raise BadInput("the complaint must be JSON with user (a hash), gateway and at") from error
    if not -FRESH.total_seconds() <= now - complaint.at <= LATE.total_seconds():
        raise BadInput("the complaint was made over an hour ago, or later than now; at is in seconds")
    return complaint


def require_genuine(
    what: str, key: bytes, fleet: str, body: bytes, at: str, signature: str, now: float
) -> None:
    """Return if the message is signed with the key, about that fleet, and fresh; `what` names it.

    Raises:
        NotAllowed: It is not; nobody who has no key learns anything else.
    """
    if len(body) > MOST_BYTES or not at.isascii() or not at.isdigit() or len(at) > 12:  # noqa: PLR2004 - far future
        raise NotAllowed(f"the {what} is not signed as agreed; nothing was recorded")
    if not hmac.compare_digest(sign(key, int(at), fleet, body).encode(), signature.encode()):
        raise NotAllowed(f"the {what}'s signature does not fit; check the key on both sides")
    if abs(now - int(at)) > FRESH.total_seconds():
        raise NotAllowed(f"the {what} is more than five minutes old or ahead; check the sender's clock")


def first_complaints(
    complaints: Iterable[Complaint], started: float, since: float, until: float
) -> dict[str, int]:
    """Return per gateway how many users complained for the first time in the window, after `since`."""
    first: dict[str, Complaint] = {}
    for complaint in sorted(complaints, key=lambda one: (one.at, one.gateway)):
        if started <= complaint.at <= until:
            first.setdefault(complaint.user, complaint)
    return dict(Counter(complaint.gateway for complaint in first.values() if complaint.at > since))
