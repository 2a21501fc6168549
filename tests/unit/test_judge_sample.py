"""The sample of a large fleet: who is read in full, and who only where there is something to see."""

import json
from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activities.drivers.metrics.promql import offenders_query
from activities.observation import packed, unpacked
from policies.judge.look import Memory
from policies.judge.needs import MOST_OFFENDERS, offending, what_to_read
from policies.judge.sample import sample_of, sampled
from policies.judge.tick import Offence
from policies.judge.window import WindowState, fold_reading
from policies.model.verdict import Action, Cohorts, old_instance_of
from tests.unit.judged import LOGINS, OLD, START, TARGET, policy, reading, seconds, series

NAMES = tuple(f"10.{n // 65536}.{n // 256 % 256}.{n % 256}:9500" for n in range(10_000))
groups = st.dictionaries(st.text("abcdef", min_size=1, max_size=4), st.sampled_from("xyz"), max_size=60)


@given(groups, st.integers(1, 40), st.text(max_size=3), st.randoms())
def test_a_sample_is_of_its_names_and_seed_alone_and_of_every_group(
    members: dict[str, str], most: int, seed: str, chance: Random
) -> None:
    found = sample_of(members, members, most, seed)
    shuffled = list(members)
    chance.shuffle(shuffled)
    assert sample_of(shuffled, members, most, seed) == found
    assert set(found) <= set(members)
    assert len(found) == min(most, len(members))
    if most >= len(set(members.values())):
        assert {members[name] for name in found} == set(members.values())


def test_a_group_has_its_part_of_the_sample() -> None:
    members = {name: "large" if n % 4 else "small" for n, name in enumerate(NAMES)}
    counts = Counter(members[name] for name in sample_of(members, members, 500, "r-1"))
    assert abs(counts["large"] - 375) <= 2
    assert sample_of(members, members, 500, "r-1") != sample_of(members, members, 500, "r-2")


@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 300), st.integers(2, 100))
def test_every_changed_gateway_is_sampled_or_beyond(wave: int, before: int, control: int, most: int) -> None:
    cohorts = Cohorts(
        canary=NAMES[:wave],
        changed_before=NAMES[wave : wave + before],
        control=NAMES[wave + before : wave + before + control],
        expected=dict.fromkeys(NAMES[:600], TARGET),
    )
    part = sampled(cohorts, {}, most, "r-1")
    assert part.changed == cohorts.changed
    assert len(part.canary) + len(part.changed_before) == min(most, wave + before)
    assert len(part.control) == min(most, control)
    assert set(part.expected) == {*part.canary, *part.changed_before, *part.control} & set(NAMES[:600])
    assert bool(part.canary) == bool(wave)


@given(st.integers(1, 300), st.integers(2, 100))
def test_who_is_compared_with_itself_is_sampled_with_its_old_instance(wave: int, most: int) -> None:
    beside = {old_instance_of(name): name for name in NAMES[:wave]}
    cohorts = Cohorts(canary=NAMES[:wave], control=tuple(beside), beside=beside)
    part = sampled(cohorts, {}, most, "r-1")
    assert len(part.canary) == min(most, wave)
    assert sorted(beside[label] for label in part.control) == sorted(part.canary)


def test_ten_thousand_gateways_make_a_small_order_and_a_small_state() -> None:
    gates = policy(LOGINS, RESTARTED)
    whole = Cohorts(canary=NAMES[:7000], control=NAMES[7000:], expected=dict.fromkeys(NAMES, TARGET))
    part = sampled(whole, {}, 500, "r-1")
    assert len(part.model_dump_json()) < 262_144
    attempts = [
        series("attempts", name, [(START, 100.0), (START + 1, 103.0)], outcome=outcome, digest=TARGET)
        for name in (*part.canary, *part.control)
        for outcome in ("ok", "auth_fail", "timeout", "tls_fail", "internal")
    ]
    up = [series("up", name, [(START, 1.0), (START + 1, 1.0)]) for name in (*part.canary, *part.control)]
    found = reading(START + 1, {"attempts{$cohort}": attempts, 'up{job="vpngw",$cohort}': up})
    state, _, _ = fold_reading(gates, gates.window, part, WindowState(), found)
    assert len(state.memory.cursor) == 5000
    assert len(packed(state)) < 262_144
    assert unpacked(packed(state)) == state


