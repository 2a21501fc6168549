"""A gateway that is compared with itself: the old instance on it is the control."""

import pytest

from policies.adoption import release_of
from policies.judge.counts import Series, planned
from policies.judge.look import Memory
from policies.judge.needs import what_to_read
from policies.judge.reading import Reading, with_old_instances
from policies.model.change import GatewayResult
from policies.model.gates import GatePolicy
from policies.model.plan import Strategy
from policies.model.value import digest_of
from policies.model.verdict import Cohorts, old_instance_of
from policies.planning.cohorts import cohorts_of
from tests.unit.fleets import NOON, facts_of
from tests.unit.fleets import planned as plan_of

OLD, NEW = digest_of(b"old executable"), digest_of(b"new executable")
GATEWAY = "gw-1:9200"
BLUE = old_instance_of(GATEWAY)
COHORTS = Cohorts(
    canary=(GATEWAY,),
    control=(BLUE,),
    expected={GATEWAY: NEW, BLUE: OLD},
    slots={GATEWAY: "b"},
    beside={BLUE: GATEWAY},
)


def series(slot: str | None, executable: str | None = None) -> Series:
    labels = {"instance": GATEWAY, "slot": slot, "executable": executable}
    return Series(labels={name: value for name, value in labels.items() if value}, samples=((1.0, 1.0),))


def read(*found: Series) -> tuple[Series, ...]:
    reading = Reading(at=1.0, series={"logins": found})
    return with_old_instances(reading, COHORTS).series["logins"]


def test_the_old_instance_is_seen_as_a_control_and_the_new_one_as_the_canary() -> None:
    found = read(series("a", OLD), series("b", NEW))
    ours = {(one.instance, one.labels["slot"]) for one in planned(found, COHORTS, "executable")}
    assert ours == {(GATEWAY, "b"), (BLUE, "a")}


def test_what_belongs_to_the_host_is_shown_for_both() -> None:
    assert {one.instance for one in read(series(None))} == {GATEWAY, BLUE}


def test_an_older_instance_that_still_empties_is_no_control() -> None:
    found = read(series("c", digest_of(b"older executable")))
    assert planned(found, COHORTS, "executable") == []


def test_metrics_are_asked_for_gateways_and_never_for_their_instances() -> None:
    needs = what_to_read(GatePolicy(), COHORTS, Memory(), 0.0)
    assert needs.instances == needs.before == (GATEWAY,)


def test_a_wave_that_is_compared_with_itself_has_no_other_control() -> None:
    plan = plan_of(facts_of(4), Strategy.BLUE_GREEN)
    trial = [
        GatewayResult(gateway=name, wave=1, state="on trial", slot="b", started=1.0, at=NOON)
        for name in plan.waves[0].gateways
    ]
    cohorts = cohorts_of(plan, 1, trial)
    assert set(cohorts.beside) == set(cohorts.control)
    assert set(cohorts.beside.values()) == set(cohorts.canary)


@pytest.mark.parametrize("strategy", [Strategy.CANARY, Strategy.BLUE_GREEN])
def test_what_was_adopted_is_no_control_since_nobody_counts_its_logins(strategy: Strategy) -> None:
    plan = plan_of(facts_of(4), strategy)
    waiting = [name for name in plan.known_good if plan.wave_of.get(name) != 1]
    adopted = {*waiting[:1], *plan.waves[0].gateways}
    known = {
        name: release_of("ocserv", "1.1.6", release.executable) if name in adopted else release
        for name, release in plan.known_good.items()
    }
    trial = [
        GatewayResult(gateway=name, wave=1, state="on trial", slot="b", started=1.0, at=NOON)
        for name in plan.waves[0].gateways
    ]
    cohorts = cohorts_of(plan.model_copy(update={"known_good": known}), 1, trial)
    compared = set() if strategy is Strategy.BLUE_GREEN else {*waiting} - adopted
    assert cohorts.beside == {}
    assert set(cohorts.control) == {plan.fleet.gateway(name).metrics_target for name in compared}
    assert len(cohorts.canary) == len(trial)
