"""Gateways that fail by themselves: named, set aside, and the release's fault only when they are many."""

from collections.abc import Sequence
from typing import Any

import pytest

from policies.judge.look import Memory
from policies.judge.observation import read_tick
from policies.judge.tick import Sign, Tick
from policies.judge.window import WindowState, fold_reading, fold_tick, silent_since
from policies.model.verdict import Action, Cohorts, Decision, GateVerdict
from tests.unit.judged import LOGINS, START, policy, reading, series

NAMES = tuple(f"10.0.1.{n}:9500" for n in range(1, 21))
WAVE = Cohorts(canary=NAMES[:8], changed_before=NAMES[8:10], control=NAMES[10:])
RESTARTED: dict[str, Any] = {
    "id": "restarted",
    "kind": "hard",
    "value": "started{$cohort}",
    "fires": {"when": "changes"},
}
GATES = policy(LOGINS, RESTARTED)


SICK_CANARIES = dict.fromkeys(NAMES, (2, 0)) | dict.fromkeys(NAMES[:8], (1, 1))
"""Every second login on the canaries fails, and none elsewhere."""


def tick(at: float, signs: Sequence[str] = (), **more: Any) -> Tick:
    found = {name: Sign(since=START + at, until=START + at) for name in signs}
    told = {"counts": {"logins": dict.fromkeys(NAMES, (2, 0))}} | more
    return Tick(at=START + at, signs={"restarted": found}, **told)


def watch(cohorts: Cohorts, ticks: Sequence[Tick]) -> tuple[WindowState, list[Decision]]:
    state, decisions = WindowState(), []
    for one in ticks:
        state = WindowState.model_validate_json(state.model_dump_json())
        state, decision = fold_tick(GATES, GATES.window, cohorts, state, one)
        decisions.append(decision)
    return state, decisions


def may(number: int) -> Cohorts:
    return WAVE.model_copy(update={"may_fail": number})


def test_a_hard_sign_names_its_gateways() -> None:
    _, decisions = watch(WAVE, [tick(0), tick(1, NAMES[2:4])])
    assert decisions[-1].readings[1].instances == NAMES[2:4]
    assert (decisions[-1].action, decisions[-1].failed) == (Action.ROLL_BACK, NAMES[2:4])
    assert "and on 1 more" in decisions[-1].reason


def test_as_many_as_may_fail_are_set_aside_and_the_wave_goes_on_to_its_proof() -> None:
    ticks = [tick(t, NAMES[2:4] if t == 3 else ()) for t in range(30)]
    _, decisions = watch(may(2), ticks)
    assert [d.failed for d in decisions[2:5]] == [(), NAMES[2:4], NAMES[2:4]]
    assert {d.action for d in decisions} == {Action.CONTINUE, Action.PROMOTE}
    assert decisions[3].readings[1].verdict is GateVerdict.HARD


def test_one_more_than_may_fail_is_the_releases_fault_whenever_it_comes() -> None:
    for later in (4, 9):
        ticks = [tick(t, {3: NAMES[2:4], later: NAMES[5:6]}.get(t, ())) for t in range(later + 1)]
        _, decisions = watch(may(2), ticks)
        assert decisions[-1].action is Action.ROLL_BACK
        assert decisions[-1].failed == (*NAMES[2:4], NAMES[5])
        assert "3 gateways have failed" in decisions[-1].reason


def test_a_gateway_of_an_earlier_wave_that_fails_is_counted_too() -> None:
    _, decisions = watch(may(1), [tick(0), tick(1, NAMES[9:10])])
    assert (decisions[-1].action, decisions[-1].failed) == (Action.CONTINUE, NAMES[9:10])


def beside_earlier(of_wave: int, before: int) -> Cohorts:
    return WAVE.model_copy(update={"may_fail": of_wave, "may_fail_before": before})


def test_a_gateway_of_an_earlier_wave_takes_nothing_back_where_none_of_this_wave_may_fail() -> None:
    """In the hold-out wave of one gateway, of which none may fail, one of 399 others took all back."""
    _, decisions = watch(beside_earlier(0, 1), [tick(0), tick(1, NAMES[9:10]), tick(2)])
    assert (decisions[-1].action, decisions[-1].failed) == (Action.CONTINUE, NAMES[9:10])
    _, decisions = watch(beside_earlier(0, 1), [tick(0), tick(1, NAMES[2:3])])
    assert decisions[-1].action is Action.ROLL_BACK


OF_ONE = Cohorts(
    canary=NAMES[:1],
    changed_before=NAMES[1:10],
    earlier=NAMES[1:10],
    control=NAMES[10:],
    may_fail=1,
    may_fail_before=1,
)
"""The last wave but one: it has one gateway, and those before it have passed."""


