"""The steps from a fault to safety: what a story writes is what a report reads, whoever rewords it."""

from datetime import UTC, datetime, timedelta

from policies.model.change import ChangeKind, ChangeOrder, ChangeRecord, Outcome
from policies.model.drain import SESSIONS_TAKEN, Loss, loss_event
from policies.model.plan_part import PartKey
from policies.model.report import RestoreReport
from policies.model.status import Event
from policies.model.verdict import Action, VerdictRow
from policies.planning.parts import parted
from policies.reporting.deciding import decisive_of, gate_of
from policies.reporting.measured import measured_of
from policies.reporting.split import Moment
from policies.reporting.steps import split_of
from policies.status.landmarks import is_gateway_back
from policies.status.story import Story
from tests.unit.fleets import facts_of, planned
from tests.unit.judged import counted, fold, policy

BEGAN = datetime(2026, 11, 24, 1, 2, tzinfo=UTC)
ORDER = ChangeOrder(fleet="edge", kind=ChangeKind.UPGRADE, requested_by="ana", reason="CVE-2030-1")
RECORD = ChangeRecord(
    name="edge-2",
    number=2,
    fleet="edge",
    kind=ChangeKind.UPGRADE,
    requested_by="ana",
    reason="CVE-2030-1",
    release="1.4.0",
    began=BEGAN,
    outcome=Outcome.ROLLED_BACK,
)


def restored(after: int, *names: str) -> RestoreReport:
    at = BEGAN + timedelta(seconds=after)
    return RestoreReport(
        at=at, number=after, part=PartKey(wave=1, number=1), reason="it is worse", names=names
    )


def test_a_report_reads_out_of_a_story_what_the_story_wrote_of_the_way_back() -> None:
    story = Story(ORDER, BEGAN)
    story.know("edge-2", parted(planned(facts_of(4))).header)
    for report in (restored(10), restored(16, "gw-1"), restored(29, "gw-1", "gw-2")):
        story.take_restore(report)
    found = split_of(RECORD, (), measured_of((), ()), story.dump().events, None)
    assert found is not None
    after = {step.moment: (step.at - BEGAN).total_seconds() for step in found.steps if step.at is not None}
    assert after == {Moment.DECISION: 10.0, Moment.FIRST_BACK: 16.0, Moment.SAFE: 29.0}


def test_what_somebody_wrote_about_a_gateway_brings_none_back() -> None:
    said = (
        "edge-1 left out and sent back: edge-2 back on known-good",
        "ana: hold (edge-1 back on known-good)",
        " back on known-good",
        "edge-1 back on known-good, nearly",
    )
    assert not any(is_gateway_back(Event(at=BEGAN, sentence=sentence)) for sentence in said)


def test_the_gate_that_turned_a_change_round_is_found_however_its_decision_is_worded() -> None:
    harmful = [counted(tick, (4, 0 if tick <= 30 else 3), (4, 0)) for tick in range(1, 50)]
    _, decisions = fold(policy(), harmful)
    rows = [
        VerdictRow(wave=1, at=BEGAN + timedelta(seconds=number), decision=decision)
        for number, decision in enumerate(decisions)
    ]
    decisive = decisive_of(rows)
    assert decisive is not None
    assert decisive.decision.action is Action.ROLL_BACK
    gate = gate_of(decisive.decision)
    assert gate is not None
    assert gate.gate == "logins"


def test_every_way_of_losing_sessions_with_a_process_counts_among_those_taken_from_users() -> None:
    assert {loss_event(loss) for loss in Loss} == {"sessions lost_crash", "sessions lost_reboot"}
    assert {loss_event(loss) for loss in Loss} < SESSIONS_TAKEN
