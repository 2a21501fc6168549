"""After its wave no batch starts a gateway again whose host has rebooted: its new boot is judged."""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, NamedTuple

from policies.judge.counts import Series
from policies.judge.reading import Reading
from policies.judge.tick import Tick
from policies.judge.window import REBOOTS_COUNT, WindowState, fold_reading, fold_tick
from policies.model.verdict import Action, Cohorts, Decision, GateVerdict
from policies.status.awaited import finds_harm, gives_no_verdict
from tests.unit.judged import LOGINS, OLD, START, TARGET, policy, series
from tests.unit.test_judge_failures import GATES, NAMES, WAVE, tick

DAY = timedelta(hours=24)
BAKE = GATES.baking(DAY)
PROMOTED = WAVE.model_copy(update={"canary": NAMES[:10], "changed_before": (), "may_fail": 1})
SICK = NAMES[2]
ILL = dict.fromkeys(NAMES, (20, 0)) | dict.fromkeys(NAMES[:10], (20, 10))
GRACE = int(BAKE.blindness.grace.total_seconds())


def baked(ticks: Iterable[Tick], cohorts: Cohorts = PROMOTED) -> tuple[WindowState, list[Decision]]:
    state, decisions = WindowState(), list[Decision]()
    for one in ticks:
        state = WindowState.model_validate_json(state.model_dump_json())
        state, decision = fold_tick(BAKE, BAKE.window, cohorts, state, one)
        decisions.append(decision)
    return state, decisions


# --- ticks ------------------------------------------------------------------------------------


def test_a_gateway_whose_host_was_patched_is_taken_back_when_it_fails_an_hour_later() -> None:
    """It was judged no more for the rest of the bake."""
    ticks = [tick(t, rebooted=(SICK,) if t == 3 else ()) for t in range(GRACE + 5)]
    _, decisions = baked([*ticks, *(tick(3600 + t, (SICK,)) for t in range(3))])
    assert decisions[3].rebooted == decisions[3 + GRACE - 1].rebooted == (SICK,)
    assert decisions[3 + GRACE + 1].rebooted == ()
    assert [one.failed for one in decisions[-3:]] == [(SICK,)] * 3


def test_harm_is_found_in_a_fleet_whose_hosts_were_all_patched_in_the_night() -> None:
    """Each reboot had left one gateway fewer to judge, and no operator was notified."""
    events = ((0, "rebooted"), (1, "started"))
    ticks = [
        tick(600 * number + t, **{key: (NAMES[number],) for at, key in events if at == t})
        for number in range(10)
        for t in range(10)
    ]
    ticks += [tick(9000 + t, NAMES[:10], counts={"logins": ILL}) for t in range(3)]
    _, decisions = baked(ticks)
    assert not any(finds_harm(one) for one in decisions[:-3])
    assert (decisions[-1].action, decisions[-1].verdict) == (Action.ROLL_BACK, GateVerdict.HARD)


def test_a_gateway_is_judged_again_at_once_when_its_new_boot_shows_the_release() -> None:
    ticks = [tick(0), tick(1, rebooted=(SICK,)), tick(2, started=(SICK,)), tick(3, (SICK,))]
    _, decisions = baked(ticks)
    assert [one.rebooted for one in decisions] == [(), (SICK,), (SICK,), ()]
    assert decisions[-1].failed == (SICK,)


def test_a_second_reboot_is_a_failure_as_it_is_in_a_wave() -> None:
    """A release that panics its hosts took each of them off the count."""
    reboots = {3: (SICK,), 300: (SICK,)}
    ticks = [tick(t, rebooted=reboots.get(t, ())) for t in (*range(5), *range(300, 303))]
    state, decisions = baked(ticks)
    assert [one.failed for one in decisions[-4:]] == [(), (SICK,), (SICK,), (SICK,)]
    assert decisions[-1].own[SICK] == "its host has rebooted 2 times since the release runs there"
    assert {name: one.times for name, one in state.reboots.items()} == {SICK: 2}


