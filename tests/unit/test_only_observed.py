"""A fleet that only observes, and a share of blue-green: the status names the step that time decides."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orchestrator.cli.following import code_of_change
from orchestrator.exit_code import ExitCode
from policies.model.change import ChangeKind, ChangeOrder, ChangeResult, Outcome, Phase
from policies.model.command import Command, CommandKind
from policies.model.fleet import Automation, Limits
from policies.model.offer import Verb
from policies.model.plan_part import PlanHeader, WaveHeader
from policies.model.report import ByTime, WaveReport
from policies.model.status import ChangeStatus
from policies.model.value import digest_of
from policies.model.verdict import Action, Decision, GateVerdict
from policies.notices.changes import facts_of
from policies.notices.states import NoticeState
from policies.status.story import Story

AT = datetime(2026, 11, 30, 3, 0, tzinfo=UTC)
OVER = AT + timedelta(minutes=10)
ORDER = ChangeOrder(fleet="edge", kind=ChangeKind.UPGRADE, requested_by="ana", reason="CVE")
HARM = Decision(action=Action.ROLL_BACK, verdict=GateVerdict.UNHEALTHY, reason="9 of 10 logins fail")
BLIND = Decision(action=Action.HOLD, verdict=GateVerdict.METRICS_UNAVAILABLE, reason="no sample for 60 s")
FEW = Decision(action=Action.CONTINUE, verdict=GateVerdict.NOT_ENOUGH_DATA, reason="7 logins so far")
IN_TIME = "the upgrade goes on to wave 2 at 2026-11-30 03:10:00 UTC, whatever the verdict is"


class Fleet:
    """A change of two waves, and what its wave reports."""

    def __init__(self, automation: Automation = Automation.OBSERVE) -> None:
        waves = tuple(
            WaveHeader(number=number, gateways=1, parts=1, lease=timedelta(minutes=2)) for number in (1, 2)
        )
        self.header = PlanHeader(
            digest=digest_of(b"plan"),
            fleet="edge",
            product="ocserv",
            channel="stable",
            limits=Limits(automation=automation),
            gateways=2,
            waves=waves,
            window_minimum=timedelta(minutes=10),
        )
        self.story = Story(ORDER, AT)
        self.story.know("edge-1", self.header)
        self._reports = 0

    def reports(self, decision: Decision | None, by_time: ByTime | None = None, **more: Any) -> ChangeStatus:
        self._reports += 1
        said: dict[str, Any] = {"phase": Phase.OBSERVING, "wave": 1, "moves": True, **more}
        report = WaveReport(
            at=AT, number=self._reports, change="edge-1", decision=decision, by_time=by_time, **said
        )
        self.story.take(report)
        return self.status

    @property
    def status(self) -> ChangeStatus:
        return self.story.status(AT + timedelta(minutes=1))

    def says(self, kind: CommandKind) -> str:
        command = Command(id=kind.value, kind=kind, person="ana", reason="calls")
        return self.story.hear(command, AT)

    @property
    def notices(self) -> dict[NoticeState, str]:
        facts = facts_of(ORDER, self.header, self.story.dump())
        return {fact.state: f"{fact.headline} {fact.runbook}" for fact in facts}


def needed(status: ChangeStatus) -> str:
    """Return what an operator is needed for, which the exit code says, too."""
    assert status.needs_you is not None
    assert code_of_change({"change": status.model_dump(mode="json")}) is ExitCode.HELD
    return status.needs_you


def test_a_wave_that_goes_on_against_harm_is_not_called_held_and_names_the_time() -> None:
    fleet = Fleet()
    status = fleet.reports(HARM, ByTime(at=OVER))
    assert (status.phase, "held" in status.what) == (Phase.OBSERVING, False)
    assert "HARM FOUND, and the upgrade goes on: this fleet only observes" in status.what
    assert status.next.startswith(IN_TIME)
    assert needed(status) == f"HARM FOUND: 9 of 10 logins fail; {status.next}"
    assert status.next.endswith("hold or rollback stops it")
    assert [one.verb for one in status.can_do] == [Verb.HOLD, Verb.ROLL_BACK]
    assert status.runbook == "held-decide"


def test_the_notice_of_harm_that_goes_on_pages_with_the_time_and_the_page_of_the_status() -> None:
    fleet = Fleet()
    fleet.reports(HARM, ByTime(at=OVER))
    assert NoticeState.HELD not in fleet.notices
    assert IN_TIME in fleet.notices[NoticeState.ONLY_OBSERVED]
    assert fleet.notices[NoticeState.ONLY_OBSERVED].endswith("held-decide")


def test_a_wave_that_goes_on_without_metrics_names_the_time_and_needs_an_operator() -> None:
    status = Fleet().reports(BLIND, ByTime(at=OVER))
    assert needed(status) == f"no sample for 60 s; {status.next}"
    assert (status.phase, status.runbook) == (Phase.OBSERVING, "metrics-blind")
    assert status.next.startswith(IN_TIME)


def test_harm_while_gateways_are_switched_says_how_the_wave_goes_on() -> None:
    status = Fleet().reports(HARM, ByTime(at=None), phase=Phase.SWITCHING, switching=True)
    assert status.next.startswith("the wave goes on 10 m after its last gateway has switched, whatever")
    assert needed(status).startswith("HARM FOUND: 9 of 10 logins fail")


def test_a_hold_stops_what_time_would_decide_and_resume_names_the_time_again() -> None:
    fleet = Fleet()
    fleet.reports(HARM, ByTime(at=OVER))
    fleet.says(CommandKind.HOLD)
    status = fleet.status
    assert status.phase is Phase.HELD
    assert status.next.startswith(f"nothing while it is held; after resume {IN_TIME}")
    assert needed(status).startswith("HARM FOUND: 9 of 10 logins fail; held by ana: calls")
    assert IN_TIME in fleet.says(CommandKind.RESUME)
    assert fleet.status.phase is Phase.OBSERVING


def test_harm_against_which_a_wave_passed_needs_an_operator_until_the_change_has_ended() -> None:
    fleet = Fleet()
    fleet.reports(HARM, ByTime(at=OVER))
    fleet.reports(HARM, phase=Phase.PROMOTING)
    status = fleet.reports(FEW, ByTime(at=None), wave=2, phase=Phase.SWITCHING, switching=True)
    assert needed(status).startswith("HARM FOUND: wave 1 passed by time against: 9 of 10 logins fail; ")
    assert "HARM FOUND" in status.what
    assert NoticeState.ONLY_OBSERVED in fleet.notices
    fleet.story.end(ChangeResult(rollout="edge-1", outcome=Outcome.PROMOTED, reason="it was"), AT)
    assert fleet.status.needs_you is None


def test_a_wave_whose_watch_is_silent_is_held_also_where_the_fleet_only_observes() -> None:
    silent = BLIND.model_copy(update={"action": Action.HOLD_FOR_HUMAN})
    status = Fleet().reports(silent, phase=Phase.HELD)
    assert (status.phase, needed(status)) == (Phase.HELD, "no sample for 60 s")


def test_a_share_that_time_decides_is_named_with_its_time() -> None:
    status = Fleet(Automation.ACT).reports(FEW, ByTime(at=OVER, share=50), share=10)
    assert status.next.startswith(
        "50 % of new sessions go to the new release at 2026-11-30 03:10:00 UTC, unless"
    )
    assert status.needs_you is None


@pytest.mark.parametrize("phase", [Phase.SWITCHING, Phase.HELD])
def test_harm_in_a_fleet_that_asks_waits_for_a_person_and_names_no_time(phase: Phase) -> None:
    status = Fleet(Automation.ASK).reports(HARM, phase=phase, switching=phase is Phase.SWITCHING)
    assert "this fleet asks a person before it goes back" in status.next
    assert (needed(status), status.runbook) == ("9 of 10 logins fail", "held-decide")


@pytest.mark.parametrize("automation", [Automation.ASK, Automation.OBSERVE])
def test_only_a_change_that_went_back_names_the_page_of_one_that_is_safe(automation: Automation) -> None:
    fleet = Fleet(automation)
    by_time = ByTime(at=OVER) if automation is Automation.OBSERVE else None
    assert fleet.reports(HARM, by_time, phase=Phase.HELD).runbook == "held-decide"
    fleet.story.begin_to_go_back("harm", AT)
    fleet.story.end(ChangeResult(rollout="edge-1", outcome=Outcome.ROLLED_BACK, reason="ana: yes"), AT)
    assert fleet.status.runbook == "canary-rejected"
