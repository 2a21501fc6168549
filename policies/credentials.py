"""Whether a gateway's host has the credentials that a release asks for, as far as its agent tells."""

from collections.abc import Collection, Mapping

from policies.model.instance import GatewayState, GivenCredential
from policies.planning.naming import named


def lacking(state: GatewayState, asked: Collection[str]) -> str | None:
    """Return which of the credentials that are asked for the host has not, and why; None for all it knows of.

    An agent that does not tell, since it is older, lacks nothing that anybody knows of.
    """
    if state.credentials is None or not asked:
        return None
    given = {one.name: one for one in state.credentials}
    found = [why for name in sorted(asked) if (why := _lacking(name, given.get(name)))]
    return f"its host lacks {'; '.join(found)}" if found else None


def _lacking(name: str, given: GivenCredential | None) -> str | None:
    if given is None:
        return f"credential {name}, which its agent's file does not name"
    return f"credential {name} ({given.missing})" if given.missing else None


def elsewhere_of(credentials: Collection[GivenCredential] | None) -> tuple[str, ...] | None:
    """Return the names of those credentials that a vault has; None where an older agent tells of none."""
    if credentials is None:
        return None
    return tuple(one.name for one in credentials if one.elsewhere)


def untold(vaults: Mapping[str, Collection[str] | None], asked: Collection[str]) -> tuple[str, ...]:
    """Return, a sentence each, of which gateways nobody knows whether they have what is asked for.

    Args:
        vaults: Of each gateway the credentials that a vault has for it; None where its agent does not tell.
        asked: The names of the credentials that are asked for.
    """
    if not asked:
        return ()
    silent, elsewhere = list[str](), dict[str, list[str]]()
    for gateway, names in sorted(vaults.items()):
        if names is None:
            silent.append(gateway)
        for name in names or ():
            if name in asked:
                elsewhere.setdefault(name, []).append(gateway)
    told = [
        f"whether {named(gateways)} can read credential {name} is not known before a start: a vault has it"
        for name, gateways in sorted(elsewhere.items())
    ]
    if silent:
        names = ", ".join(sorted(asked))
        told.append(
            f"whether {named(silent)} can read {names} is not known: an agent that is older does not tell"
        )
    return tuple(told)
