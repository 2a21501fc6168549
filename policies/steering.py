"""What each way of steering promises to users whose gateway changes; a plan tells it."""

from collections.abc import Collection, Mapping

from policies.model.fleet import Fleet, Gateway, SteeringKind
from policies.model.value import Name, Sentence, Value
from policies.planning.naming import named


class Promises(Value):
    """What one way of steering keeps while an instance drains, and when what steers fails."""

    comes_back: bool
    """Whoever reconnects does not pass what steers, and so has not to be led back by an address."""
    translates: bool
    """The kernel translates live connections, and has to track them."""
    sentence: Sentence
    """What a plan says of it where its daemon has no sentence of its own."""


PROMISES: Mapping[SteeringKind, Promises] = {
    "nftables": Promises(
        comes_back=False,
        translates=True,
        sentence="who changes networks while an instance drains logs in again, unless a packet over UDP "
        "tells of it",
    ),
    "redirect": Promises(
        comes_back=True,
        translates=False,
        sentence="who changes networks while an instance drains keeps the session; the end of HAProxy "
        "costs new logins only",
    ),
    "hook": Promises(
        comes_back=False,
        translates=False,
        sentence="where users come back to is what the hook steers to say",
    ),
    "haproxy": Promises(
        comes_back=False,
        translates=False,
        sentence="who changes networks while an instance drains logs in again; the end of HAProxy "
        "stops everybody's traffic for some ten seconds, and users come back to their sessions by themselves",
    ),
}


OF_DAEMONS: Mapping[tuple[SteeringKind, Name], Sentence] = {
    ("nftables", "openvpn"): "who changes networks while an instance drains keeps the session",
    ("nftables", "strongswan"): "who changes address keeps the session; who gets another address or port "
    "from a NAT stays without answers until the client notices",
}
"""What a plan says of daemons whose clients, changing networks, do otherwise than openconnect."""


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
    """Return what is said of the gateway's steering and daemon, and of its hook what that can do."""
    of_daemon = OF_DAEMONS.get((gateway.steering, gateway.daemon))
    sentence = of_daemon or PROMISES[gateway.steering].sentence
    if gateway.steering != "hook":
        return sentence
    ends = "ends with its lease by itself" if "lease" in gateway.hook_can else "lasts while its agent is dead"
    gets = "" if "share" in gateway.hook_can else ", and gets all new users or none"
    return f"{sentence}; a trial {ends}{gets}"