def test_operators_are_asked_when_more_hosts_than_may_fail_reboot_again_and_again() -> None:
    panics = NAMES[:4]
    events = {3: {"rebooted": panics}, 300: {"rebooted": panics}, 301: {"started": panics}}
    ticks = [tick(t, **events.get(t, {})) for t in (*range(5), *range(300, 500))]
    _, decisions = baked(ticks)
    assert not any(finds_harm(one) for one in decisions[:5])
    assert (decisions[-1].action, decisions[-1].verdict) == (Action.HOLD_FOR_HUMAN, GateVerdict.UNHEALTHY)
    assert "the hosts of 4 gateways have rebooted more than once" in decisions[-1].reason
    assert decisions[-1].rebooted == ()  # they are judged, and a hard sign on them rolls back
    _, decisions = baked([*ticks, *(tick(501 + t, panics) for t in range(2))])
    assert (decisions[-1].action, decisions[-1].verdict) == (Action.ROLL_BACK, GateVerdict.HARD)


def test_a_reboot_says_nothing_of_a_gateway_that_was_started_again_since() -> None:
    state, _ = baked([tick(0), tick(1, rebooted=(SICK,))])
    again = PROMOTED.model_copy(update={"since": {SICK: START + 5}})
    state, decision = fold_tick(BAKE, BAKE.window, again, state, tick(8))
    assert (decision.rebooted, state.reboots) == ((), {})


def test_reboots_are_remembered_of_no_gateway_that_is_not_watched_any_more() -> None:
    state, _ = baked([tick(0), tick(1, rebooted=(SICK,))])
    fewer = PROMOTED.model_copy(update={"canary": NAMES[:2]})
    state, _ = fold_tick(BAKE, BAKE.window, fewer, state, tick(2))
    assert state.reboots == {}


def test_operators_are_notified_while_no_changed_gateway_is_judged() -> None:
    """R7: as long as none of them is, no harm would be found."""
    one = PROMOTED.model_copy(update={"canary": (SICK,), "control": ()})
    _, decisions = baked([tick(0), tick(1, rebooted=(SICK,)), tick(2)], one)
    assert [gives_no_verdict(decision) for decision in decisions] == [False, True, True]
    assert decisions[-1].reason == f"no changed gateway is judged now: {SICK}: its host has rebooted"
    dead = [tick(t, unseen=(SICK,), absent=(SICK,)) for t in range(1, GRACE)]
    _, decisions = baked([tick(0), *dead], one)
    assert (decisions[-1].absent, gives_no_verdict(decisions[-1])) == ((SICK,), True)


def test_operators_are_notified_while_more_hosts_than_may_fail_have_just_rebooted() -> None:
    _, decisions = baked([tick(0), tick(1, rebooted=NAMES[:3])])
    assert gives_no_verdict(decisions[-1])
    assert "the hosts of 3 changed gateways have rebooted" in decisions[-1].reason


# --- readings ---------------------------------------------------------------------------------

RESTARTED: dict[str, Any] = {
    "id": "restarted",
    "kind": "hard",
    "value": "started{$cohort}",
    "fires": {"when": "changes"},
}
GONE = RESTARTED | {"id": "gone", "fires": {"when": "gone"}, "held": "2s"}
READ = policy(LOGINS, RESTARTED, GONE).baking(DAY)
FEW = Cohorts(
    canary=NAMES[:3],
    control=NAMES[3:6],
    may_fail=1,
    expected=dict.fromkeys(NAMES[:3], TARGET) | dict.fromkeys(NAMES[3:6], OLD),
)


class Host(NamedTuple):
    """What the exporter of a host shows; None where no daemon runs there."""

    boot: str = "one"
    started: float | None = 7.0
    digest: str = TARGET


def shown(at: float, hosts: Mapping[str, Host], cohorts: Cohorts) -> Reading:
    """Return what is read when these hosts, and the others as ever, are scraped in that second."""
    found: dict[str, list[Series]] = {
        name: []
        for name in (READ.presence, READ.boot.value, READ.identity.value, "started{$cohort}", *READ.counters)
    }
    for name in (*cohorts.canary, *cohorts.control):
        host = hosts.get(name, Host(digest=TARGET if name in cohorts.canary else OLD))
        now = START + at
        found[READ.presence].append(series("up", name, [(now, 1.0)]))
        found[READ.boot.value].append(series("boot", name, [(now, 1.0)], boot_id=host.boot))
        if host.started is None:
            continue
        found[READ.identity.value].append(series("build", name, [(now, 1.0)], digest=host.digest))
        found["started{$cohort}"].append(series("started", name, [(now, host.started)], digest=host.digest))
        for selector in READ.counters:
            bad = "bad" in selector
            found[selector].append(
                series("attempts", name, [(now, 0.0 if bad else at)], outcome="bad" if bad else "ok")
            )
    return Reading(at=START + at, series={name: tuple(some) for name, some in found.items()})


