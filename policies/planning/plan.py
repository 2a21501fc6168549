"""Make the plan of an upgrade: who changes in which wave, who is left alone, and what everyone goes back to.

A plan is fixed once it is made, and the same facts make the same plan: its digest is what people
approve and what is started. What may start right now is asked again before every start (`batches.py`,
`capacity.py`).
"""

from collections.abc import Collection, Mapping, Sequence

from policies.credentials import lacking
from policies.drift import astray, version_served
from policies.model.change import IN_QUARANTINE
from policies.model.errors import Refused
from policies.model.fleet import Fleet
from policies.model.gates import GatePolicy
from policies.model.instance import GatewayState
from policies.model.plan import Plan, ReleaseRef, Skipped, Strategy
from policies.model.value import Digest
from policies.planning.capacity import UNKNOWN, Load, cramped, crowded, load_of, shortage
from policies.planning.naming import named
from policies.planning.waves import WHOLE, Able, waves_of


def plan(
    fleet: Fleet,
    states: Mapping[str, GatewayState],
    known_good: Mapping[str, ReleaseRef],
    release: ReleaseRef,
    strategy: Strategy,
    *,
    gates: GatePolicy,
    trust_policy: Digest,
    quarantined: Mapping[str, str] | None = None,
    ahead: Mapping[str, str] | None = None,
    credentials: Collection[str] = (),
) -> Plan:
    """Return who changes in which wave; the same facts in any order give the same digest.

    Args:
        fleet: Every gateway, with the limits of a change.
        states: What is true of each gateway now; one that did not answer is missing.
        known_good: What each gateway goes back to; one without it is left alone.
        release: What is to run everywhere.
        strategy: How to cut the waves.
        gates: The questions each wave has to answer, and how long it is watched; their budget of
            errors is shared out over the waves.
        trust_policy: The digest of the policy that admitted the release.
        quarantined: Gateways that are left out until somebody returns them, each with why.
        ahead: Gateways that were changed by what the ledger does not know, each with how; what it calls
            their known-good is not.
        credentials: What the release asks of each host; one that lacks some of it is left alone.

    Raises:
        Refused: The release is of another product, no gateway can change, there is nobody to compare
            with, capacity is short, or a wave is too large for its leases.
    """
    if release.product != fleet.product:
        raise Refused(
            f"fleet {fleet.name} runs {fleet.product}; plan a release of it, not of {release.product}"
        )
    fleet = fleet.model_copy(update={"gateways": tuple(sorted(fleet.gateways, key=lambda g: g.name))})
    loads = {name: load_of(state) for name, state in states.items()}
    sessions = {gateway.name: loads.get(gateway.name, UNKNOWN).sessions for gateway in fleet.gateways}
    reasons = dict(ahead or {}) | {
        name: f"{IN_QUARANTINE}: {why}" for name, why in (quarantined or {}).items()
    }
    skipped = _skipped(fleet, states, known_good, release, credentials, reasons)
    left_alone = {skip.gateway for skip in skipped}
    able = Able(
        fleet=fleet.name,
        release=release.digest,
        gateways=tuple(gateway for gateway in fleet.gateways if gateway.name not in left_alone),
        alive=frozenset(name for name, load in loads.items() if load.takes_users),
        sessions=sessions,
    )
    _refuse_if_nobody_can(fleet, able, states, release, skipped)
    _refuse_if_short(fleet, able, loads, quarantined or {})
    made = Plan(
        fleet=fleet,
        release=release,
        strategy=strategy,
        waves=waves_of(able, fleet.limits, strategy, _loaded_first(fleet, able, states, release)),
        skipped=skipped,
        known_good={gateway.name: known_good[gateway.name] for gateway in able.gateways},
        sessions=sessions,
        window=gates.window,
        gates=gates,
        trust_policy=trust_policy,
    )
    _refuse_if_crowded(made)
    _refuse_what_no_hook_carries(made)
    return made.model_copy(update={"gates": gates.over_waves(len(made.waves))})


