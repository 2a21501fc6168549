"""The story a rollout tells of itself, however the engine mixes up what its children say."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st
from policies.way_back import WayBackStory

from policies.gates import GatePolicy
from policies.planning.plan import plan as make_plan
from policies.story import Story
from policies.words.change import ChangeOrder, Outcome
from policies.words.plan import Strategy
from policies.words.report import RestoreReport
from policies.words.word import digest_of
from tests.unit.fleets import NEW, OLD, fleet, gateway, state

BEGAN = datetime(2026, 11, 20, 3, 0, tzinfo=UTC)
REPORTS = (
    RestoreReport(at=BEGAN, number=1, reason="it is worse"),
    RestoreReport(at=BEGAN + timedelta(seconds=1), number=2, reason="it is worse", back=("gw-2",)),
    RestoreReport(
        at=BEGAN + timedelta(seconds=1),
        number=3,
        reason="it is worse",
        back=("gw-2",),
        missing=("gw-1: nft says no",),
    ),
)
ORDERS = st.permutations(REPORTS)


@given(ORDERS)
def test_a_gateway_that_is_missing_stays_so_whichever_report_arrives_last(
    reports: list[RestoreReport],
) -> None:
    names = ("gw-1", "gw-2")
    plan = make_plan(
        fleet(*[gateway(name) for name in names]),
        {name: state(name) for name in names},
        dict.fromkeys(names, OLD),
        NEW,
        Strategy.ROLLING,
        gates=GatePolicy(),
        trust_policy=digest_of(b"trust"),
    )
    order = ChangeOrder(
        rollout="edge-1", plan=plan, source="http://repository", requested_by="ana", reason="new"
    )
    story = Story(order, BEGAN)
    for report in reports:
        story.take_rollback(report)
    assert story.status().incomplete == ("gw-1: nft says no",)


@given(ORDERS)
def test_a_way_back_that_is_incomplete_says_so_whichever_report_arrives_last(
    reports: list[RestoreReport],
) -> None:
    story = WayBackStory("edge-back-1", "edge", "users call", BEGAN)
    story.begin(dict.fromkeys(("gw-1", "gw-2"), OLD), BEGAN)
    for report in reports:
        story.take(report)
    assert story.status().outcome is Outcome.ROLLBACK_INCOMPLETE
    assert story.status().incomplete == ("gw-1: nft says no",)