def test_the_only_gateway_of_a_later_wave_that_fails_takes_nothing_back_and_nothing_passes_for_it() -> None:
    """R6: the hold-out gateway alone took a release back that 399 others had passed."""
    _, decisions = watch(OF_ONE, [tick(t, NAMES[:1] if t == 3 else ()) for t in range(40)])
    assert {decision.failed for decision in decisions[3:]} == {NAMES[:1]}
    assert {decision.action for decision in decisions}.isdisjoint({Action.ROLL_BACK, Action.PROMOTE})


def test_the_only_gateway_of_a_later_wave_proves_the_release_while_it_is_well() -> None:
    _, decisions = watch(OF_ONE, [tick(t) for t in range(40)])
    assert decisions[-1].action is Action.PROMOTE


def test_more_failures_beside_that_of_the_only_gateway_of_a_wave_are_the_releases_fault() -> None:
    _, decisions = watch(OF_ONE, [tick(0), tick(1, NAMES[:1]), tick(2, NAMES[1:3])])
    assert decisions[-1].action is Action.ROLL_BACK


@pytest.mark.parametrize("missing", [{"unseen": NAMES[:1]}, {"other": {NAMES[0]: "sha256:" + "ef" * 32}}])
def test_missing_evidence_of_the_only_gateway_of_a_wave_holds_it_and_is_no_failure(
    missing: dict[str, Any],
) -> None:
    """It goes on by itself once its metrics are back."""
    if "unseen" in missing:
        missing = missing | {"blind": {"logins": "no fresh value"}}
    _, decisions = watch(OF_ONE, [tick(0), *(tick(t, **missing) for t in range(1, 40)), tick(40)])
    assert (decisions[-2].action, {decision.failed for decision in decisions}) == (Action.HOLD, {()})
    assert decisions[-1].action is not Action.HOLD_FOR_HUMAN


@pytest.mark.parametrize(("of_wave", "before"), [(0, 1), (1, 0)])
def test_gateways_of_earlier_waves_are_harm_beyond_what_all_waves_may_lose_together(
    of_wave: int, before: int
) -> None:
    _, decisions = watch(beside_earlier(of_wave, before), [tick(0), tick(1, NAMES[8:10])])
    assert (decisions[-1].action, {*decisions[-1].failed}) == (Action.ROLL_BACK, {*NAMES[8:10]})


def test_a_gateway_of_an_earlier_wave_stays_one_of_that_once_the_ledger_has_it_as_set_aside() -> None:
    sick = NAMES[9]
    state, _ = watch(beside_earlier(0, 1), [tick(0), tick(1, [sick])])
    out = {"changed_before": NAMES[8:9], "earlier": NAMES[8:10], "set_aside": (sick,)}
    cohorts = beside_earlier(0, 1).model_copy(update=out)
    state, decision = fold_tick(GATES, GATES.window, cohorts, state, tick(2))
    assert (decision.action, decision.failed) == (Action.CONTINUE, (sick,))
    _, decision = fold_tick(GATES, GATES.window, cohorts, state, tick(3, NAMES[8:9]))
    assert decision.action is Action.ROLL_BACK


def test_reboots_in_earlier_waves_count_against_what_all_waves_may_lose_together() -> None:
    rebooted = [NAMES[2:3] + NAMES[8:10], NAMES[1:3], NAMES[1:4] + NAMES[8:10]]
    actions = [
        watch(beside_earlier(0, 3), [tick(0), tick(1, rebooted=names)])[1][-1].action for names in rebooted
    ]
    assert actions == [Action.CONTINUE, Action.HOLD, Action.HOLD]


def test_what_is_everybodys_is_no_gateways_own_failure() -> None:
    _, decisions = watch(may(1), [tick(0), tick(1, NAMES)])
    assert (decisions[-1].verdict, decisions[-1].failed) == (GateVerdict.CONFLICTING, ())


def test_a_gateway_set_aside_is_neither_missed_nor_counted() -> None:
    blind = {"logins": f"attempts has no fresh value from {NAMES[2]}"}
    state, decisions = watch(may(2), [tick(0), tick(1, NAMES[2:3]), tick(2)])
    before = state.gates["logins"].sle
    assert before is not None
    assert [row[0] for row in before.recent] == [16, 16, 14]
    assert blind  # what would have been said of it is not asked any more
    assert decisions[-1].readings[0].verdict is not GateVerdict.METRICS_UNAVAILABLE


def test_a_gateway_that_was_started_again_is_judged_again_and_no_failure_any_more() -> None:
    state, _ = watch(may(2), [tick(0), tick(1, NAMES[2:3])])
    again = may(2).model_copy(update={"since": {NAMES[2]: START + 5}})
    _, decision = fold_tick(GATES, GATES.window, again, state, tick(8))
    assert decision.failed == ()


