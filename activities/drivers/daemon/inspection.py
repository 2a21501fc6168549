"""What release tests of any product make of what they saw; their limits are a policy."""

from collections.abc import Awaitable, Collection, Sequence
from ipaddress import ip_network

from activities.drivers.daemon.held import Held
from activities.drivers.daemon.port import Environment
from policies.model.errors import PenstockError
from policies.model.release_tests import Asked, Measurement


async def or_unknown(test: Asked, asking: Awaitable[Measurement]) -> Measurement:
    """Return what was measured; one that cannot be made says what is missing."""
    try:
        return await asking
    except (PenstockError, OSError, TimeoutError) as error:
        return Measurement(test=test, said=f"it could not be made: {str(error) or 'no answer in time'}")


def goes_on(before: int, after: int | None, said: str) -> Measurement:
    """Return whether the daemon is the same process after garbage as before."""
    if after == before:
        return Measurement(test=Asked.GARBAGE, measured=0, said=f"{said}; process {before} goes on")
    return Measurement(test=Asked.GARBAGE, measured=1, said=f"{said}; then it was {after or 'no process'}")


def lost(test: Asked, kind: str, held: Sequence[Held]) -> Measurement:
    """Measure what the worst session lost; one that came to no ping has lost all of them."""
    counts = [session.pings.get(kind, (0, 0)) for session in held]
    parts = [1 - received / sent if sent else 1.0 for sent, received in counts]
    sizes = f" of {', '.join(str(session.mtu) for session in held)} bytes" if kind == "full" else ""
    said = f"{' and '.join(f'{received} of {sent}' for sent, received in counts)} pings{sizes} came back"
    return Measurement(test=test, measured=max(0.0, *parts), said=said)


def cleartext(environment: Environment, held: Sequence[Held]) -> Measurement:
    """Count the packets whose content lay open; a look that saw less than was carried proves nothing."""
    seen, carried = sum(one.wire.bytes for one in held), sum(one.carried for one in held)
    plain = sum(one.wire.plain for one in held)
    if not seen and not environment.own_networks:
        unseen = (
            "no packet was seen: give the pod of this node's agent NET_RAW, or let tests.skip name cleartext"
        )
        return Measurement(test=Asked.CLEARTEXT, said=unseen)
    said = f"{plain} packets lay open among {seen} bytes on the wire, which carried {carried} bytes of pings"
    if not plain and (seen < carried or not all(one.carried for one in held)):
        return Measurement(test=Asked.CLEARTEXT, said=f"not everything was seen: {said}")
    return Measurement(test=Asked.CLEARTEXT, measured=plain, said=said)


def routes(wanted: Collection[str], held: Sequence[Held]) -> Measurement:
    """Measure which routes were pushed and are not wanted, and the other way round.

    A route that is no network is compared as it is written.
    """
    pushed = {_one_way(route) for session in held for route in session.routes}
    differ = sorted({*wanted} ^ pushed)
    said = f"{len(pushed)} routes were pushed" + (
        f", and these differ: {', '.join(differ)}" if differ else ""
    )
    if refused := sorted(route for route in pushed if not _is_network(route)):
        said += f"; clients take no route to what is no network: {', '.join(refused)}"
    if not any(session.let_in for session in held):
        return Measurement(test=Asked.ROUTES, said="nobody got in to whom routes could be pushed")
    return Measurement(test=Asked.ROUTES, measured=len(differ), said=said)


def network(written: str) -> str:
    """Return a network in one way of writing it; ValueError where it is none."""
    return str(ip_network(written, strict=False))


def _one_way(written: str) -> str:
    return network(written) if _is_network(written) else written


def _is_network(written: str) -> bool:
    try:
        network(written)
    except ValueError:
        return False
    return True
