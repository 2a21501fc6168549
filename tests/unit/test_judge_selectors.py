"""What a wider selector has answered is not asked once more."""

from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.files import load
from policies.judge.look import Memory
from policies.judge.needs import what_to_read
from policies.judge.selectors import contained, read_selector
from policies.model.gates import GatePolicy
from policies.model.verdict import Cohorts

PRODUCTION = load(Path(__file__).parents[2] / "deploy/prometheus/gates.yaml", GatePolicy)
TOTAL = "vpngw_first_attempts_total{$cohort}"
BAD = 'vpngw_first_attempts_total{outcome=~"auth_fail|tls_fail",$cohort}'
REFUSED = 'vpngw_first_attempts_total{outcome="auth_fail",$cohort}'


def seconds(count: int) -> timedelta:
    return timedelta(seconds=count)


def test_of_logins_and_failed_logins_only_the_logins_are_asked_for() -> None:
    assert contained({BAD: seconds(45), TOTAL: seconds(45), REFUSED: seconds(45)}) == {
        BAD: TOTAL,
        REFUSED: TOTAL,
    }


def test_a_wider_selector_that_reads_less_far_back_does_not_answer() -> None:
    assert contained({BAD: seconds(60), TOTAL: seconds(45)}) == {}


OTHERS = ['vpngw_sessions{slot="a",$cohort}', 'up{job="vpngw",$cohort}', "{$cohort}"]


@pytest.mark.parametrize("other", OTHERS)
def test_another_metric_answers_nothing(other: str) -> None:
    assert contained({other: seconds(45), TOTAL: seconds(45)}) == {}


@pytest.mark.parametrize("pattern", ["auth.*", "a(b|c)", "a+", 'quo\\\\"te', "^x$"])
def test_a_pattern_that_could_mean_something_else_elsewhere_is_asked_by_itself(pattern: str) -> None:
    text = f'vpngw_first_attempts_total{{outcome=~"{pattern}",$cohort}}'
    assert read_selector(text) is None
    assert contained({text: seconds(45), TOTAL: seconds(45)}) == {}


@given(
    operator=st.sampled_from(["=", "!=", "=~", "!~"]),
    values=st.lists(st.sampled_from(["ok", "auth_fail", "timeout"]), min_size=1, unique=True),
    outcome=st.sampled_from(["ok", "auth_fail", "timeout", "internal", None]),
)
def test_a_selector_allows_what_prometheus_would_select(
    operator: str, values: list[str], outcome: str | None
) -> None:
    chosen = values if "~" in operator else values[:1]
    selector = read_selector(f'attempts{{outcome{operator}"{"|".join(chosen)}",$cohort}}')
    assert selector is not None
    labels = {} if outcome is None else {"outcome": outcome}
    assert selector.allows(labels) is ((outcome in chosen) is not operator.startswith("!"))


def test_of_the_gates_of_production_failed_logins_are_read_with_all_logins() -> None:
    needs = what_to_read(PRODUCTION, Cohorts(canary=("a:1",), control=("b:1",)), Memory())
    inside = contained(needs.lookbacks)
    assert set(inside.values()) == {TOTAL}
    assert len(inside) == 2
