"""R8: an answer is complete or it is missing. B7 of the safety review, and cases 01, 03 and 05."""

import math
from collections.abc import Sequence

import pytest

from policies.judge.counts import Series
from policies.judge.reading import Reading
from policies.judge.whole import whole
from policies.judge.window import WindowState, fold_reading
from policies.model.verdict import Action, GateVerdict
from tests.unit.judged import CANARY, COHORTS, CONTROL, LOGINS, START, policy, reading
from tests.unit.test_judge_tick import ALL, BAD, BUILD, UP, counting, lines, look, watch

GATES = policy()


def read_by(servers: Sequence[str], found: Reading) -> Reading:
    """Return what an address answers that gives the series of each server of a pair."""

    def copied(one: Series, server: str) -> Series:
        return Series(one.labels | {"replica": server}, one.samples)

    series: dict[str, Sequence[Series]] = {
        name: [copied(one, server) for server in servers for one in some]
        for name, some in found.series.items()
    }
    return reading(found.at, series)


def test_a_pair_that_is_not_deduplicated_is_no_evidence_and_the_label_is_named() -> None:
    """B7, case 03: each login counted twice, so the proof was twice as sure as it may be."""
    seen = watch(GATES, [read_by("ab", look(at)) for at in range(40)])
    assert {decision.action for _, decision in seen} == {Action.CONTINUE, Action.HOLD}
    _, last = seen[-1]
    assert last.verdict is GateVerdict.METRICS_UNAVAILABLE
    assert f"up of {CANARY} is there twice, by the label replica (a, b)" in last.reason
    assert "deduplicates" in last.reason


def test_a_pair_is_found_also_where_only_the_presence_of_one_server_is_asked() -> None:
    """B7: `presence` may name one replica while the counters do not."""
    pair = read_by("ab", look(0))
    presence = tuple(one for one in pair.series[UP] if one.labels["replica"] == "a")
    found = whole(pair.series | {UP: presence}, UP)
    assert "by the label replica (a, b)" in found.unsound[ALL][CANARY]
    assert found.series[ALL] == ()
    assert found.series[UP] == presence


def test_the_same_series_twice_is_no_evidence() -> None:
    found = look(0)
    doubled = whole(found.series | {ALL: (*found.series[ALL], *found.series[ALL])}, UP)
    assert "twice with the same labels" in doubled.unsound[ALL][CANARY]


def test_a_target_that_was_given_a_new_label_is_no_pair() -> None:
    before = lines("up", until=0, who=(CANARY,))
    after = lines("up", until=5, who=(CANARY,), site="a")
    assert whole({UP: (*before, *after)}, UP).unsound == {}


def test_labels_of_the_exporter_itself_are_no_servers() -> None:
    by_outcome = look(0)
    assert whole(by_outcome.series, UP).unsound == {}
    alerts = 'ALERTS{alertstate="firing",$cohort}'
    fires = [lines("ALERTS", until=0, who=(CANARY,), alertname=name, job=name)[0] for name in ("one", "two")]
    targets = lines("up", until=0, job="vpngw")
    assert whole({UP: targets, alerts: tuple(fires)}, UP, {alerts}).unsound == {}


@pytest.mark.parametrize("value", [math.nan, math.inf, 1.8446744073709552e19])
def test_a_counter_of_bad_events_that_is_no_number_blinds_its_gate_by_name(value: float) -> None:
    """Case 05: the series was dropped, and an absent counter of bad events is one without any."""
    seen = watch(GATES, [with_bad(at, value) for at in range(40)])
    assert {decision.action for _, decision in seen} == {Action.CONTINUE, Action.HOLD}
    _, last = seen[-1]
    assert last.verdict is GateVerdict.METRICS_UNAVAILABLE
    assert f"attempts of {CANARY} is not a finite number" in last.reason


def with_bad(at: float, value: float) -> Reading:
    found = look(at, counting(at, rate=2, bad=1))
    (bad,) = found.series[BAD]
    spoiled = Series(bad.labels, (*bad.samples[:-1], (bad.samples[-1][0], value)))
    return reading(found.at, {**found.series, BAD: [spoiled], ALL: [*found.series[ALL][:-1], spoiled]})


def test_what_a_counter_grew_by_while_it_was_no_number_is_counted_afterwards() -> None:
    """Case 05: neither the events nor the bad ones of that time are lost, and they stay together."""
    looks = [
        with_bad(at, math.nan) if 3 <= at < 8 else look(at, counting(at, rate=2, bad=1)) for at in range(14)
    ]
    seen = watch(GATES, looks)
    # a sample that is no number is read for five seconds, which is how far back this policy looks
    counts = [tick.counts.get("logins", {}).get(CANARY, (0, 0)) for tick, _ in seen]
    assert sum(bad for _, bad in counts) == 13
    assert sum(total for total, _ in counts) == 3 * 13
    assert [bad for _, bad in counts[3:8]] == [0] * 5


def test_a_control_gateway_that_is_no_evidence_is_left_out_and_the_others_decide() -> None:
    """Case 05: what is missing of one gateway takes no other's away."""
    gates = policy(min_controls=2)

    def spoiled(at: float) -> Reading:
        found = look(at, counting(at, rate=5))
        odd = Series(
            {"__name__": "attempts", "instance": CONTROL[0], "outcome": "bad"}, ((START + at, math.nan),)
        )
        return reading(found.at, {**found.series, ALL: [*found.series[ALL], odd], BAD: [odd]})

    seen = watch(gates, [spoiled(at) for at in range(60)])
    assert seen[-1][1].action is Action.PROMOTE
    assert all(tick.counts.get("logins", {}).get(CONTROL[0], (0, 0)) == (0, 0) for tick, _ in seen)


def test_too_few_sound_control_gateways_hold_and_one_of_the_others_is_named() -> None:
    gates = policy(min_controls=3)
    found = look(0)
    odd = Series({"__name__": "attempts", "instance": CONTROL[0], "outcome": "bad"}, ((START, math.nan),))
    spoiled = reading(found.at, {**found.series, ALL: [*found.series[ALL], odd]})
    _, tick, _ = fold_reading(gates, gates.window, COHORTS, WindowState(), spoiled)
    assert tick.blind["logins"] == (
        f"attempts is fresh on only 2 control gateways: attempts of {CONTROL[0]} is not a finite number"
    )


def test_a_hard_sign_and_the_identity_that_are_no_number_are_named_as_such() -> None:
    gates = policy(
        LOGINS, {"id": "gone", "kind": "hard", "value": "started{$cohort}", "fires": {"when": "gone"}}
    )
    found = look(0, {"started{$cohort}": lines("started", math.nan, until=0)})
    _, tick, _ = fold_reading(gates, gates.window, COHORTS, WindowState(), found)
    assert tick.blind["gone"] == f"started of {CANARY} is not a finite number"
    unnamed = look(0, {BUILD: lines("vpngw_build_info", math.nan, until=0)})
    _, tick, _ = fold_reading(gates, gates.window, COHORTS, WindowState(), unnamed)
    assert tick.blind["identity"] == f"vpngw_build_info of {CANARY} is not a finite number"