def read(
    *seen: tuple[range, Mapping[str, Host]], cohorts: Cohorts = FEW
) -> tuple[list[Tick], list[Decision]]:
    """Read these seconds; the ticks, folded alone, must give the same decisions (recomputed offline)."""
    state, ticks, decisions = WindowState(), list[Tick](), list[Decision]()
    for seconds, hosts in seen:
        for at in seconds:
            state, found, decision = fold_reading(
                READ, READ.window, cohorts, state, shown(at, hosts, cohorts)
            )
            ticks.append(Tick.model_validate_json(found.model_dump_json()))
            decisions.append(decision)
    replayed, state = list[Decision](), WindowState()
    for one in ticks:
        state, decision = fold_tick(READ, READ.window, cohorts, state, one)
        replayed.append(decision)
    assert replayed == decisions
    return ticks, decisions


PATCHED, AGAIN = Host(boot="two", started=9.0), Host(boot="three", started=11.0)


def test_a_daemon_that_starts_with_its_host_is_no_restart_and_is_judged_from_the_next_scrape_on() -> None:
    ticks, decisions = read((range(3), {}), (range(60, 66), {NAMES[0]: PATCHED}))
    assert [one.rebooted for one in ticks[3:]] == [NAMES[:1], *[()] * 5]
    assert [one.rebooted for one in decisions[3:]] == [NAMES[:1], NAMES[:1], *[()] * 4]
    assert {one.failed for one in decisions} == {()}


def test_a_daemon_that_restarts_in_its_new_boot_fails_alone() -> None:
    crashed = {NAMES[0]: PATCHED._replace(started=33.0)}
    _, decisions = read((range(3), {}), (range(60, 66), {NAMES[0]: PATCHED}), (range(66, 69), crashed))
    assert decisions[-1].failed == NAMES[:1]


def test_a_host_that_reboots_twice_is_noticed_by_its_boots() -> None:
    ticks, decisions = read(
        (range(3), {}), (range(60, 66), {NAMES[0]: PATCHED}), (range(120, 123), {NAMES[0]: AGAIN})
    )
    assert [at for at, one in enumerate(ticks) if one.rebooted] == [3, 9]
    assert [one.failed for one in decisions[-4:]] == [(), *[NAMES[:1]] * 3]


def test_a_daemon_that_does_not_come_back_with_its_host_fails_alone_after_the_grace() -> None:
    """R5: a gateway that users do not reach is not well."""
    ends = 60 + int(READ.blindness.grace.total_seconds())
    _, decisions = read((range(3), {}), (range(60, ends + 4), {NAMES[0]: Host(boot="two", started=None)}))
    assert decisions[ends - 60].rebooted == NAMES[:1]
    assert decisions[-1].failed == NAMES[:1]


def test_a_host_that_comes_back_with_another_release_fails_alone() -> None:
    ends = 60 + int(READ.blindness.grace.total_seconds() + READ.fresh_within.total_seconds())
    _, decisions = read((range(3), {}), (range(60, ends + 3), {NAMES[0]: PATCHED._replace(digest=OLD)}))
    assert decisions[-1].failed == NAMES[:1]


# --- a rack without power ---------------------------------------------------------------------

FLEET = Cohorts(canary=NAMES, control=(), may_fail=2, expected=dict.fromkeys(NAMES, TARGET))
RACK = NAMES[:3]
DARK = Host(boot="two", started=None)
BACK = 60 + GRACE + 5
"""When the daemons of the rack serve again, which is later than the grace."""


