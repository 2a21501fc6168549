"""Reading a tick: what is fresh, whose it is, and what cannot be known from it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from policies.judge.counts import Series
from policies.judge.look import Memory
from policies.judge.observation import read_tick
from policies.judge.reading import Reading
from policies.judge.tick import Tick
from policies.judge.window import WindowState, fold_reading
from policies.model.gates import GatePolicy
from policies.model.verdict import Action, Decision, GateVerdict
from tests.unit.judged import CANARY, COHORTS, CONTROL, LOGINS, OLD, START, TARGET, policy, series

UP, BUILD = 'up{job="vpngw",$cohort}', "vpngw_build_info{$cohort}"
ALL, BAD = "attempts{$cohort}", 'attempts{outcome="bad",$cohort}'

EVERYONE = (CANARY, *CONTROL)
GONE: dict[str, Any] = {
    "id": "gone",
    "kind": "hard",
    "value": "started{$cohort}",
    "fires": {"when": "gone"},
    "held": "2s",
}
DOWN: dict[str, Any] = {
    "id": "down",
    "kind": "hard",
    "value": UP,
    "fires": {"when": "equals", "value": 0},
    "held": "3s",
    "confirm": True,
}
SLOW: dict[str, Any] = {"id": "slow", "kind": "exceedance", "histogram": "took{$cohort}", "share": 0.2}


Found = Mapping[str, Sequence[Series]]
"""What selectors found."""


def digest_of(instance: str) -> str:
    return TARGET if instance == CANARY else OLD


def lines(
    name: str, value: float = 1.0, *, until: float, who: Sequence[str] = EVERYONE, **labels: str
) -> tuple[Series, ...]:
    """Return a series for each gateway that has had this value each second up to `until`."""
    times = [START + until - back for back in range(4, -1, -1)]
    return tuple(
        series(
            name,
            i,
            [(t, value) for t in times],
            **({"digest": digest_of(i)} if name != "up" else {}),
            **labels,
        )
        for i in who
    )


def counting(until: float, rate: float = 2.0, bad: float = 0.0, who: Sequence[str] = EVERYONE) -> Found:
    """Return counters that grow steadily, with `bad` a second on the canary."""
    times = [until - back for back in range(4, -1, -1)]
    good = [
        series(
            "attempts", i, [(START + t, rate * (t + 100)) for t in times], outcome="ok", digest=digest_of(i)
        )
        for i in who
    ]
    failed = series(
        "attempts", CANARY, [(START + t, bad * max(0.0, t)) for t in times], outcome="bad", digest=TARGET
    )
    return {ALL: [*good, failed], BAD: [failed]}


def look(at: float, found: Found | None = None, **more: Any) -> Reading:
    everything: dict[str, Sequence[Series]] = {
        UP: lines("up", until=at), BUILD: lines("vpngw_build_info", until=at), **counting(at), **(found or {})
    }  # fmt: skip
    return Reading(at=START + at, series={name: tuple(some) for name, some in everything.items()}, **more)


def watch(gates: GatePolicy, looks: Sequence[Reading]) -> list[tuple[Tick, Decision]]:
    state, seen = WindowState(), []
    for one in looks:
        state, tick, decision = fold_reading(gates, gates.window, COHORTS, state, one)
        seen.append((tick, decision))
    return seen


def test_counting_begins_at_the_first_tick() -> None:
    seen = watch(policy(), [look(0), look(1), look(2)])
    assert [tick.counts["logins"][CANARY] for tick, _ in seen] == [(0, 0), (2, 0), (2, 0)]


LATE = "10.0.0.9:9500"
"""A gateway that joins the canary while the others are watched already."""


def joined(at: float, found: Found | None = None) -> Reading:
    """Return a look at which the late gateway is read, too, of which presence is known for longer."""
    times = [at - back for back in range(4, -1, -1)]
    years = series("attempts", LATE, [(START + t, 5000 + 2 * t) for t in times], outcome="ok", digest=TARGET)
    present = [series("up", LATE, [(START + at - back, 1.0) for back in range(9, -1, -1)])]
    more = {UP: [*lines("up", until=at), *present], ALL: [*counting(at)[ALL], years], **(found or {})}
    return look(at, more)


@pytest.mark.parametrize("unread", [(), (ALL,)])
def test_a_gateway_that_joins_counts_from_then_on_and_not_what_its_instance_had_counted_in_years(
    unread: Sequence[str],
) -> None:
    gates, state, counts = policy(), WindowState(), []
    both = COHORTS.model_copy(
        update={"canary": (CANARY, LATE), "expected": {**COHORTS.expected, LATE: TARGET}}
    )
    without = [replace(joined(2), unread=dict.fromkeys(unread, "it does not answer"))] if unread else []
    for one in (look(0), look(1)):
        state, _, _ = fold_reading(gates, gates.window, COHORTS, state, one)
    for one in (*without, *(joined(at) for at in (9, 10, 11))):
        state, tick, _ = fold_reading(gates, gates.window, both, state, one)
        counts.append(tick.counts.get("logins", {}).get(LATE))
    assert counts[-3:] == [(8, 0), (2, 0), (2, 0)]


def test_only_the_executable_under_judgement_counts() -> None:
    old = series("attempts", CANARY, [(START + t, 50.0 * t) for t in range(5)], outcome="bad", digest=OLD)
    looks = [look(at, {BAD: [old], ALL: [*counting(at)[ALL], old]}) for at in (1, 2, 3)]
    assert [tick.counts["logins"][CANARY] for tick, _ in watch(policy(), looks)][1:] == [(2, 0), (2, 0)]


def test_between_scrapes_nothing_is_counted_and_signs_are_still_seen() -> None:
    gates = policy(LOGINS, GONE, poll="200ms")
    started = {"started{$cohort}": lines("started", until=1)}
    seen = watch(gates, [look(0, started), look(0.2, started), look(0.4, started), look(1.0, started)])
    assert ["logins" in tick.counts for tick, _ in seen] == [True, False, False, True]
    assert seen[1][1].readings[0].verdict is GateVerdict.NOT_ENOUGH_DATA


def test_counters_that_were_not_all_read_are_folded_later_and_whole() -> None:
    lost = look(2)
    lost = Reading(
        at=lost.at, series={k: v for k, v in lost.series.items() if k != BAD}, unread={BAD: "timed out"}
    )
    seen = watch(policy(), [look(0), look(1), lost, look(3)])
    assert seen[2][0].counts == {}
    assert seen[2][0].blind == {"logins": "timed out"}
    assert seen[3][0].counts["logins"][CANARY] == (4, 0)


def test_complaints_that_could_not_be_read_are_not_counted_as_none() -> None:
    gate = {"id": "complaints", "kind": "complaints", "total": "sessions{$cohort}"}
    sessions = {"sessions{$cohort}": lines("sessions", 9, until=2)}
    read, unread = look(2, sessions, complaints={CANARY: 3}), look(2, sessions, unread={"complaints": "gone"})
    ((said, _),), ((silent, decision),) = watch(policy(gate), [read]), watch(policy(gate), [unread])
    assert (said.counts["complaints"][CANARY], said.blind) == ((9, 3), {})
    assert (silent.counts["complaints"], silent.blind) == ({}, {"complaints": "gone"})
    assert decision.readings[0].verdict is GateVerdict.METRICS_UNAVAILABLE


@pytest.mark.parametrize(
    ("found", "why"),
    [
        ({ALL: []}, "attempts has no fresh value from 10.0.0.1:9500"),
        ({ALL: counting(-10)[ALL]}, "attempts has no fresh value from 10.0.0.1:9500"),
        ({ALL: counting(9, who=(CANARY,))[ALL]}, "attempts is fresh on only 0 control gateways"),
    ],
)
def test_what_is_absent_or_stale_is_blindness(found: Found, why: str) -> None:
    (_, (tick, decision)) = watch(policy(), [look(8), look(9, found)])
    assert tick.blind == {"logins": why}
    assert decision.readings[0].verdict is GateVerdict.METRICS_UNAVAILABLE


def test_one_missing_control_is_no_blindness() -> None:
    (_, (tick, _)) = watch(policy(), [look(0), look(1, {ALL: counting(1, who=EVERYONE[:-1])[ALL]})])
    assert tick.blind == {}
    assert CONTROL[-1] not in tick.counts["logins"]


def test_bad_events_may_be_absent_until_the_first_one() -> None:
    (_, (tick, _)) = watch(policy(), [look(0, {BAD: []}), look(1, {BAD: []})])
    assert tick.counts["logins"][CANARY] == (2, 0)


def test_a_gateway_that_says_nothing_of_its_executable_is_unknown_and_one_that_says_another_conflicts() -> (
    None
):
    silent = look(1, {BUILD: lines("vpngw_build_info", until=1, who=CONTROL)})
    (_, (tick, decision)) = watch(policy(), [look(0), silent])
    assert "does not say which executable" in tick.blind["identity"]
    assert decision.readings[0].verdict is GateVerdict.METRICS_UNAVAILABLE
    wrong = series("vpngw_build_info", CANARY, [(START + 1, 1.0)], digest=OLD)
    other = look(1, {BUILD: [*lines("vpngw_build_info", until=1, who=CONTROL), wrong]})
    assert watch(policy(), [look(0), other])[1][0].other == {CANARY: OLD}


def test_the_newest_claim_of_an_executable_counts() -> None:
    before = series("vpngw_build_info", CANARY, [(START - 1, 1.0), (START, 1.0)], digest=OLD)
    now = series("vpngw_build_info", CANARY, [(START + 1, 1.0)], digest=TARGET)
    claims = [*lines("vpngw_build_info", until=1, who=CONTROL), before, now]
    assert watch(policy(), [look(0), look(1, {BUILD: claims})])[1][0].other == {}


def test_a_process_that_is_gone_while_its_exporter_answers_is_a_hard_sign() -> None:
    def started(at: float) -> Found:
        return {
            "started{$cohort}": [
                *lines("started", until=at, who=CONTROL),
                *lines("started", until=min(at, 2), who=(CANARY,)),
            ]
        }

    looks = [look(at, started(at)) for at in (1, 2, 3, 4)]
    decisions = [decision.action for _, decision in watch(policy(LOGINS, GONE), looks)]
    assert decisions == [Action.CONTINUE, Action.CONTINUE, Action.CONTINUE, Action.ROLL_BACK]


def test_a_process_that_could_not_be_asked_for_is_not_gone_however_long() -> None:
    shown = look(1, {"started{$cohort}": lines("started", until=1)})
    lost = [look(at, unread={"started{$cohort}": "timed out"}) for at in range(2, 9)]
    seen = watch(policy(LOGINS, GONE), [shown, *lost])
    assert {decision.action for _, decision in seen} == {Action.CONTINUE}
    assert seen[-1][0].blind["gone"] == "timed out"


def test_a_process_nobody_ever_saw_is_unknown() -> None:
    (tick, decision) = watch(policy(LOGINS, GONE), [look(1, {"started{$cohort}": ()})])[0]
    assert "was never seen" in tick.blind["gone"]
    assert decision.action is Action.CONTINUE


def test_a_gateway_that_is_not_reached_has_not_lost_its_process() -> None:
    started = {"started{$cohort}": lines("started", until=2)}
    unreached = (*lines("up", until=9, who=CONTROL), *lines("up", 0.0, until=9, who=(CANARY,)))
    seen = watch(
        policy(LOGINS, GONE),
        [look(1, started), look(2, started), look(9, {UP: unreached, "started{$cohort}": ()})],
    )
    assert seen[-1][0].blind["gone"] == f"{CANARY} is not reached"
    assert seen[-1][1].action is not Action.ROLL_BACK


def down_at(at: float, **more: Any) -> Reading:
    ups = (*lines("up", until=at, who=CONTROL), *lines("up", 0.0, until=at, who=(CANARY,)))
    return look(at, {UP: ups}, **more)


def test_a_scrape_that_fails_is_believed_only_when_a_probe_fails_too() -> None:
    gates = policy(LOGINS, DOWN)
    unconfirmed = watch(gates, [look(0), down_at(4)])[-1][1]
    assert unconfirmed.readings[1].verdict is GateVerdict.METRICS_UNAVAILABLE
    assert unconfirmed.action is not Action.ROLL_BACK
    confirmed = watch(gates, [look(0), down_at(4, unreachable=frozenset({CANARY}))])[-1][1]
    assert (confirmed.action, confirmed.verdict) == (Action.ROLL_BACK, GateVerdict.HARD)


def buckets(until: float, slow: float, who: Sequence[str] = EVERYONE) -> list[Series]:
    """Return histograms with `slow` of ten a second above half a second on the canary, none on control."""
    found = []
    for i in who:
        above = slow if i == CANARY else 0.0
        for le, rate in (("0.1", 0.0), ("0.5", 10 - above), ("2.5", 10.0), ("+Inf", 10.0)):
            samples = [(START + until - b, rate * (until - b + 1000)) for b in range(4, -1, -1)]
            found.append(series("took", i, samples, le=le, digest=digest_of(i)))
    return found


def test_slow_is_what_control_hardly_ever_was_before_the_window() -> None:
    gates = policy(LOGINS, SLOW)
    history = {"took{$cohort}": tuple(buckets(-60, 0, CONTROL)), ALL: (), BAD: ()}
    looks = [
        look(0, {"took{$cohort}": buckets(0, 4)}, history=history),
        look(1, {"took{$cohort}": buckets(1, 4)}),
    ]
    (_, (tick, _)) = watch(gates, looks)
    assert tick.baseline["slow"] == (1800, 0)
    assert tick.counts["slow"][CANARY] == (10, 4)
    assert tick.counts["slow"][CONTROL[0]] == (10, 0)


def test_without_history_nothing_is_slow_and_nothing_is_proven() -> None:
    gates = policy(LOGINS, SLOW)
    seen = watch(gates, [look(at, {"took{$cohort}": buckets(at, 4)}) for at in range(30)])
    assert seen[-1][0].counts["slow"] == {}
    assert {reading.verdict for _, d in seen for reading in d.readings if reading.gate == "slow"} == {
        GateVerdict.NOT_ENOUGH_DATA
    }


def test_a_bound_no_bucket_has_measures_nothing() -> None:
    gates = policy(LOGINS, SLOW | {"bound": {"fixed": 0.7}})
    seen = watch(gates, [look(at, {"took{$cohort}": buckets(at, 4)}) for at in range(3)])
    assert seen[-1][0].counts["slow"] == {}


def test_a_gauge_is_counted_per_session_where_there_are_enough() -> None:
    cpu: dict[str, Any] = {
        "id": "cpu", "kind": "gauge_ratio", "value": "cpu{$cohort}", "counter": True,
        "per": "sessions{$cohort}", "over": "4s",
    }  # fmt: skip

    def used(at: float) -> Found:
        each = {i: (6.0 if i == CANARY else 2.0) for i in EVERYONE}
        samples = {
            i: [(START + at - b, rate * (at - b + 100)) for b in range(4, -1, -1)] for i, rate in each.items()
        }
        sessions = [
            *lines("sessions", 40.0, until=at, who=EVERYONE[:-1]),
            *lines("sessions", 3.0, until=at, who=CONTROL[-1:]),
        ]
        return {
            "cpu{$cohort}": [series("cpu", i, samples[i], digest=digest_of(i)) for i in EVERYONE],
            "sessions{$cohort}": sessions,
        }

    seen = watch(policy(LOGINS, cpu), [look(at, used(at)) for at in range(8)])
    assert seen[-1][0].gauges["cpu"] == pytest.approx({CANARY: 0.15, CONTROL[0]: 0.05, CONTROL[1]: 0.05})
    assert seen[-1][1].action is Action.HOLD
    assert "3.00 times control's median" in seen[-1][1].reason


def test_nothing_is_remembered_of_what_could_not_be_read() -> None:
    blind = Reading(at=START, series={}, unread=dict.fromkeys((UP, BUILD, ALL, BAD), "no answer"))
    memory, tick = read_tick(policy(), COHORTS, Memory(), blind)
    assert memory == Memory()
    assert set(tick.blind) == {"logins", "identity"}


LOSS: dict[str, Any] = {
    "id": "loss",
    "kind": "rate",
    "optional": True,
    "share": 0.2,
    "bad": "lossy{$cohort}",
    "total": "probes{$cohort}",
}


def test_an_optional_metric_says_nothing_where_nobody_exports_it() -> None:
    (_, (tick, decision)) = watch(policy(LOGINS, LOSS), [look(0), look(1)])
    assert tick.blind == {}
    assert decision.readings[1].verdict is GateVerdict.NOT_ENOUGH_DATA


@pytest.mark.parametrize("who", [CONTROL, ()])
def test_an_optional_metric_that_was_there_and_is_lost_is_blindness(who: Sequence[str]) -> None:
    looks = [
        look(0, {"probes{$cohort}": lines("probes", until=0)}),
        look(9, {"probes{$cohort}": lines("probes", until=9, who=who)}),
    ]
    assert "probes has no fresh value" in watch(policy(LOGINS, LOSS), looks)[-1][0].blind["loss"]


def test_a_sign_on_one_canary_counts_though_another_cannot_be_seen() -> None:
    two = COHORTS.model_copy(update={"canary": (CANARY, CONTROL[0]), "control": CONTROL[1:]})
    gates = policy(
        LOGINS, {"id": "probe", "kind": "hard", "value": "probe{$cohort}", "fires": {"when": "equals"}}
    )
    failing = lines("probe", 0.0, until=1, who=(CANARY,))
    found = look(1, {"probe{$cohort}": [*failing, *lines("probe", until=1, who=CONTROL[1:])]})
    _, tick = read_tick(gates, two, Memory(), found)
    assert set(tick.signs["probe"]) == {CANARY}
    assert "probe" not in tick.blind


def test_a_process_is_missed_though_the_old_instance_runs_the_same_executable() -> None:
    def both(at: float) -> Found:
        new = lines("started", until=min(at, 2), slot="b", who=(CANARY,))
        old = lines("started", until=at, slot="a")
        return {"started{$cohort}": [*new, *old]}

    cohorts, state, decisions = COHORTS.model_copy(update={"slots": {CANARY: "b"}}), WindowState(), []
    gates = policy(LOGINS, GONE)
    for at in (1, 2, 3, 4):
        state, _, decision = fold_reading(gates, gates.window, cohorts, state, look(at, both(at)))
        decisions.append(decision.action)
    assert decisions == [Action.CONTINUE, Action.CONTINUE, Action.CONTINUE, Action.ROLL_BACK]


RESTARTED: dict[str, Any] = GONE | {"id": "restarted", "fires": {"when": "changes"}, "held": "0s"}


def test_a_slot_that_was_used_a_moment_ago_is_judged_by_what_was_started_in_it_since() -> None:
    def reused(at: float) -> Found:
        before, after = (
            [(START + t, 7.0) for t in (-3, -2)],
            [(START + t, 9.0) for t in range(1, int(at) + 1)],
        )
        canary = series("started", CANARY, [*before, *after], digest=TARGET, slot="b")
        return {"started{$cohort}": [*lines("started", until=at, who=CONTROL), canary]}

    gates, looks = policy(LOGINS, GONE, RESTARTED), [look(at, reused(at)) for at in range(4)]
    naive = [decision.action for _, decision in watch(gates, looks)]
    assert Action.ROLL_BACK in naive
    cohorts = COHORTS.model_copy(update={"slots": {CANARY: "b"}, "since": {CANARY: START - 1}})
    state, decisions = WindowState(), []
    for one in looks:
        state, _, decision = fold_reading(gates, gates.window, cohorts, state, one)
        decisions.append(decision.action)
    assert set(decisions) == {Action.CONTINUE}


@pytest.mark.parametrize("unwatched", [1, 4, 40, 80])
def test_a_restart_is_seen_however_long_nobody_looked(unwatched: int) -> None:
    def from_then(at: float, started: float) -> Found:
        recent = [(START + at - ago, started) for ago in (2, 1, 0)]
        canary = series("started", CANARY, recent, digest=TARGET, slot="b")
        return {"started{$cohort}": [*lines("started", until=at, who=CONTROL), canary]}

    gates, at = policy(LOGINS, RESTARTED), 3.0 + unwatched
    for started, action in ((7.0, Action.CONTINUE), (9.0, Action.ROLL_BACK)):
        seen = watch(gates, [look(0), look(3, from_then(3, 7.0)), look(at + 2, from_then(at + 2, started))])
        assert seen[-1][1].action is action
    cohorts = COHORTS.model_copy(update={"slots": {CANARY: "b"}, "since": {CANARY: START + 3.5}})
    state = WindowState()
    for one in (look(0), look(3, from_then(3, 7.0)), look(at + 2, from_then(at + 2, 9.0))):
        state, _, decision = fold_reading(gates, gates.window, cohorts, state, one)
    assert decision.action is Action.CONTINUE, "what was started since has not restarted"


def test_an_old_instance_of_the_same_executable_may_end_without_being_missed() -> None:
    def both(at: float) -> Found:
        new = lines("started", until=at, slot="b")
        old = lines("started", until=min(at, 1), slot="a", who=(CANARY,))
        return {"started{$cohort}": [*new, *old]}

    decisions = [
        decision for _, decision in watch(policy(LOGINS, GONE), [look(at, both(at)) for at in range(1, 6)])
    ]
    assert {decision.action for decision in decisions} == {Action.CONTINUE}


def test_what_control_counted_while_the_canary_could_not_be_seen_is_not_lost() -> None:
    def without_canary(at: float) -> Reading:
        frozen = counting(1, who=(CANARY,))[ALL]
        return look(at, {BAD: [], ALL: [*counting(at, who=CONTROL)[ALL][:-1], *frozen]})

    seen = watch(policy(), [look(0), look(1), *(without_canary(at) for at in range(2, 9)), look(9)])
    assert "logins" in seen[-2][0].blind
    for instance in EVERYONE:
        assert sum(tick.counts["logins"][instance][0] for tick, _ in seen if "logins" in tick.counts) == 18


def test_a_share_of_a_limit_that_could_not_be_read_is_no_sign() -> None:
    limit: dict[str, Any] = {
        "id": "limit", "kind": "hard", "value": "fds{$cohort}", "per": "most{$cohort}",
        "fires": {"when": "above", "value": 0.9},
    }  # fmt: skip
    open_files = {"fds{$cohort}": lines("fds", 300.0, until=1)}
    lost = look(1, open_files, unread={"most{$cohort}": "timed out"})
    ((tick, decision),) = watch(policy(LOGINS, limit), [lost])
    assert tick.signs["limit"] == {}
    assert tick.blind["limit"] == "timed out"
    assert decision.action is Action.CONTINUE
    near = look(1, open_files | {"most{$cohort}": lines("most", 310.0, until=1)})
    assert CANARY in watch(policy(LOGINS, limit), [near])[0][0].signs["limit"]
