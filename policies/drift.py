"""Known-good: does a gateway do what its last promotion says it does, and is it back already?"""

from collections.abc import Mapping
from datetime import datetime, timedelta

from policies.model.change import PENSTOCK, Quarantine
from policies.model.instance import GatewayState, InstanceState
from policies.model.plan import ReleaseRef

AN_HOUR = 60
"""Minutes."""


def strays(states: Mapping[str, GatewayState], known_good: Mapping[str, ReleaseRef]) -> dict[str, str]:
    """Return each gateway that is not on its known-good, and how; silent gateways are not judged."""
    known = [(name, state, known_good[name]) for name, state in sorted(states.items()) if name in known_good]
    return {name: why for name, state, release in known if (why := astray(state, release))}


def waits(quarantine: Quarantine, at: datetime) -> bool:
    """Whether reconcile leaves a gateway in quarantine alone at that time.

    A person's word is kept until a person takes it back. What penstock gave up is tried in the minutes
    1, 2, 4, 8 … after that and once an hour: one gateway never keeps the fleet's lock from the others.
    """
    minutes = int((at - quarantine.since) / timedelta(minutes=1))
    tried = minutes.bit_count() == 1 if minutes < AN_HOUR else minutes % AN_HOUR == 0
    return quarantine.person != PENSTOCK or not tried


def left_behind(states: Mapping[str, GatewayState]) -> tuple[str, ...]:
    """Return the gateways on which something runs that gets no new sessions: somebody has to empty it."""
    found = []
    for name, state in sorted(states.items()):
        running = {one.slot for one in state.instances if one.state is InstanceState.RUNNING}
        if running - {state.steering.serving, state.steering.trial}:
            found.append(name)
    return tuple(found)


def astray(state: GatewayState, release: ReleaseRef) -> str | None:
    """Return why new sessions do not all go to the very process that the release's manifest names."""
    if state.steering.trial is not None:
        return f"has slot {state.steering.trial} on trial"
    serving = state.serving
    if serving is None:
        return "sends new sessions nowhere"
    if serving.state is not InstanceState.RUNNING:
        return f"sends new sessions to slot {serving.slot}, where nothing runs"
    if serving.release != release.digest:
        return f"runs a release that is not its known-good {release.version}"
    if serving.executable != release.executable:
        return "runs an executable that its manifest does not name"
    return None