def test_a_reboot_is_named_and_is_nobodys_failure() -> None:
    ticks = [tick(t, NAMES[2:3] if t >= 3 else (), rebooted=NAMES[2:3] if t >= 3 else ()) for t in range(20)]
    _, decisions = watch(WAVE, ticks)
    assert (decisions[-1].rebooted, decisions[-1].failed) == (NAMES[2:3], ())
    assert Action.ROLL_BACK not in {d.action for d in decisions}


def test_a_crash_that_turns_out_to_be_a_reboot_is_taken_off_the_count() -> None:
    ticks = [tick(0), tick(1, NAMES[2:3]), tick(2), tick(3, rebooted=NAMES[2:3])]
    _, decisions = watch(may(1), ticks)
    assert [d.failed for d in decisions[1:]] == [NAMES[2:3], NAMES[2:3], ()]
    assert decisions[-1].rebooted == NAMES[2:3]


def test_many_reboots_hold_for_they_may_be_the_release() -> None:
    _, decisions = watch(may(2), [tick(0), tick(1, rebooted=NAMES[:3])])
    assert (decisions[-1].action, decisions[-1].verdict) == (Action.HOLD, GateVerdict.CONFLICTING)


@pytest.mark.parametrize(("may_fail", "held"), [(0, True), (1, False)])
def test_a_gateway_nobody_sees_blinds_the_window_or_fails_alone(may_fail: int, held: bool) -> None:
    until = 12 if held else 6
    lost: dict[str, Any] = {"unseen": NAMES[2:3], "blind": {"logins": "no fresh value"}}
    ticks = [tick(0), *(tick(t, **(lost if t <= until else {})) for t in range(1, 13))]
    _, decisions = watch(may(may_fail), ticks)
    assert (decisions[-1].failed == NAMES[2:3]) is not held
    assert (decisions[-1].action is Action.HOLD) is held


def boots(at: float, boot: str) -> dict[str, Any]:
    return {"vpngw_boot_info{$cohort}": [series("boot", NAMES[0], [(START + at, 1.0)], boot_id=boot)]}


def test_a_reboot_is_told_by_the_hosts_boot_and_only_since_the_instance_was_started() -> None:
    memory, seen = Memory(), []
    for at, boot, since in ((0, "one", 0), (1, "one", 0), (2, "two", 0), (3, "two", 0), (9, "two", 5)):
        cohorts = WAVE.model_copy(update={"since": {NAMES[0]: START + since} if since else {}})
        memory, found = read_tick(GATES, cohorts, memory, reading(START + at, boots(at, boot)))
        seen.append(found.rebooted)
    assert seen == [(), (), NAMES[:1], NAMES[:1], ()]


def test_a_reboot_that_took_long_is_no_restart_though_what_ran_before_is_remembered() -> None:
    cohorts, state, told = may(1), WindowState(), []
    for at, boot, started in ((0, "one", 7.0), (1, "one", 7.0), (60, "two", 9.0), (61, "two", 9.0)):
        process = series("started", NAMES[0], [(START + at, started)])
        found = reading(START + at, boots(at, boot) | {"started{$cohort}": [process]})
        state, _, decision = fold_reading(GATES, GATES.window, cohorts, state, found)
        told.append((decision.rebooted, decision.failed))
    assert told == [((), ()), ((), ()), (NAMES[:1], ()), (NAMES[:1], ())]


def test_a_host_that_says_nothing_of_its_boot_has_not_rebooted() -> None:
    memory, _ = read_tick(GATES, WAVE, Memory(), reading(START, boots(0, "one")))
    _, found = read_tick(GATES, WAVE, memory, reading(START + 1, {}))
    assert found.rebooted == ()


OTHER = "sha256:" + "ef" * 32
WITHIN = round(GATES.fresh_within.total_seconds())


def harmed_later(at: float, **more: Any) -> Tick:
    """Half of the logins fail on every canary, once it is known what runs there."""
    bad = 2 if at > WITHIN + 1 else 0
    counts = {name: (4, bad) if name in WAVE.canary else (4, 0) for name in NAMES}
    return tick(at, **more).model_copy(update={"counts": {"logins": counts}})


def test_one_gateway_that_runs_something_else_is_set_aside_and_keeps_nobody_from_proving_harm() -> None:
    mistaken = {NAMES[2]: OTHER}
    _, decisions = watch(may(1), [harmed_later(t, other=mistaken) for t in range(40)])
    assert decisions[WITHIN].failed == (NAMES[2],)
    assert decisions[-1].action is Action.ROLL_BACK
    assert decisions[-1].verdict is GateVerdict.UNHEALTHY


