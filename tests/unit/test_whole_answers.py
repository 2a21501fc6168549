"""R8: an answer is complete or it is missing. B7 of the safety review, and cases 01, 03 and 05."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from policies.judge.counts import Series
from policies.judge.reading import Reading
from policies.judge.whole import whole
from policies.judge.window import WindowState, fold_reading
from policies.model.verdict import Action, GateVerdict
from tests.unit.judged import CANARY, COHORTS, CONTROL, LOGINS, START, TARGET, policy, reading
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


def with_good(at: float, samples: Sequence[tuple[float, float]], bad: float = 0) -> Reading:
    """Return a look at which the good events of the canary have these samples of the last five seconds."""
    found = look(at, counting(at, bad=bad))
    labels = {"__name__": "attempts", "instance": CANARY, "outcome": "ok", "digest": TARGET}
    recent = tuple((START + seen, value) for seen, value in samples if at - 5 < seen <= at)
    others = [one for one in found.series[ALL] if one.labels != labels]
    return reading(found.at, {**found.series, ALL: [*others, Series(labels, recent)]})


def of_two_scrapers(every: int) -> list[tuple[float, float]]:
    """Return 50,000 good events and two a second; of some seconds a second scraper has the sample, too."""
    samples = []
    for at in range(-4, 60):
        samples.append((float(at), 50_000.0 + 2 * at))
        if at > 0 and at % every == every - 1:
            samples.append((at + 0.1, 50_000.0 + 2 * at - 1))
    return samples


def test_a_series_with_the_samples_of_two_scrapers_is_no_evidence_and_both_values_are_named() -> None:
    """Each fall was read as a restart: fifty thousand good events in a second, and a promotion."""
    falls = of_two_scrapers(every=2)
    seen = watch(GATES, [with_good(at, falls) for at in range(40)])
    assert {decision.action for _, decision in seen} == {Action.CONTINUE, Action.HOLD}
    _, last = seen[-1]
    assert last.verdict is GateVerdict.METRICS_UNAVAILABLE
    assert f"attempts of {CANARY} fell from 50070 to 50069, which is no restart; look whether" in last.reason
    assert "the samples of two scrapers: deduplicate them by the label of the replica" in last.reason
    assert all(tick.counts.get("logins", {}).get(CANARY, (0, 0)) == (0, 0) for tick, _ in seen[2:])


def test_a_bad_release_is_rolled_back_though_its_counters_fall_now_and_then() -> None:
    """What they grew by meanwhile is counted afterwards, and nothing else is."""
    falls = of_two_scrapers(every=10)
    seen = watch(GATES, [with_good(at, falls, bad=1) for at in range(60)])
    assert [tick.at - START for tick, _ in seen if tick.blind][:6] == [10, 11, 12, 13, 14, 20]
    counts = [tick.counts.get("logins", {}).get(CANARY, (0, 0)) for tick, _ in seen]
    assert (sum(total for total, _ in counts), sum(bad for _, bad in counts)) == (3 * 59, 59)
    assert seen[-1][1].action is Action.ROLL_BACK


def test_a_replica_with_another_clock_counts_nothing_twice_when_it_takes_over() -> None:
    """Its newest samples are older than their stamps say: the counter falls from one tick to the next."""
    one = [(float(at), 50_000.0 + 2 * at) for at in range(-4, 11)]
    other = [(at + 0.5, 50_000.0 + 2 * (at - 2)) for at in range(-4, 40)]
    looks = [with_good(at, one) for at in range(11)] + [with_good(at, other) for at in range(11, 40)]
    seen = watch(GATES, looks)
    assert [tick.at - START for tick, _ in seen if tick.blind] == [11, 12, 13, 14, 15, 16]
    assert (
        f"attempts of {CANARY} fell from 50020 to 50016, which is no restart" in seen[11][0].blind["logins"]
    )
    assert sum(tick.counts.get("logins", {}).get(CANARY, (0, 0))[0] for tick, _ in seen) == 2 * 36
    assert seen[-1][1].action is Action.PROMOTE


def test_a_counter_that_has_passed_half_of_its_value_after_a_restart_counts_from_zero_at_last() -> None:
    restarted = [(float(at), 100.0 + at if at < 10 else 60.0 + at - 10) for at in range(-4, 40)]
    seen = watch(GATES, [with_good(at, restarted) for at in range(40)])
    assert [tick.at - START for tick, _ in seen if tick.blind] == list(range(10, 19))
    assert sum(tick.counts.get("logins", {}).get(CANARY, (0, 0))[0] for tick, _ in seen) == 9 + 60 + 29


def test_a_gateway_whose_events_fall_is_not_in_the_baseline_with_its_failures_alone() -> None:
    """Where no gateway is left unchanged, too high a share of failures there is too high a limit."""

    def past(at: float, *, falls: bool) -> dict[str, tuple[Series, ...]]:
        good, bad = (
            Series({"__name__": "attempts", "instance": CONTROL[0], "outcome": outcome}, samples)
            for outcome, samples in (
                ("ok", ((START + at - 0.1, 900 + at), (START + at, 900 + at - (1 if falls else 0)))),
                ("bad", ((START + at, 100.0 + at),)),
            )
        )
        return {ALL: (good, bad), BAD: (bad,)}

    def baseline(*, before: bool, now: bool) -> tuple[int, int]:
        first = replace(look(0, past(0, falls=now)), history=past(-60, falls=before))
        _, tick, _ = fold_reading(GATES, GATES.window, COHORTS, WindowState(), first)
        return tick.baseline["logins"]

    assert baseline(before=False, now=False) == (120, 60)
    assert baseline(before=True, now=False) == (0, 0)
    assert baseline(before=False, now=True) == (0, 0)
