"""What a wider selector has answered is not asked once more."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activities.files import load
from activities.observation import ObservationActivities
from policies.judge.counts import Series
from policies.judge.look import Memory
from policies.judge.needs import what_to_read
from policies.judge.selectors import contained, read_selector
from policies.judge.window import WindowState
from policies.model.gates import GatePolicy
from policies.model.verdict import Cohorts
from tests.unit.judged import LOGINS, policy

PRODUCTION = load(Path(__file__).parents[2] / "deploy/prometheus/gates.yaml", GatePolicy)
TOTAL = "vpngw_first_attempts_total{$cohort}"
BAD = 'vpngw_first_attempts_total{outcome=~"auth_fail|tls_fail",$cohort}'
REFUSED = 'vpngw_first_attempts_total{outcome="auth_fail",$cohort}'

SLOW = {
    "kind": "exceedance",
    "share": 0.1,
    "bound": {"quantile": 0.95, "max": 5},
    "margin": {"delta": 0.03, "odds_floor": 1.5, "min_excess": 0.05, "min_bad": 5, "min_ticks": 2},
    "health": {"delta": 0.08, "error": 0.05},
}


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
    needs = what_to_read(PRODUCTION, Cohorts(canary=("a:1",), control=("b:1",)), Memory(), 0.0)
    inside = contained(needs.lookbacks)
    assert set(inside.values()) == {TOTAL}
    assert len(inside) == 2


class Asked:
    """Metrics that remember what they were asked."""

    def __init__(self) -> None:
        self.selectors: list[str] = []

    async def raw(
        self, selector: str, instances: Sequence[str], at: datetime, lookback: timedelta
    ) -> tuple[Series, ...]:
        self.selectors.append(selector)
        return ()


async def test_a_histogram_of_which_only_some_buckets_are_read_answers_for_no_other() -> None:
    wide, narrow = "h_bucket{$cohort}", 'h_bucket{method="radius",$cohort}'
    gates = policy(
        LOGINS,
        SLOW | {"id": "slow", "histogram": wide},
        SLOW | {"id": "slow-radius", "histogram": narrow},
    )
    bounds = {"slow": 0.5, "slow-radius": 2.0}
    state = WindowState(memory=Memory(based=True, bounds=bounds))
    metrics = Asked()
    cohorts = Cohorts(canary=("a:1",), control=("b:1",))
    await ObservationActivities(metrics).read(gates, cohorts, state)
    assert [asked for asked in metrics.selectors if asked.startswith("h_bucket")] == [
        'h_bucket{le=~"0\\\\.5(\\\\.0)?|\\\\+Inf",$cohort}',
        'h_bucket{method="radius",le=~"2(\\\\.0)?|\\\\+Inf",$cohort}',
    ]