def test_more_of_them_than_may_fail_and_any_of_control_make_proofs_worthless() -> None:
    for names, may_fail in ((NAMES[2:4], 1), (NAMES[2:3], 0), (NAMES[15:16], 1)):
        _, decisions = watch(
            may(may_fail), [harmed_later(t, other=dict.fromkeys(names, OTHER)) for t in range(40)]
        )
        assert decisions[-1].verdict is GateVerdict.CONFLICTING
        assert (decisions[-1].action, decisions[-1].failed) == (Action.HOLD, ())


def test_a_hard_sign_outranks_harm_that_was_only_measured_and_stays() -> None:
    """B5: where operators decide about measured harm, a daemon that fails still goes back by itself."""
    measured = [tick(t, counts={"logins": SICK_CANARIES}) for t in range(40)]
    state, decisions = watch(may(0), measured)
    assert (decisions[-1].action, decisions[-1].verdict) == (Action.ROLL_BACK, GateVerdict.UNHEALTHY)
    state, failing = fold_tick(GATES, GATES.window, may(0), state, tick(40, NAMES[2:4]))
    assert (failing.action, failing.verdict) == (Action.ROLL_BACK, GateVerdict.HARD)
    _, after = fold_tick(GATES, GATES.window, may(0), state, tick(41, counts={"logins": SICK_CANARIES}))
    assert (after.action, after.verdict, after.reason) == (Action.ROLL_BACK, GateVerdict.HARD, failing.reason)


# --- absent gateways -----------------------------------------------------------------------


def unseen(at: float, *, absent: bool = True) -> Tick:
    """Return a tick without metrics of one gateway, which is absent or only its exporter is silent."""
    return tick(at, unseen=NAMES[2:3], absent=NAMES[2:3] if absent else ())


def test_an_absent_gateway_is_named_and_neither_failed_nor_counted() -> None:
    """R7: a host without power is nothing that a release did."""
    patience = int(GATES.blindness.grace.total_seconds())
    ticks = [unseen(t, absent=t > 0) for t in range(patience)]
    _, decisions = watch(may(1), ticks)
    assert (decisions[-1].absent, decisions[-1].failed) == (NAMES[2:3], ())
    assert Action.ROLL_BACK not in {d.action for d in decisions}
    _, decisions = watch(may(1), [*ticks, tick(patience, NAMES[5:6], absent=NAMES[2:3])])
    assert (decisions[-1].absent, decisions[-1].failed) == (NAMES[2:3], NAMES[5:6])
    assert decisions[-1].action is not Action.ROLL_BACK


def test_a_gateway_of_which_only_the_metrics_are_silent_fails_alone_as_before() -> None:
    ticks = [unseen(t, absent=False) for t in range(int(GATES.blindness.grace.total_seconds()))]
    _, decisions = watch(may(1), ticks)
    assert (decisions[-1].absent, decisions[-1].failed) == ((), NAMES[2:3])


def test_a_gateway_that_was_absent_is_judged_again_once_it_answers() -> None:
    patience = int(GATES.blindness.grace.total_seconds())
    ticks = [*(unseen(t) for t in range(patience)), tick(patience), tick(patience + 1, NAMES[2:3])]
    _, decisions = watch(may(1), ticks)
    assert [(d.absent, d.failed) for d in decisions[-3:]] == [(NAMES[2:3], ()), ((), ()), ((), NAMES[2:3])]


def test_a_hard_sign_on_an_absent_gateway_is_not_believed() -> None:
    _, decisions = watch(may(0), [tick(0), tick(1, NAMES[2:3], absent=NAMES[2:3])])
    assert decisions[-1].action is not Action.ROLL_BACK
    assert decisions[-1].failed == ()


def test_a_port_has_been_silent_since_the_first_of_the_ticks_that_follow_each_other_closely() -> None:
    """Decision 0056: a host that is away again days later is as absent as the first time."""
    canary = NAMES[2]
    silent = tick(0, silent=(canary,))

    def since(*ticks: Tick, at: float) -> float | None:
        state, _ = watch(WAVE, ticks)
        found = silent_since(GATES, state, START + at).get(canary)
        return found - START if found is not None else None

    def again(at: float) -> Tick:
        return silent.model_copy(update={"at": START + at})

    assert since(silent, again(1), again(9), at=10) == 0
    assert since(silent, tick(1), at=2) is None
    assert since(silent, tick(1), again(2), at=3) == 2
    assert since(silent, at=86_400) is None
    assert since(silent, again(86_400), at=86_401) == 86_400
    assert since(again(600), at=1) == 1
