"""Landmarks: lines of a story that are read again, to tell when a change turned round and who was back.

An event is a moment and a sentence and nothing else, so that who writes one of these and who looks for it
have their words from here.
"""

from policies.model.status import Event
from policies.status.sentences import ON_NAMED
from policies.status.told import BACK

_TURN = "rolling back: "


def turn_line(reason: str) -> str:
    """Return what a change says that turns round."""
    return f"{_TURN}{reason}"


def is_turn(event: Event) -> bool:
    """Return whether the change turned round then."""
    return event.sentence.startswith(_TURN)


def gateway_line(gateway: str, state: str) -> str:
    """Return what a change says of a gateway that comes to a state."""
    return f"{gateway} {state}"


def is_gateway_back(event: Event) -> bool:
    """Return whether a gateway took its users as before from then on; no longer sentence says so."""
    gateway, _, state = event.sentence.partition(" ")
    return bool(gateway) and state in {BACK, ON_NAMED}
