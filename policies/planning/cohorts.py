"""Say whom a wave is compared with: gateways that run the release, against gateways not yet changed."""

from collections.abc import Container, Sequence

from policies.adoption import is_adopted
from policies.model.change import GatewayResult
from policies.model.plan import Plan
from policies.model.verdict import Cohorts, old_instance_of
from policies.planning.failure_budget import may_be_unable, may_fail, may_fail_together

ON_TRIAL = "on trial"
"""The state of a gateway whose new instance serves by a lease."""
KEPT = "kept"
"""The state of a gateway that runs the release since its wave has passed."""
_CHANGED = {ON_TRIAL, KEPT}
SET_ASIDE = "set aside"
"""The state of a gateway that failed by itself and does not take part any more."""
PAUSED = "on known-good, its lease lapses"
"""The state of a gateway whose lease has lapsed again and again, until its trial begins again."""
BEGUN = "begun"
"""The state of a gateway whose batch has begun and has not recorded yet what became of it."""
LEFT_OUT = "left out"
"""The state of a gateway with which the change did not begin, since an operator had left it out."""


def cohorts_of(
    plan: Plan,
    wave: int,
    results: Sequence[GatewayResult],
    left_out: Container[str] = (),
    *,
    passed: int = 0,
) -> Cohorts:
    """Return the cohorts of a wave as its gateways stand now; wave 0 watches everything promoted.

    Before the promotion wave 0 watches the gateways of the waves up to the one that has `passed` last, and
    compares them with those that are not changed yet. The next wave switches its gateways meanwhile:
    one that runs the release is as the plan has it, before the ledger has its result, too.

    A gateway of an earlier wave runs the release, so it is no control; one that was set aside
    is neither canary nor control. A wave that is compared with itself has the old instances on
    its own gateways as control, and nobody else. What was adopted is no control, since nobody counts
    its logins: with none to compare, neither harm nor health would ever be proven. Nor are
    those `left_out` of changes: one that is dead, or being worked on, shows nothing of the release before.
    After the promotion it shows nothing of the new release either: wave 0 judges it once it is returned.
    """
    fleet = plan.fleet
    touched = {one.gateway for one in results if one.state != BEGUN}
    standing = {one.gateway: one for one in results if one.state in _CHANGED}
    promoted = wave == 0 and not passed
    canary = [
        name
        for name in standing
        if wave in {0, plan.wave_of.get(name)}
        and not 0 < passed < plan.wave_of.get(name, 0)
        and not (promoted and name in left_out)
    ]
    itself = wave > 0 and plan.waves[wave - 1].compared_with_itself
    counted = {name for name, release in plan.known_good.items() if not is_adopted(release)}
    unchanged = [
        gateway.name
        for gateway in fleet.gateways
        if gateway.name not in left_out
        and gateway.name not in touched
        and 0 < (wave or passed) < plan.wave_of.get(gateway.name, 0)
    ]
    control = [name for name in unchanged if not itself and name in counted]
    before = [name for name in standing if 0 < plan.wave_of.get(name, 0) < wave]
    failed = [
        one.gateway
        for one in results
        if one.state == SET_ASIDE and 0 < plan.wave_of.get(one.gateway, 0) <= max(passed, wave - 1)
    ]
    of_earlier = sorted(name for one in plan.waves[: max(0, wave - 1)] for name in one.gateways)
    target = {name: fleet.gateway(name).metrics_target for name in (*canary, *before, *control, *failed)}
    expected = {target[name]: plan.release.executable for name in (*canary, *before)} | {
        target[name]: plan.known_good[name].executable for name in control
    }
    earlier = {
        name: known.executable
        for name in (*canary, *before)
        if (known := plan.known_good.get(name)) is not None and known.executable != plan.release.executable
    }
    leased = {target[n]: digest for n, digest in earlier.items() if standing[n].state == ON_TRIAL}
    committed = {target[n]: digest for n, digest in earlier.items() if target[n] not in leased}
    switching = [name for name in control if passed and plan.wave_of[name] == passed + 1]
    old = {name: old_instance_of(target[name]) for name in sorted(canary) if itself and name in counted}
    expected |= {label: plan.known_good[name].executable for name, label in old.items()}
    return Cohorts(
        canary=tuple(target[name] for name in sorted(canary)),
        control=(*[target[name] for name in sorted(control)], *old.values()),
        changed_before=tuple(target[name] for name in sorted(before)),
        may_fail=_may_fail(plan, wave, passed),
        may_fail_before=may_fail_together(plan, wave - 1),
        earlier=tuple(fleet.gateway(name).metrics_target for name in of_earlier),
        set_aside=tuple(target[name] for name in sorted(failed)),
        expected=expected,
        slots={target[n]: slot for n in (*canary, *before) if (slot := standing[n].slot) is not None},
        since={target[n]: at for n in (*canary, *before) if (at := standing[n].started) is not None},
        beside={label: target[name] for name, label in old.items()},
        leased=leased,
        committed=committed,
        switching={target[name]: plan.release.executable for name in switching},
        unchanged=len(unchanged),
    )


def _may_fail(plan: Plan, wave: int, passed: int) -> int:
    """Return how many gateways may fail alone: of the wave, of those passed, or of everything promoted."""
    if wave:
        return may_fail(plan, plan.waves[wave - 1])
    if passed:
        return may_fail_together(plan, passed)
    everybody = sum(len(one.gateways) for one in plan.waves)
    return max(1, may_be_unable(plan.fleet.limits, everybody))
