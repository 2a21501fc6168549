"""Say to people what a plan does: whom it touches, how long it takes, and what happens by itself."""

from collections import Counter
from collections.abc import Collection, Iterator
from datetime import timedelta
from math import ceil

from policies.model.fleet import Automation
from policies.model.plan import Affected, Plan, Strategy, Wave
from policies.model.release_tests import LOAD_ROUNDS, LoadTest, Method, ReleaseTests
from policies.model.zones import RULES
from policies.planning.failure_budget import may_fail
from policies.planning.naming import counted, named
from policies.planning.stagger import deadlines

SWITCH_EXPECTED = timedelta(minutes=1)
"""Staging, starting, probing and steering one gateway, when nothing goes wrong."""

SWITCH_LONGEST = timedelta(minutes=10)
"""The same when every step has to be tried again until its last deadline."""

TESTED_EXPECTED = timedelta(seconds=10)
"""Making the release tests of one gateway without load: 2 to 7 s in the lab, of OpenVPN 13."""

PROFILE_EXPECTED = timedelta(seconds=3)
"""A login and its pings of one client profile."""

TESTED_LONGEST = timedelta(minutes=10)
"""How much longer than the fleet's patience they last: the pause before the last try, and that try."""

MIRRORED_LONGEST = timedelta(minutes=25)
"""How long a mirror lasts that begins when the patience is over already."""

LOADED_EXPECTED = timedelta(seconds=30)
"""What the logins and handshakes of a load take beside its rounds, all together."""

LOADED_LONGEST = timedelta(minutes=10)
"""How long a load lasts that begins when the patience is over already."""

MOST_WAVES = 6
"""More waves than this are folded into one sentence."""

_STRATEGIES = {
    Strategy.CANARY: "canary: one gateway first, then growing waves",
    Strategy.ROLLING: "rolling: waves of one size",
    Strategy.BLUE_GREEN: "blue-green: group by group, every new instance started before any gets users",
}
_AUTOMATION = {
    Automation.OBSERVE: "verdicts are only shown; a hard failure of an instance goes back by itself",
    Automation.ASK: "harm holds and proposes the way back, and a person says yes",
    Automation.ACT: "harm goes back by itself while its wave is watched, later only after a hard sign, "
    "and a wave that is proven healthy goes on by itself",
}


def affected(plan: Plan) -> Affected:
    """Return whom the plan touches and how long it takes, drain of the last old session included."""
    names = [name for wave in plan.waves for name in wave.gateways]
    rounds = sum(_rounds(plan, wave) for wave in plan.waves)
    tests_expected, tests_longest = _tests_take(plan, rounds)
    watched = sum((_shares_before(plan, wave) for wave in plan.waves), timedelta(0))
    return Affected(
        users=_users(plan, names),
        exposed=max((_users(plan, wave.gateways) for wave in plan.waves), default=0),
        uncounted=tuple(sorted(name for name in names if plan.sessions.get(name) is None)),
        expected=rounds * SWITCH_EXPECTED + tests_expected + watched + len(plan.waves) * plan.window.nominal,
        longest=rounds * SWITCH_LONGEST
        + tests_longest
        + watched
        + len(plan.waves) * plan.window.cap
        + (plan.fleet.limits.kept if plan.strategy is Strategy.BLUE_GREEN else timedelta(0))
        + plan.fleet.limits.drain_deadline
        + _staggered(plan, names),
    )


def describe(plan: Plan) -> tuple[str, ...]:
    """Return the plan as sentences: strategy, waves, what is allowed to fail, who decides, and how long."""
    if not plan.waves:
        return (f"Nothing to do: every gateway is on {plan.release.version}.",)
    return tuple(_sentences(plan))


