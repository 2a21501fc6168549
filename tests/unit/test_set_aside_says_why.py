"""Each gateway that is set aside is reported with its own sign, never with what proves the others healthy."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from policies.judge.look import Memory
from policies.judge.observation import read_tick
from policies.judge.tick import Tick
from policies.model.change import GatewayResult
from policies.model.verdict import LEASE, Action, GateVerdict
from policies.planning.cohorts import cohorts_of
from policies.runbooks import runbook_of_waiting
from tests.unit.fleets import facts_of, planned
from tests.unit.judged import START, reading, series
from tests.unit.test_judge_failures import GATES, NAMES, OTHER, WAVE, WITHIN, may, tick, watch

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)
BAD = NAMES[2]
KNOWN_GOOD = "sha256:" + "89" * 32
LEASED = may(1).model_copy(update={"leased": {BAD: KNOWN_GOOD}})
LONG = WITHIN + 20


@pytest.mark.parametrize(
    ("kind", "own"),
    [
        ("hard sign", "restarted: it shows the sign for 0 s, and the control does not"),
        ("other executable", f"it runs {OTHER[:19]}, which the plan did not put there"),
        ("unseen", "its metrics were not seen for"),
        ("absent", "and neither its agent nor its users' port answers"),
    ],
)
def test_a_gateway_that_is_set_aside_is_reported_with_its_own_sign(kind: str, own: str) -> None:
    bad = (BAD,)
    ticks: Callable[[float], Tick] = {
        "hard sign": lambda at: tick(at, bad if at == 3 else ()),
        "other executable": lambda at: tick(at, other={BAD: OTHER}),
        "unseen": lambda at: tick(at, unseen=bad if at else ()),
        "absent": lambda at: tick(at, unseen=bad if at else (), absent=bad),
    }[kind]
    _, decisions = watch(may(1), [ticks(at) for at in range(LONG)])
    named = [one for one in decisions if BAD in (*one.failed, *one.absent)]
    assert named
    for decision in named:
        assert own in decision.reason_of(BAD)
        assert own not in decision.reason


def test_gateways_with_signs_of_their_own_have_a_reason_each() -> None:
    ticks = [tick(at, NAMES[3:4] if at == 3 else (), other={BAD: OTHER}) for at in range(LONG)]
    _, decisions = watch(may(2), ticks)
    assert decisions[-1].failed == (BAD, NAMES[3])
    assert decisions[-1].own[BAD].startswith("it runs ")
    assert decisions[-1].own[NAMES[3]].startswith("restarted: ")


# --- known-good after a lease that ended -----------------------------------------------------


def test_a_gateway_back_on_its_known_good_is_neither_accused_nor_set_aside() -> None:
    """Our own silence, longer than the lease, was reported as a host that may be broken into."""
    ticks = [tick(at, other={BAD: KNOWN_GOOD}) for at in range(LONG)]
    _, decisions = watch(LEASED, ticks)
    assert {one.failed for one in decisions} == {()}
    assert Action.PROMOTE not in {one.action for one in decisions}
    last = decisions[-1]
    assert last.verdict is GateVerdict.METRICS_UNAVAILABLE
    assert f"{BAD}: its lease ended unconfirmed; known-good serves" in last.reason
    assert "which is not what the plan put there" not in str(decisions)
    assert runbook_of_waiting(last.verdict, LEASE) == "worker-or-temporal-down"


def test_a_committed_gateway_back_on_its_known_good_is_missing_evidence_and_no_executable_of_a_stranger() -> (
    None
):
    """It was set aside as failed, and one more than may fail held the release as one that conflicts."""
    committed = dict.fromkeys(NAMES[:3], KNOWN_GOOD)
    cohorts = may(1).model_copy(update={"committed": committed})
    _, decisions = watch(cohorts, [tick(at, other=committed) for at in range(LONG)])
    assert {one.failed for one in decisions} == {()}
    assert Action.PROMOTE not in {one.action for one in decisions}
    last = decisions[-1]
    assert last.verdict is GateVerdict.METRICS_UNAVAILABLE
    assert "what it ran before the release serves again" in last.reason
    assert "which is not what the plan put there" not in str(decisions)


def test_known_good_in_the_first_scrapes_of_a_trial_is_no_lease_that_ended() -> None:
    ticks = [tick(at, other={NAMES[at // 3]: KNOWN_GOOD}) for at in range(24)]
    leased = dict.fromkeys(NAMES[:8], KNOWN_GOOD)
    _, decisions = watch(may(1).model_copy(update={"leased": leased}), ticks)
    assert "its lease ended" not in str(decisions)
    assert {one.action for one in decisions} == {Action.CONTINUE}


def test_an_executable_that_is_neither_the_release_nor_known_good_is_still_a_mistake() -> None:
    _, decisions = watch(LEASED, [tick(at, other={BAD: OTHER}) for at in range(LONG)])
    assert decisions[-1].failed == (BAD,)


def test_what_was_sampled_before_the_trial_began_says_nothing_of_it() -> None:
    cohorts = WAVE.model_copy(
        update={"expected": {BAD: OTHER}, "since": {BAD: START + 5.0}, "canary": (BAD,)}
    )

    def seen(at: float) -> dict[str, str]:
        label = {GATES.identity.label: KNOWN_GOOD}
        shown = series("executable", BAD, [(START + at, 1.0)], **label)
        _, found = read_tick(GATES, cohorts, Memory(), reading(START + 6, {GATES.identity.value: [shown]}))
        assert "identity" not in found.blind
        return found.other

    assert seen(4) == {}
    assert seen(5.5) == {BAD: KNOWN_GOOD}


def test_only_a_gateway_on_trial_has_a_lease_that_may_end() -> None:
    plan = planned(facts_of(4))
    first, second = plan.waves[0].gateways[0], plan.waves[1].gateways[0]
    results = [
        GatewayResult(gateway=second, wave=2, state="on trial", slot="b", at=NOON),
        GatewayResult(gateway=first, wave=1, state="kept", slot="b", at=NOON),
    ]
    cohorts = cohorts_of(plan, 2, results)
    target = plan.fleet.gateway(second).metrics_target
    assert cohorts.leased == {target: plan.known_good[second].executable}
    committed = plan.fleet.gateway(first).metrics_target
    assert cohorts.committed == {committed: plan.known_good[first].executable}
