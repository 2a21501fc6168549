"""What the settings of a fleet's file would change: which lines on which gateways."""

from collections.abc import Mapping

from policies.model.adoption import ADOPTED
from policies.model.fleet import Fleet, Gateway
from policies.model.instance import GatewayState
from policies.model.settings import lines_of
from policies.model.value import Value
from policies.planning.naming import named
from policies.redaction import without_secrets

MOST_SENTENCES = 40
"""Lines of a plan; what is more is counted."""


class Changing(Value):
    """Which gateways get other settings, which keys differ, and how in lines for people."""

    gateways: tuple[str, ...]
    keys: tuple[str, ...]
    sentences: tuple[str, ...]


def changing(fleet: Fleet, states: Mapping[str, GatewayState]) -> Changing:
    """Return what differs between the fleet's file and what gateways were given, of those that answer."""
    found = dict[tuple[str, ...], list[str]]()
    for gateway in fleet.gateways:
        state = states.get(gateway.name)
        if state is not None and (lines := difference(fleet, gateway, state)):
            found.setdefault(lines, []).append(gateway.name)
    sentences = [
        said for lines, names in found.items() for said in (f"{named(names)}:", *map(_indented, lines))
    ]
    if len(sentences) > MOST_SENTENCES:
        sentences = [*sentences[:MOST_SENTENCES], f"and {len(sentences) - MOST_SENTENCES} more lines"]
    keys = {line.split()[1] for lines in found for line in lines}
    return Changing(
        gateways=tuple(name for names in found.values() for name in names),
        keys=tuple(sorted(keys)),
        sentences=tuple(sentences),
    )


def difference(fleet: Fleet, gateway: Gateway, state: GatewayState) -> tuple[str, ...]:
    """Return how the gateway's settings would change, `- key = value` before `+ key = value`.

    One that is served by what was adopted has a configuration of its own, and is left alone.
    """
    before, after = state.settings, lines_of(fleet.settings_of(gateway))
    if before == after or state.steering.serving == ADOPTED:
        return ()
    lost = [line for line in before if line not in after]
    new = [line for line in after if line not in before]
    if not lost and not new:
        lost, new = list(before), list(after)  # in another order, in which daemons tell them
    return (*(f"- {_shown(line)}" for line in lost), *(f"+ {_shown(line)}" for line in new))


def _shown(line: str) -> str:
    return without_secrets(line).strip()


def _indented(line: str) -> str:
    return f"  {line}"