def _sentences(plan: Plan) -> Iterator[str]:
    limits, reach = plan.fleet.limits, affected(plan)
    yield f"Strategy {_STRATEGIES[plan.strategy]}."
    folded = len(plan.waves) > MOST_WAVES
    for wave in plan.waves[: MOST_WAVES - 2] if folded else plan.waves:
        yield _wave(plan, wave)
    if folded:
        yield _folded(plan, plan.waves[MOST_WAVES - 2 : -1])
        yield _wave(plan, plan.waves[-1])
    if skipped := [skip.gateway for skip in plan.skipped]:
        yield f"Left alone: {counted(len(skipped), 'gateway')} ({named(skipped)})."
    if not any(wave.holdout for wave in plan.waves) and plan.strategy is not Strategy.BLUE_GREEN:
        yield "No hold-out: the last wave has nobody unchanged to be compared with."
    yield from _nodes(plan)
    yield from _tests(plan)
    yield from _windows(plan)
    yield f"Automation {limits.automation}: {_AUTOMATION[limits.automation]}."
    unknown = f", unknown on {named(reach.uncounted)}" if reach.uncounted else ""
    yield (
        f"Users on these gateways: {reach.users}{unknown}; at most {reach.exposed} before a verdict. "
        f"Deadlines end at most {limits.drain.logins_per_minute} sessions a minute over the whole fleet."
    )
    yield f"Time: expected {reach.expected}, longest {reach.longest}."


def _wave(plan: Plan, wave: Wave) -> str:
    role = " (hold-out, unchanged until then)" if wave.holdout else ""
    shares = ", ".join(f"{share}%" for share in wave.shares)
    walked = f"; {shares} of source addresses, compared with itself" if wave.compared_with_itself else ""
    return (
        f"Wave {wave.number}{role}: {counted(len(wave.gateways), 'gateway')} ({named(wave.gateways)}), "
        f"{counted(_users(plan, wave.gateways), 'user')}; {_may_fail_in(plan, wave)}; "
        f"lease {wave.lease}{walked}."
    )


def _nodes(plan: Plan) -> Iterator[str]:
    """Say of which gateways a cluster starts and ends the instances."""
    changing = [plan.fleet.gateway(name).placement for wave in plan.waves for name in wave.gateways]
    nodes = Counter(place.cluster for place in changing if place is not None)
    if nodes:
        said = ", ".join(f"{counted(many, 'node')} of {cluster}" for cluster, many in sorted(nodes.items()))
        yield f"Clusters start and end the instances of {said}; a node that is cordoned or not ready waits."


def _tests(plan: Plan) -> Iterator[str]:
    """Say what each new instance has to pass, and whose users feel a load."""
    if (tests := plan.fleet.tests) is None:
        return
    tried, mirrored, loaded = (", ".join(tests.asked(method)) for method in Method)
    left_out = f"; left out: {', '.join(tests.skip)}" if tests.skip else ""
    yield f"Tests of each new instance, before its first user: {tried}{left_out}."
    yield from _names(tests)
    if tests.profiles:
        yield f"Clients that have to go on working: {named([*tests.profiles])}."
    if (mirror := tests.mirror) is not None:
        yield (
            f"Logins of each gateway's last hour, mirrored for {mirror.within} as the probe's user, "
            f"{mirror.at_least} to {mirror.at_most} a minute: {mirrored} beside the old instance."
        )
    load = tests.load
    if load is None:
        yield "No load test: a release that is slower is only seen by its users."
    elif _is_loaded(plan, load):
        yield (
            f"Load on {load.gateway}, whose users feel it: {counted(load.sessions, 'session')}, "
            f"{LOAD_ROUNDS} rounds of {load.within}; {loaded} beside the old instance."
        )


def _windows(plan: Plan) -> Iterator[str]:
    """Say when waves may start, what a closing does, and by which edition of the rules of time zones."""
    fleet = plan.fleet
    if not fleet.windows:
        return
    said = [f"{w.name} ({w.rrule}, {w.start:%H:%M} {w.tz}, {w.duration})" for w in fleet.windows]
    late = f", up to {fleet.jitter} later" if fleet.jitter else ""
    yield (
        f"Waves start only in {named(said)}{late}, and where they are over {fleet.min_tail} before its end; "
        f"at its end: {fleet.on_window_close.replace('_', ' ')}. Time zones as of {RULES}."
    )


