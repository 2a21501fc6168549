"""What waits for a person leads to a page: notices, `penstock explain` and the status name the same one."""

import pytest

from orchestrator.exit_code import ExitCode
from orchestrator.words.explained import meaning_of
from policies.model.change import Outcome
from policies.model.notice import NoticeLevel
from policies.notices.states import KINDS, OF_OUTCOMES, NoticeState
from policies.runbooks import PAGES, runbook_of
from tests.house.tree import ROOT

SAME = {
    NoticeState.HELD: "held",
    NoticeState.BLIND: "metrics_unavailable",
    NoticeState.ROLLBACK_INCOMPLETE: "rollback_incomplete",
    NoticeState.WAITING_FOR_SECOND_PERSON: "rollback_waits",
    NoticeState.WEDGED: "stuck",
    NoticeState.QUARANTINED: "quarantined",
    NoticeState.DRAIN_HELD: "drain_held",
    NoticeState.ASTRAY: "RunningMismatch",
}
"""States that status and page show too, each with the word by which these find the page."""


@pytest.mark.parametrize("state", NoticeState)
def test_a_notice_that_waits_or_needs_somebody_names_a_page_that_there_is(state: NoticeState) -> None:
    kind = KINDS[state]
    if kind.waits or kind.level is not NoticeLevel.INFO:
        assert kind.runbook is not None
    assert kind.runbook is None or kind.runbook in PAGES
    assert kind.runbook is None or (ROOT / "runbooks" / f"{kind.runbook}.md").is_file()


@pytest.mark.parametrize("state", SAME)
def test_a_notice_names_the_page_that_the_status_names(state: NoticeState) -> None:
    assert KINDS[state].runbook == runbook_of(SAME[state])


@pytest.mark.parametrize("outcome", Outcome)
def test_the_notice_of_an_end_names_the_page_that_explain_names(outcome: Outcome) -> None:
    assert KINDS[OF_OUTCOMES[outcome]].runbook == runbook_of(outcome.value)


@pytest.mark.parametrize(
    "code", [ExitCode.ROLLED_BACK, ExitCode.HELD, ExitCode.ROLLBACK_INCOMPLETE], ids=lambda code: code.name
)
def test_an_exit_code_that_needs_somebody_is_explained_with_a_page(code: ExitCode) -> None:
    meant = meaning_of(str(code.value))
    assert meant is not None
    assert meant["runbook"] in PAGES
