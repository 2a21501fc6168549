"""What each way of steering promises to users whose gateway changes; a plan tells it."""

from collections.abc import Mapping
from typing import Literal

from policies.model.value import Sentence, Value

Kind = Literal["nftables", "redirect", "haproxy"]
"""What may say who gets a gateway's new sessions."""


class Promises(Value):
    """What one way of steering keeps while an instance drains, and when what steers fails."""

    keeps_rebound: bool
    """A user whose address changes behind a NAT keeps the session."""
    keeps_moved: bool
    """A user whose address changes at once, with no packet from the new one before, keeps the session."""
    beside_sessions: bool
    """Live sessions do not pass what steers: its end costs new logins only."""
    sees_addresses: bool
    """The daemon sees from where its users come."""
    sentence: Sentence
    """What a plan says of it."""


PROMISES: Mapping[Kind, Promises] = {
    "nftables": Promises(
        keeps_rebound=True,
        keeps_moved=False,
        beside_sessions=False,
        sees_addresses=True,
        sentence="who changes networks while an instance drains logs in again",
    ),
    "redirect": Promises(
        keeps_rebound=True,
        keeps_moved=True,
        beside_sessions=True,
        sees_addresses=True,
        sentence="who changes networks while an instance drains keeps the session",
    ),
}