def _names(tests: ReleaseTests) -> Iterator[str]:
    """Say which names a client has to find where, as far as that is asked."""
    if (names := tests.names) is None:
        return
    inside = f"{named([*names.inside])} answered through it" if names.inside else ""
    outside = f"{named(names.outside)} never sent into it" if names.outside else ""
    yield f"Names of clients in a tunnel: {'; '.join(filter(None, (inside, outside)))}."


def _folded(plan: Plan, waves: Collection[Wave]) -> str:
    sizes = sorted({len(wave.gateways) for wave in waves})
    size = str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    numbers = [wave.number for wave in waves]
    budgets = sorted({may_fail(plan, wave) for wave in waves})
    longest = max(wave.lease for wave in waves)
    total = sum(len(wave.gateways) for wave in waves)
    return (
        f"Waves {numbers[0]} to {numbers[-1]}: {total} gateways, {size} at a time; "
        f"{_failing(budgets[-1])} in each; leases up to {longest}."
    )


def _may_fail_in(plan: Plan, wave: Wave) -> str:
    most = may_fail(plan, wave)
    return _failing(most) if most < len(wave.gateways) else "held if it fails alone"


def _failing(most: int) -> str:
    return f"at most {most} may fail" if most else "none may fail"


def _users(plan: Plan, names: Collection[str]) -> int:
    return sum(plan.sessions.get(name) or 0 for name in names)


def _rounds(plan: Plan, wave: Wave) -> int:
    """Batches of the wave when everybody in a batch takes equally long."""
    limits = plan.fleet.limits
    per_domain = Counter(plan.fleet.gateway(name).domain for name in wave.gateways)
    return max(
        ceil(len(wave.gateways) / limits.switching),
        ceil(max(per_domain.values()) / limits.switching_per_domain),
    )


def _tests_take(plan: Plan, rounds: int) -> tuple[timedelta, timedelta]:
    """Return how long the release tests take, as expected and at the longest: none where there are none."""
    if (tests := plan.fleet.tests) is None:
        return timedelta(0), timedelta(0)
    expected = rounds * (TESTED_EXPECTED + len(tests.profiles) * PROFILE_EXPECTED)
    longest = rounds * (tests.patience + TESTED_LONGEST)
    if tests.mirror is not None:
        expected += rounds * tests.mirror.within
        longest += rounds * MIRRORED_LONGEST
    if (load := tests.load) is not None and _is_loaded(plan, load):
        expected += LOAD_ROUNDS * load.within + LOADED_EXPECTED
        longest += LOADED_LONGEST
    return expected, longest


def _is_loaded(plan: Plan, load: LoadTest) -> bool:
    """Whether the gateway of the load is one that changes."""
    return any(load.gateway in wave.gateways for wave in plan.waves)


def switching_expected(plan: Plan, wave: Wave) -> timedelta:
    """Return how long the wave is expected to switch, with its tests and the shares before the last."""
    tested, _ = _tests_take(plan, rounds := _rounds(plan, wave))
    return rounds * SWITCH_EXPECTED + tested + _shares_before(plan, wave)


def _shares_before(plan: Plan, wave: Wave) -> timedelta:
    """How long the shares before the one at which the verdict falls are watched."""
    return max(0, sum(share < 100 for share in wave.shares) - 1) * plan.window.minimum  # noqa: PLR2004


def _staggered(plan: Plan, names: Collection[str]) -> timedelta:
    """How much later than the first the last deadline is, when everybody's sessions last until then."""
    limits = plan.fleet.limits
    found = deadlines(
        map(plan.fleet.gateway, names), plan.sessions, limits.drain_deadline, limits.drain
    ).values()
    return max(found, default=limits.drain_deadline) - limits.drain_deadline
