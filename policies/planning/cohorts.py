"""Say whom a wave is compared with: gateways that run the release, against gateways not yet changed."""

from collections.abc import Sequence

from policies.words.change import GatewayResult
from policies.words.plan import Plan
from policies.words.verdict import Cohorts

_CHANGED = {"on trial", "kept"}


def cohorts_of(plan: Plan, wave: int, results: Sequence[GatewayResult]) -> Cohorts:
    """Return the cohorts of a wave as its gateways stand now; wave 0 watches everything promoted.

    A gateway of an earlier wave runs the release, so it is no control; one that was set aside
    is neither canary nor control.
    """
    fleet = plan.fleet
    standing = {one.gateway: one for one in results if one.state in _CHANGED}
    canary = [name for name in standing if wave in {0, plan.wave_of.get(name)}]
    control = [
        gateway.name
        for gateway in fleet.gateways
        if gateway.name in plan.known_good and 0 < wave < plan.wave_of.get(gateway.name, 0)
    ]
    target = {name: fleet.gateway(name).metrics_target for name in (*canary, *control)}
    expected = {target[name]: plan.release.executable for name in canary} | {
        target[name]: plan.known_good[name].executable for name in control
    }
    return Cohorts(
        canary=tuple(target[name] for name in sorted(canary)),
        control=tuple(target[name] for name in sorted(control)),
        expected=expected,
        slots={target[n]: slot for n in canary if (slot := standing[n].slot) is not None},
        since={target[n]: at for n in canary if (at := standing[n].started) is not None},
    )
