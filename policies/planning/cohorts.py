"""Say whom a wave is compared with: gateways that run the release, against gateways not yet changed."""

from collections.abc import Container, Sequence

from policies.adoption import is_adopted
from policies.model.change import GatewayResult
from policies.model.plan import Plan
from policies.model.verdict import Cohorts, old_instance_of
from policies.planning.failure_budget import may_be_unable, may_fail

_CHANGED = {"on trial", "kept"}


def cohorts_of(
    plan: Plan, wave: int, results: Sequence[GatewayResult], left_out: Container[str] = ()
) -> Cohorts:
    """Return the cohorts of a wave as its gateways stand now; wave 0 watches everything promoted.

    A gateway of an earlier wave runs the release, so it is no control; one that was set aside
    is neither canary nor control. A wave that is compared with itself has the old instances on
    its own gateways as control, and nobody else. What was adopted is no control, since nobody counts
    its logins: with none to compare, neither harm nor health would ever be proven. Nor are
    those `left_out` of changes: one that is dead, or being worked on, shows nothing of the release before.
    """
    fleet = plan.fleet
    standing = {one.gateway: one for one in results if one.state in _CHANGED}
    canary = [name for name in standing if wave in {0, plan.wave_of.get(name)}]
    itself = wave > 0 and plan.waves[wave - 1].compared_with_itself
    counted = {name for name, release in plan.known_good.items() if not is_adopted(release)}
    control = [
        gateway.name
        for gateway in fleet.gateways
        if not itself
        and gateway.name in counted
        and gateway.name not in left_out
        and 0 < wave < plan.wave_of.get(gateway.name, 0)
    ]
    before = [name for name in standing if 0 < plan.wave_of.get(name, 0) < wave]
    target = {name: fleet.gateway(name).metrics_target for name in (*canary, *before, *control)}
    expected = {target[name]: plan.release.executable for name in (*canary, *before)} | {
        target[name]: plan.known_good[name].executable for name in control
    }
    old = {name: old_instance_of(target[name]) for name in sorted(canary) if itself and name in counted}
    expected |= {label: plan.known_good[name].executable for name, label in old.items()}
    return Cohorts(
        canary=tuple(target[name] for name in sorted(canary)),
        control=(*[target[name] for name in sorted(control)], *old.values()),
        changed_before=tuple(target[name] for name in sorted(before)),
        may_fail=_may_fail(plan, wave),
        expected=expected,
        slots={target[n]: slot for n in (*canary, *before) if (slot := standing[n].slot) is not None},
        since={target[n]: at for n in (*canary, *before) if (at := standing[n].started) is not None},
        beside={label: target[name] for name, label in old.items()},
    )


def _may_fail(plan: Plan, wave: int) -> int:
    """Return how many gateways may fail alone: of the wave, or of everything that was promoted."""
    if wave:
        return may_fail(plan, plan.waves[wave - 1])
    everybody = sum(len(one.gateways) for one in plan.waves)
    return max(1, may_be_unable(plan.fleet.limits, everybody))
