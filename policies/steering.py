"""What each way of steering promises to users whose gateway changes; a plan tells it."""

from collections.abc import Collection, Mapping

from policies.model.fleet import Fleet, Gateway, SteeringKind
from policies.model.value import Name, Sentence, Value
from policies.planning.naming import named


class Promises(Value):
    """What one way of steering keeps while an instance drains, and when what steers fails."""

    keeps_rebound: bool
    """A user whose address changes behind a NAT keeps the session."""
    keeps_moved: bool
    """A user whose address changes at once, with no packet from the new one before, keeps the session."""
    comes_back: bool
    """Whoever reconnects does not pass what steers, and so has not to be led back by an address."""
    translates: bool
    """The kernel translates live connections, and has to track them."""
    sentence: Sentence
    """What a plan says of it."""


PROMISES: Mapping[SteeringKind, Promises] = {
    "nftables": Promises(
        keeps_rebound=True,
        keeps_moved=False,
        comes_back=False,
        translates=True,
        sentence="who changes networks while an instance drains logs in again, unless a packet over UDP "
        "tells of it",
    ),
    "redirect": Promises(
        keeps_rebound=True,
        keeps_moved=True,
        comes_back=True,
        translates=False,
        sentence="who changes networks while an instance drains keeps the session; the end of HAProxy "
        "costs new logins only",
    ),
    "hook": Promises(
        keeps_rebound=False,
        keeps_moved=False,
        comes_back=False,
        translates=False,
        sentence="where users come back to is what the hook steers to say",
    ),
    "haproxy": Promises(
        keeps_rebound=False,
        keeps_moved=False,
        comes_back=False,
        translates=False,
        sentence="who changes networks while an instance drains logs in again; the end of HAProxy "
        "stops everybody's traffic for some ten seconds, and users come back to their sessions by themselves",
    ),
}


def promised(fleet: Fleet, changing: Collection[Name]) -> tuple[str, ...]:
    """Return what the steering of the gateways that change promises, a sentence for each kind."""
    names, ways = set(changing), dict[tuple[SteeringKind, str], list[Name]]()
    for gateway in fleet.gateways:
        if gateway.name in names:
            ways.setdefault((gateway.steering, _sentence(gateway)), []).append(gateway.name)
    return tuple(
        f"Steering by {kind}{f' on {named(those)}' if len(ways) > 1 else ''}: {sentence}."
        for (kind, sentence), those in sorted(ways.items())
    )


def _sentence(gateway: Gateway) -> str:
    """Return what is said of the gateway's steering, and of its hook what that can do."""
    sentence = PROMISES[gateway.steering].sentence
    if gateway.steering != "hook":
        return sentence
    ends = "ends with its lease by itself" if "lease" in gateway.hook_can else "lasts while its agent is dead"
    gets = "" if "share" in gateway.hook_can else ", and gets all new users or none"
    return f"{sentence}; a trial {ends}{gets}"