RESTARTED = {"id": "restarted", "kind": "hard", "value": "started{$cohort}", "fires": {"when": "changes"}}


def test_of_those_beyond_only_their_signs_are_read_and_a_sign_of_one_is_that_gateways() -> None:
    gates = policy(LOGINS, RESTARTED)
    cohorts = Cohorts(
        canary=NAMES[:1], control=NAMES[1:3], beyond=NAMES[3:9], may_fail=1, expected={NAMES[0]: TARGET}
    )
    needs = what_to_read(gates, cohorts, Memory(), START)
    assert set(needs.instances) == {*NAMES[:3]}
    assert [offence.selector for offence in needs.offences] == ["started{$cohort}"]
    assert set(needs.signs) == {"started{$cohort}", 'up{job="vpngw",$cohort}'}
    started = [
        series("started", NAMES[4], [(START + 1, 7.0), (START + 2, 9.0)], digest=TARGET),
        series("started", NAMES[5], [(START + 1, 7.0), (START + 2, 9.0)], digest=OLD),
    ]
    state, _, _ = fold_reading(gates, gates.window, cohorts, WindowState(), reading(START, {}))
    found = reading(START + 2, {"started{$cohort}": started})
    _, _, decision = fold_reading(gates, gates.window, cohorts, state, found)
    assert decision.failed == (NAMES[4],)
    assert decision.action is not Action.ROLL_BACK


def test_without_anybody_beyond_nothing_is_filtered() -> None:
    cohorts = Cohorts(canary=NAMES[:1], control=NAMES[1:3])
    needs = what_to_read(policy(LOGINS, RESTARTED), cohorts, Memory(), START)
    assert needs.offences == ()


@pytest.mark.parametrize(("unwatched", "back"), [(1, 6), (600, 605), (90_000, 3605)])
def test_a_filter_for_restarts_looks_back_to_the_last_tick_and_an_hour_at_most(
    unwatched: float, back: float
) -> None:
    gates = policy(LOGINS, RESTARTED)
    cohorts = Cohorts(canary=NAMES[:1], control=NAMES[1:3], beyond=NAMES[3:9])
    memory = Memory(based=True, counted=START)
    needs = what_to_read(gates, cohorts, memory, START + unwatched)
    asked = {needs.offences[0].lookback, needs.signs["started{$cohort}"]}
    assert (gates.fresh_within, asked) == (seconds(5), {seconds(back)})
    assert needs.lookbacks["attempts{$cohort}"] == gates.fresh_within


def test_who_is_of_another_fleet_is_not_read_and_never_more_than_names_tell() -> None:
    cohorts = Cohorts(canary=(), control=(), beyond=NAMES)
    assert offending({"10.9.9.9:1", NAMES[7]}, cohorts) == (NAMES[7],)
    assert len(offending(NAMES, cohorts)) == MOST_OFFENDERS


def test_a_filter_asks_for_everybody_and_for_names_only() -> None:
    query = offenders_query(Offence('up{job="vpngw",$cohort}', "equals", seconds(45)))
    assert query == '(group by (instance) (up{job="vpngw",instance!=""} == 0.0) or vector(time()))[1s:1s]'
    assert 'changes(started{instance!=""}[45000ms]) > 0' in offenders_query(
        Offence("started{$cohort}", "changes", seconds(45), 1.01)
    )


def test_of_a_histogram_only_the_buckets_that_are_compared_are_read_once_they_are_known() -> None:
    slow = {"id": "slow", "kind": "exceedance", "histogram": "took{$cohort}", "share": 0.2}
    cohorts = Cohorts(canary=NAMES[:1], control=NAMES[1:3])
    assert what_to_read(policy(LOGINS, slow), cohorts, Memory(), START).asked == {}
    known = Memory(based=True, bounds={"slow": 0.5})
    asked = what_to_read(policy(LOGINS, slow), cohorts, known, START).asked
    assert json.dumps(asked) == json.dumps({"took{$cohort}": 'took{le=~"0\\\\.5(\\\\.0)?|\\\\+Inf",$cohort}'})
