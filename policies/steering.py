"""What each way of steering promises to users whose gateway changes; a plan tells it."""

from collections.abc import Collection, Mapping

from policies.model.fleet import Fleet, SteeringKind
from policies.model.value import Name, Sentence, Value
from policies.planning.naming import named


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


PROMISES: Mapping[SteeringKind, Promises] = {
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


def promised(fleet: Fleet, changing: Collection[Name]) -> tuple[str, ...]:
    """Return what the steering of the gateways that change promises, a sentence for each kind."""
    kinds: dict[SteeringKind, list[Name]] = {}
    for gateway in fleet.gateways:
        if gateway.name in changing:
            kinds.setdefault(gateway.steering, []).append(gateway.name)
    return tuple(
        f"Steering by {kind}{f' on {named(names)}' if len(kinds) > 1 else ''}: {PROMISES[kind].sentence}."
        for kind, names in sorted(kinds.items())
    )
