"""Claims of break-glass: what surveys read of a gateway whose wave has passed, and its host may not confirm.

Each claim that a change is asked to look into makes its history longer, which cannot be cut during a wave.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

from policies.model.value import Name, Value

MOST_CLAIMS = 50
"""Gateways of which a change remembers claims; others are asked before its promotion, as all are."""

FIRST_PAUSE = timedelta(minutes=1)
MOST_DOUBLINGS = 20


class Claim(Value):
    """A claim of break-glass that a change looked into without leaving its gateway to an operator."""

    epoch: int
    at: datetime
    """When the change looked into it, by the engine's clock."""
    denied: bool = False
    """Whether the gateway's host answered that it is not so; without, the host or the ledger was silent."""
    looks: int = 1
    """How many claims of the gateway the change has looked into."""


def is_due(claims: Mapping[Name, Claim], gateway: Name, epoch: int, at: datetime) -> bool:
    """Return whether a change is to look into a gateway's claim.

    A claim that was denied is not looked into again, and each later one after a pause that doubles: an agent
    can claim another epoch in each survey.

    Args:
        claims: Those that the change has looked into, the last of each gateway.
        gateway: Which gateway claims that an operator steered it.
        epoch: Of the break-glass that it claims.
        at: Now.
    """
    known = claims.get(gateway)
    if known is None:
        return len(claims) < MOST_CLAIMS
    if known.denied and known.epoch == epoch:
        return False
    pause: timedelta = FIRST_PAUSE * (1 << min(known.looks - 1, MOST_DOUBLINGS))
    return at - known.at >= pause


def looked_into(
    claims: Mapping[Name, Claim], claimed: Mapping[Name, int], answers: Mapping[Name, str], at: datetime
) -> dict[Name, Claim]:
    """Return the claims that a change remembers after it has looked into some.

    Args:
        claims: Those it remembered before.
        claimed: The gateways whose claims it looked into, each with the epoch of its claim.
        answers: Why each is left to an operator, empty where its host denies that; silent ones are missing.
        at: Now.
    """
    kept = {name: claim for name, claim in claims.items() if not answers.get(name)}
    for name, epoch in claimed.items():
        if answers.get(name) or (name not in kept and len(kept) >= MOST_CLAIMS):
            continue
        looks = kept[name].looks + 1 if name in kept else 1
        kept[name] = Claim(epoch=epoch, at=at, denied=name in answers, looks=looks)
    return kept