def test_a_rack_that_serves_late_after_a_power_cycle_asks_operators_and_takes_nothing_back() -> None:
    """R6: three hosts of forty took a good release back from the whole fleet."""
    on, off = dict.fromkeys(RACK, PATCHED), dict.fromkeys(RACK, DARK)
    _, decisions = read((range(5), {}), (range(60, BACK), off), (range(BACK, BACK + 10), on), cohorts=FLEET)
    asked = [one for one in decisions if finds_harm(one)]
    assert {(one.action, one.verdict) for one in asked} == {(Action.HOLD_FOR_HUMAN, GateVerdict.UNHEALTHY)}
    why = "the hosts of 3 gateways have rebooted, and the release does not run there since"
    assert asked[0].reason == f"{why}, {RACK[0]} among them"
    assert {one.failed for one in decisions} == {()}
    assert not finds_harm(decisions[-1])


def test_a_daemon_is_missing_since_the_boot_of_its_host_and_no_longer() -> None:
    _, decisions = read((range(5), {}), (range(60, BACK), {RACK[0]: DARK}), cohorts=FLEET)
    reason = next(one.own[RACK[0]] for one in decisions if one.failed)
    assert reason == f"gone: it shows the sign for {GRACE} s, and the control does not"


def test_gateways_that_are_not_back_with_their_hosts_fail_alone_and_count_against_no_release() -> None:
    away = dict.fromkeys(RACK[:2], DARK)
    crashed = Host(started=33.0)
    seen = [(range(5), {}), (range(60, BACK), away)]
    one = (range(BACK, BACK + 3), {**away, NAMES[5]: crashed})
    _, decisions = read(*seen, one, cohorts=FLEET)
    assert decisions[len(decisions) - 4].failed == RACK[:2]
    assert (decisions[-1].action, decisions[-1].verdict) == (Action.HOLD_FOR_HUMAN, GateVerdict.UNHEALTHY)
    assert decisions[-1].failed == (*RACK[:2], NAMES[5])
    three = (range(BACK, BACK + 3), {**away, **dict.fromkeys(NAMES[5:8], crashed)})
    _, decisions = read(*seen, three, cohorts=FLEET)
    assert (decisions[-1].action, decisions[-1].verdict) == (Action.ROLL_BACK, GateVerdict.HARD)


def test_a_rack_on_which_the_release_crashes_once_it_serves_again_is_the_releases_fault() -> None:
    on, crashed = dict.fromkeys(RACK, PATCHED), dict.fromkeys(RACK, PATCHED._replace(started=33.0))
    _, decisions = read(
        (range(5), {}), (range(60, BACK), on), (range(BACK, BACK + 3), crashed), cohorts=FLEET
    )
    harm = next(one for one in decisions if finds_harm(one))
    assert (harm.action, harm.failed) == (Action.ROLL_BACK, RACK)


# --- hosts that reboot again, and missing metrics ---------------------------------------------


def test_reboots_hide_no_outage_of_metrics() -> None:
    """R7: two reboots of a few hosts hid for the rest of the watch that Prometheus did not answer."""
    looping = RACK
    ticks = [
        tick(t, rebooted=looping if t in {3, 300} else (), started=looping if t in {4, 301} else ())
        for t in (*range(5), *range(300, 330))
    ]
    state, decisions = baked(ticks, FLEET)
    assert finds_harm(decisions[-1])
    names = (*BAKE.counters, BAKE.presence, BAKE.identity.value, BAKE.boot.value, "started{$cohort}")
    for at in range(400, 400 + 3600, 60):
        dead = Reading(at=START + at, series={}, unread=dict.fromkeys(names, "Prometheus does not answer"))
        state, _, decision = fold_reading(BAKE, BAKE.window, FLEET, state, dead)
    assert gives_no_verdict(decision)
    assert decision.reason.startswith("Prometheus does not answer")


def test_hosts_that_rebooted_again_hours_ago_are_no_harm_any_more() -> None:
    ticks = [tick(t, rebooted=RACK if t in {3, 300} else ()) for t in (*range(5), *range(300, 330))]
    hours = int(REBOOTS_COUNT.total_seconds())
    _, decisions = baked([*ticks, *(tick(300 + hours + t) for t in range(-5, 10))], FLEET)
    assert [finds_harm(one) for one in decisions[-15:-10]] == [True] * 5
    assert not finds_harm(decisions[-1])