def _refuse_what_no_hook_carries(plan: Plan) -> None:
    """Refuse a wave with a share of users where the hook of one of its gateways sends everybody or nobody."""
    unable = {
        gateway.name
        for gateway in plan.fleet.gateways
        if gateway.steering == "hook" and "share" not in gateway.hook_can
    }
    for wave in plan.waves:
        if wave.shares != WHOLE and (those := sorted(unable.intersection(wave.gateways))):
            shares = ", ".join(f"{share}%" for share in wave.shares)
            raise Refused(
                f"fleet {plan.fleet.name}: wave {wave.number} is to send {shares} of new users, and the hook "
                f"of {named(those)} sends everybody or nobody (hook_can); set limits.canary_share to 100 in "
                "a group of two or more, or plan with the rolling strategy"
            )


def _skipped(
    fleet: Fleet,
    states: Mapping[str, GatewayState],
    known_good: Mapping[str, ReleaseRef],
    release: ReleaseRef,
    credentials: Collection[str],
    left_out: Mapping[str, str],
) -> tuple[Skipped, ...]:
    reasons = {
        gateway.name: _why_not(states.get(gateway.name), known_good.get(gateway.name), release, credentials)
        for gateway in fleet.gateways
    }
    reasons |= {
        gateway.name: cramped(gateway, load_of(states[gateway.name]))
        for gateway in fleet.gateways
        if gateway.name in states and not reasons[gateway.name]
    }
    reasons |= {name: why for name, why in left_out.items() if name in reasons}
    versions = {one.digest: one.version for one in (*known_good.values(), release)}
    return tuple(
        Skipped(
            gateway=name,
            reason=reason,
            serves=version_served(states.get(name), versions),
            is_there=name in states and astray(states[name], release) is None,
        )
        for name, reason in reasons.items()
        if reason
    )


def _why_not(
    state: GatewayState | None, back: ReleaseRef | None, release: ReleaseRef, credentials: Collection[str]
) -> str | None:
    if state is None:
        return "silent: its agent did not answer, so nothing is known of it"
    if astray(state, release) is None:
        return f"already on {release.version}"
    if back is None:
        return "no known-good release to go back to"
    return lacking(state, credentials)


def _loaded_first(
    fleet: Fleet, able: Able, states: Mapping[str, GatewayState], release: ReleaseRef
) -> str | None:
    """Return who has to change first because its load tells of the release; None when it has it already."""
    load = fleet.tests.load if fleet.tests is not None else None
    if load is None or not able.gateways:
        return None
    if any(gateway.name == load.gateway for gateway in able.gateways):
        return load.gateway
    state = states.get(load.gateway)
    if state is not None and astray(state, release) is None:
        return None
    raise Refused(
        f"fleet {fleet.name}: {load.gateway} cannot change now, and nobody else is tested under load; mend "
        "it, or name another gateway in tests.load.gateway"
    )


def _refuse_if_nobody_can(
    fleet: Fleet,
    able: Able,
    states: Mapping[str, GatewayState],
    release: ReleaseRef,
    skipped: Sequence[Skipped],
) -> None:
    """Nothing to do is a plan without waves; gateways that all cannot change are an error."""
    stuck = [
        f"{skip.gateway} ({skip.reason})"
        for skip in skipped
        if skip.gateway not in states or astray(states[skip.gateway], release)
    ]
    if stuck and not able.gateways:
        raise Refused(
            f"fleet {fleet.name}: no gateway can change to {release.version}: {named(stuck)}; "
            f"mend these and plan again"
        )


def _refuse_if_short(
    fleet: Fleet, able: Able, loads: Mapping[str, Load], quarantined: Mapping[str, str]
) -> None:
    for group in sorted({gateway.group for gateway in able.gateways}):
        if short := shortage(fleet, group, loads, quarantined):
            raise Refused(f"fleet {fleet.name}: {short}; bring gateways back or add some, and plan again")


def _refuse_if_crowded(made: Plan) -> None:
    fleet = made.fleet
    for name in [name for wave in made.waves if wave.compared_with_itself for name in wave.gateways]:
        if short := crowded(fleet.gateway(name), made.sessions[name], fleet.limits.headroom):
            raise Refused(f"fleet {fleet.name}: {short}; wait for fewer users, or plan with whole gateways")
