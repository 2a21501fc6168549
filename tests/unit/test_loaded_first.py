"""Whoever is loaded with a release changes before all others, so that no user meets it untested."""

import pytest

from policies.model.errors import Refused
from policies.model.fleet import Limits
from policies.model.plan import Strategy
from policies.model.release_tests import LoadTest, ReleaseTests
from tests.unit.fleets import NEW, Facts, facts_of, planned, state


def loaded(name: str, count: int = 9, limits: Limits | None = None, groups: int = 1) -> Facts:
    upgraded, states, known_good = facts_of(count, limits, groups)
    tests = ReleaseTests(load=LoadTest(gateway=name))
    return upgraded.model_copy(update={"tests": tests}), states, known_good


@pytest.mark.parametrize("strategy", [Strategy.CANARY, Strategy.ROLLING])
@pytest.mark.parametrize("number", range(1, 10))
def test_the_gateway_that_is_loaded_is_the_first_and_alone(strategy: Strategy, number: int) -> None:
    plan = planned(loaded(f"gw-{number}"), strategy)
    assert plan.waves[0].gateways == (f"gw-{number}",)
    assert sorted(name for wave in plan.waves for name in wave.gateways) == sorted(plan.known_good)


def test_a_blue_green_plan_begins_with_its_group() -> None:
    plan = planned(loaded("gw-1", 5, groups=2), Strategy.BLUE_GREEN)
    assert "gw-1" in plan.waves[0].gateways


def test_a_fleet_whose_loaded_gateway_cannot_change_is_refused_with_what_to_do() -> None:
    upgraded, states, known_good = loaded("gw-2")
    del states["gw-2"]
    with pytest.raises(Refused, match=r"nobody else is tested under load; .* tests.load.gateway"):
        planned((upgraded, states, known_good))


def test_what_was_loaded_already_is_not_loaded_again() -> None:
    upgraded, states, known_good = loaded("gw-2")
    states["gw-2"] = state("gw-2", on=NEW)
    assert "gw-2" not in planned((upgraded, states, known_good)).known_good


def test_a_fleet_without_tests_has_the_digest_that_its_plans_had() -> None:
    upgraded, _, _ = facts_of(2)
    assert "tests" not in upgraded.model_dump(mode="json")
