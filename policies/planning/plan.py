"""Make a plan of waves for a fleet, and say which gateways of the current wave may start now.

A plan is fixed once it is made: it says who belongs to which wave, and its digest is what people
approve. `next_batch` is asked again before every batch, with live facts, and says who may start now.
Canary, rolling and blue-green are only ways to cut the same row of gateways into waves.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from hashlib import blake2b
from itertools import pairwise
from math import ceil

from policies.planning.capacity import sessions_on, shortage, takes_users
from policies.gates import GatePolicy
from policies.words.errors import Refused
from policies.words.fleet import Fleet, Gateway, Limits
from policies.words.instance import GatewayState, InstanceState
from policies.words.plan import Affected, Plan, Progress, ReleaseRef, Skipped, Strategy, Wave
from policies.words.word import Digest

SWITCH_EXPECTED = timedelta(minutes=1)
"""Staging, starting, probing and steering one gateway, when nothing goes wrong."""

SWITCH_LONGEST = timedelta(minutes=10)
"""The same when every step has to be tried again until its last deadline."""


def plan(
    fleet: Fleet,
    states: Mapping[str, GatewayState],
    known_good: Mapping[str, ReleaseRef],
    release: ReleaseRef,
    strategy: Strategy,
    *,
    seed: str,
    gates: GatePolicy,
    trust_policy: Digest,
) -> Plan:
    """Return who changes in which wave; the same facts in any order give the same digest.

    Args:
        fleet: Every gateway, with the limits of a change.
        states: What is true of each gateway now; one that did not answer is missing.
        known_good: What each gateway goes back to; one without it is left alone.
        release: What is to run everywhere.
        strategy: How to cut the waves.
        seed: Breaks ties between gateways with as many sessions; new for each plan.
        gates: The questions each wave has to answer, and how long it is watched.
        trust_policy: The digest of the policy that admitted the release.

    Raises:
        Refused: No gateway can change, there is nobody to compare a canary with, or capacity is short.
    """
    fleet = fleet.model_copy(update={"gateways": tuple(sorted(fleet.gateways, key=lambda g: g.name))})
    skipped = _skipped(fleet, states, known_good, release)
    left_alone = {skip.gateway for skip in skipped}
    sessions = {gateway.name: sessions_on(states.get(gateway.name)) for gateway in fleet.gateways}
    able = [gateway for gateway in fleet.gateways if gateway.name not in left_alone]
    row = _in_order(able, sessions, seed)
    if strategy is Strategy.CANARY and row:
        row = _canary_first(row, fleet, states)
    _refuse_if_nobody_can(fleet, row, states, release, skipped)
    _refuse_if_short(fleet, row, states, sessions)
    return Plan(
        fleet=fleet,
        release=release,
        strategy=strategy,
        waves=_cut([gateway.name for gateway in row], fleet.limits, strategy),
        skipped=skipped,
        known_good={gateway.name: known_good[gateway.name] for gateway in able},
        sessions=sessions,
        window=gates.window,
        gates=gates,
        trust_policy=trust_policy,
    )


def next_batch(plan: Plan, progress: Progress) -> tuple[str, ...]:
    """Return the gateways that may start switching now, within every limit; often none.

    Only the first wave that has not passed may start anybody, nobody starts while the rollout
    is held, and a gateway that has started never starts again.
    """
    if progress.held or progress.passed >= len(plan.waves):
        return ()
    limits = plan.fleet.limits
    started = {*progress.switching, *progress.draining, *progress.switched, *progress.failed}
    room = min(
        limits.switching - len(progress.switching),
        limits.draining - len({*progress.switching, *progress.draining}),
    )
    gateways = {gateway.name: gateway for gateway in plan.fleet.gateways}
    waiting = [gateways[name] for name in plan.waves[progress.passed].gateways if name not in started]
    short = {group for group in {g.group for g in waiting} if waits_for_capacity(plan, progress, group)}
    in_domain = Counter(gateways[name].domain for name in progress.switching)
    batch: list[str] = []
    for gateway in waiting:
        if len(batch) >= room:
            break
        if gateway.group not in short and in_domain[gateway.domain] < limits.switching_per_domain:
            in_domain[gateway.domain] += 1
            batch.append(gateway.name)
    return tuple(batch)


def waits_for_capacity(plan: Plan, progress: Progress, group: str) -> str | None:
    """Return why nobody more in this group may start, or None when its living gateways carry everybody."""
    members = [gateway for gateway in plan.fleet.gateways if gateway.group == group]
    return shortage(members, plan.sessions | progress.sessions, progress.out, plan.fleet.limits.headroom)


def way_back(plan: Plan, touched: Collection[str]) -> tuple[tuple[str, ReleaseRef], ...]:
    """Return each touched gateway with its own known-good, the last wave first."""
    forwards = [name for wave in plan.waves for name in wave.gateways if name in touched]
    return tuple((name, plan.known_good[name]) for name in reversed(forwards))


def affected(plan: Plan) -> Affected:
    """Return whom the plan touches and how long it takes, drain of the last old session included."""
    names = [name for wave in plan.waves for name in wave.gateways]
    domains = {gateway.name: gateway.domain for gateway in plan.fleet.gateways}
    rounds = sum(_rounds(wave, domains, plan.fleet.limits) for wave in plan.waves)
    drains = ceil(len(names) / plan.fleet.limits.draining)
    return Affected(
        users=_users(plan, names),
        exposed=max((_users(plan, wave.gateways) for wave in plan.waves), default=0),
        uncounted=tuple(sorted(name for name in names if plan.sessions.get(name) is None)),
        expected=rounds * SWITCH_EXPECTED + len(plan.waves) * plan.window.nominal,
        longest=rounds * SWITCH_LONGEST
        + len(plan.waves) * plan.window.cap
        + drains * plan.fleet.limits.drain_deadline,
    )


def _users(plan: Plan, names: Collection[str]) -> int:
    return sum(plan.sessions.get(name) or 0 for name in names)


def _rounds(wave: Wave, domains: Mapping[str, str], limits: Limits) -> int:
    """Batches of the wave when everybody in a batch takes equally long."""
    per_domain = Counter(domains[name] for name in wave.gateways)
    return max(
        ceil(len(wave.gateways) / limits.switching),
        ceil(max(per_domain.values()) / limits.switching_per_domain),
    )


def _skipped(
    fleet: Fleet,
    states: Mapping[str, GatewayState],
    known_good: Mapping[str, ReleaseRef],
    release: ReleaseRef,
) -> tuple[Skipped, ...]:
    reasons = {
        gateway.name: _why_not(states.get(gateway.name), known_good.get(gateway.name), release)
        for gateway in fleet.gateways
    }
    return tuple(Skipped(gateway=name, reason=reason) for name, reason in reasons.items() if reason)


def _why_not(state: GatewayState | None, back: ReleaseRef | None, release: ReleaseRef) -> str | None:
    if state is None:
        return "silent: its agent did not answer, so nothing is known of it"
    if _runs(state, release):
        return f"already on {release.version}"
    if back is None:
        return "no known-good release to go back to"
    return None


def _runs(state: GatewayState, release: ReleaseRef) -> bool:
    """Whether new sessions go to this release for good, and the process is the one the manifest names."""
    serving = state.serving
    return (
        serving is not None
        and state.steering.trial is None
        and serving.state is InstanceState.RUNNING
        and serving.release == release.digest
        and serving.executable == release.executable
    )


def _in_order(gateways: Sequence[Gateway], sessions: Mapping[str, int | None], seed: str) -> list[Gateway]:
    """Fewest sessions first, so that a fault is met by few; unknown counts as many; the seed breaks ties."""

    def place(gateway: Gateway) -> tuple[bool, int, bytes]:
        count = sessions[gateway.name]
        tie = blake2b(gateway.name.encode(), key=blake2b(seed.encode(), digest_size=32).digest())
        return count is None, count or 0, tie.digest()

    return sorted(gateways, key=place)


def _canary_first(row: Sequence[Gateway], fleet: Fleet, states: Mapping[str, GatewayState]) -> list[Gateway]:
    """Put first a living gateway with a living neighbour, changing in a later wave, to be compared with."""
    alive = [gateway for gateway in row if takes_users(states[gateway.name])]
    neighbours = Counter(gateway.group for gateway in alive)
    for canary in alive:
        if neighbours[canary.group] > 1:
            return [canary, *(gateway for gateway in row if gateway is not canary)]
    raise Refused(
        f"fleet {fleet.name}: a canary needs a second gateway in its group that takes users and can change "
        f"later, to be compared with; bring one back, or plan with the rolling strategy"
    )


def _refuse_if_nobody_can(
    fleet: Fleet,
    row: Sequence[Gateway],
    states: Mapping[str, GatewayState],
    release: ReleaseRef,
    skipped: Sequence[Skipped],
) -> None:
    """Nothing to do is a plan without waves; gateways that all cannot change are an error."""
    stuck = [
        f"{skip.gateway} ({skip.reason})"
        for skip in skipped
        if skip.gateway not in states or not _runs(states[skip.gateway], release)
    ]
    if stuck and not row:
        raise Refused(
            f"fleet {fleet.name}: no gateway can change to {release.version}: {', '.join(stuck)}; "
            f"mend these and plan again"
        )


def _refuse_if_short(
    fleet: Fleet,
    row: Sequence[Gateway],
    states: Mapping[str, GatewayState],
    sessions: Mapping[str, int | None],
) -> None:
    groups = {gateway.group for gateway in row}
    members = [gateway for gateway in fleet.gateways if gateway.group in groups]
    out = {gateway.name for gateway in members if not takes_users(states.get(gateway.name))}
    short = shortage(members, sessions, out, fleet.limits.headroom)
    if short:
        raise Refused(f"fleet {fleet.name}: {short}; bring gateways back or add some, and plan again")


def _cut(row: Sequence[str], limits: Limits, strategy: Strategy) -> tuple[Wave, ...]:
    """Cut the row where the strategy says, and again where more would drain at once than may.

    An old instance lives at least until its wave's verdict, so a wave never has more gateways than may drain.
    """
    stages = [0, *_ends(len(row), limits.steps, strategy)]
    parts = [
        row[start : min(start + limits.draining, end)]
        for begin, end in pairwise(stages)
        for start in range(begin, end, limits.draining)
    ]
    return tuple(Wave(number=number, gateways=tuple(part)) for number, part in enumerate(parts, start=1))


def _ends(count: int, steps: Sequence[str], strategy: Strategy) -> list[int]:
    """How many gateways have changed at the end of each of the strategy's stages.

    A canary goes alone and then follows the steps. Rolling takes waves of one size: what the
    steps allow last before everything. Blue-green is a single wave.
    """
    if count == 0:
        return []
    sizes = sorted({min(_size(step, count), count) for step in steps} | {count})
    match strategy:
        case Strategy.CANARY:
            return sorted({1, *sizes})
        case Strategy.ROLLING:
            stride = max((size for size in sizes if size < count), default=count)
            return [*range(stride, count, stride), count]
        case Strategy.BLUE_GREEN:
            return [count]


def _size(step: str, count: int) -> int:
    return ceil(count * int(step[:-1]) / 100) if step.endswith("%") else int(step)
