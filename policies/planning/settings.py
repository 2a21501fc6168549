"""What the settings and pools of a fleet's file would change: which lines on which gateways."""

from collections.abc import Collection, Mapping
from functools import lru_cache

from policies.adoption import is_adopted
from policies.model.adoption import ADOPTED
from policies.model.fleet import Fleet, Gateway
from policies.model.instance import GatewayState
from policies.model.plan import ReleaseRef
from policies.model.settings import Setting, lines_of
from policies.model.value import Value
from policies.planning.naming import counted, named
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


class PassedOver(Value):
    """Gateways that neither have the settings of the fleet's file nor are given them."""

    adopted: tuple[str, ...] = ()
    """Those that an adopted daemon serves, by their answer or, where they are silent, by their known-good."""
    quarantined: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """What to do for them; empty where there are none."""
        said = list[str]()
        if self.adopted:
            use = "uses" if len(self.adopted) == 1 else "use"
            said.append(
                f"{_these(self.adopted)} {use} the adopted daemon's own configuration: change it there, "
                "and run `penstock config start` after the first upgrade"
            )
        if self.quarantined:
            are, them = ("is", "it") if len(self.quarantined) == 1 else ("are", "them")
            said.append(
                f"{_these(self.quarantined)} {are} in quarantine: return {them}, and run "
                "`penstock config start` again"
            )
        return "; ".join(said)


ALL_INCLUDED = PassedOver()


def passed_over(
    fleet: Fleet,
    states: Mapping[str, GatewayState],
    known_good: Mapping[str, ReleaseRef],
    left_out: Collection[str],
) -> PassedOver:
    """Return the gateways that a change of settings neither finds with the fleet's settings nor asks.

    Args:
        fleet: Whose file.
        states: What every gateway that answered is like.
        known_good: What each goes back to: a silent one whose own that is has no other daemon.
        left_out: Gateways in quarantine.
    """
    adopted, quarantined = list[str](), list[str]()
    for gateway in fleet.gateways:
        state, back = states.get(gateway.name), known_good.get(gateway.name)
        if state.steering.serving == ADOPTED if state is not None else back is not None and is_adopted(back):
            if fleet.settings_of(gateway) or (state is not None and _pools(gateway, state)):
                adopted.append(gateway.name)
        elif gateway.name in left_out and (state is None or difference(fleet, gateway, state)):
            quarantined.append(gateway.name)
    return PassedOver(adopted=tuple(adopted), quarantined=tuple(quarantined))


def nothing_to_change(fleet: Fleet, without: PassedOver, silent: Collection[str]) -> str:
    """Return why the fleet's file would change no gateway: how many have its settings, and which do not.

    Args:
        fleet: Whose file.
        without: Gateways that do not get them.
        silent: Others that do not answer.
    """
    if not without.sentence and not silent:
        return f"the gateways of {fleet.name} have these settings already"
    of = len(fleet.gateways)
    has = of - len(without.adopted) - len(without.quarantined) - len(silent)
    said = [f"{has} of {of} gateways of {fleet.name} {'has' if has == 1 else 'have'} these settings already"]
    said += [without.sentence] if without.sentence else []
    said += [f"{_these(silent)} {'does' if len(silent) == 1 else 'do'} not answer"] if silent else []
    return "; ".join(said)


def _these(names: Collection[str]) -> str:
    return f"{counted(len(names), 'gateway')} ({named(tuple(names))})"


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
