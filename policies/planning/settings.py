"""What the settings and pools of a fleet's file would change: which lines on which gateways."""

from collections.abc import Mapping
from functools import lru_cache

from policies.model.adoption import ADOPTED
from policies.model.fleet import Fleet, Gateway
from policies.model.instance import GatewayState
from policies.model.settings import Setting, lines_of
from policies.model.value import Value
from policies.planning.naming import named
from policies.planning.pools import other_pools
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


def of_joiners(fleet: Fleet, states: Mapping[str, GatewayState]) -> dict[str, tuple[Setting, ...]]:
    """Return the settings of the gateways that serve nobody yet: the fleet's, where it is on them.

    What nobody has started for the others, and a gateway's own settings, come with a change of settings.

    Args:
        fleet: Whose file.
        states: What every gateway that answered is like.
    """
    serve = {
        one.name: state
        for one in fleet.gateways
        if (state := states.get(one.name)) is not None and state.steering.serving not in (None, ADOPTED)
    }
    on = all(
        state.settings == lines_of(fleet.settings_of(fleet.gateway(name))) for name, state in serve.items()
    )
    if not serve or not fleet.settings or not on:
        return {}
    empty = [one for one in fleet.gateways if one.name not in serve and not one.settings]
    return {one.name: fleet.settings_of(one) for one in empty}


def difference(fleet: Fleet, gateway: Gateway, state: GatewayState) -> tuple[str, ...]:
    """Return how the gateway's settings, and the pools of what runs, would change: `-` before `+`.

    One that is served by what was adopted has a configuration of its own, and is left alone.
    """
    if state.steering.serving == ADOPTED:
        return ()
    return (*_settings(state.settings, lines_of(fleet.settings_of(gateway))), *_pools(gateway, state))


def _settings(before: tuple[str, ...], after: tuple[str, ...]) -> tuple[str, ...]:
    if before == after:
        return ()
    return _changed(before, after)


@lru_cache(maxsize=64)
def _changed(before: tuple[str, ...], after: tuple[str, ...]) -> tuple[str, ...]:
    """Return the lines that differ, which are the same ones on most gateways of a fleet."""
    old, wanted = frozenset(before), frozenset(after)
    lost = [line for line in before if line not in wanted]
    new = [line for line in after if line not in old]
    if not lost and not new:
        lost, new = list(before), list(after)  # in another order, in which daemons tell them
    return (*(f"- {_shown(line)}" for line in lost), *(f"+ {_shown(line)}" for line in new))


def _pools(gateway: Gateway, state: GatewayState) -> tuple[str, ...]:
    said = list[str]()
    for one in other_pools(gateway, state):
        said += [f"- {one.key} of slot {one.slot} = {one.before}"] if one.before else []
        said += [f"+ {one.key} of slot {one.slot} = {one.after}"] if one.after else []
    return tuple(said)


def _shown(line: str) -> str:
    return without_secrets(line).strip()


def _indented(line: str) -> str:
    return f"  {line}"
