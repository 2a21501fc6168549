"""Whatever a change may wait for, by any field that it tells, is told; a new field has to say what it is."""

from datetime import UTC, datetime
from itertools import product
from typing import Any

import pytest

from policies.model.change import PENSTOCK_WATCH, ChangeKind, ChangeOrder, ChangeResult, Outcome, Phase
from policies.model.fleet import Automation
from policies.model.verdict import Action, GateVerdict
from policies.model.windows import WindowAnswer
from policies.notices.changes import facts_of, is_blind
from policies.notices.states import KINDS, OF_OUTCOMES, NoticeState
from policies.status.awaited import Awaited, awaited
from policies.status.sentences import Sentences
from policies.status.told import Told
from tests.service.test_every_state import CONFIRM, HARM, HELD, OBSERVING, ONLY_OBSERVED, SWITCHING, decision
from tests.unit.test_only_observed import Fleet

WAITS: dict[str, tuple[dict[str, Any], NoticeState]] = {
    "phase": (HELD, NoticeState.HELD),
    "holds": ({**HELD, "holds": {"ana": "calls"}}, NoticeState.HELD),
    "decision": (
        {**OBSERVING, "decision": decision(Action.HOLD_FOR_HUMAN, GateVerdict.NOT_ENOUGH_DATA)},
        NoticeState.HELD,
    ),
    "by_time": (ONLY_OBSERVED, NoticeState.ONLY_OBSERVED),
    "shown_harm": (
        {**SWITCHING, "wave": 2, "shown_harm": "wave 1 passed by time against: 9 of 10 fail"},
        NoticeState.ONLY_OBSERVED,
    ),
    "short": ({**SWITCHING, "short": ("main has room for 3 of 10",)}, NoticeState.WAITING_FOR_CAPACITY),
    "silent": ({**SWITCHING, "silent": ("gw-1",)}, NoticeState.WAITING_FOR_CAPACITY),
    "refused": ({**SWITCHING, "refused": {"gw-1": "its table is locked"}}, NoticeState.NOT_SWITCHED),
    "untested": ({**SWITCHING, "untested": {"gw-1": "it is silent"}}, NoticeState.WAITING_FOR_TESTS),
    "not_back": (
        {**OBSERVING, "phase": Phase.ROLLING_BACK, "not_back": {"gw-1": "its disk is full"}},
        NoticeState.ROLLBACK_INCOMPLETE,
    ),
    "failed": (
        {**OBSERVING, "phase": Phase.ROLLING_BACK, "failed": {"part 1/1": "the ledger has lost it"}},
        NoticeState.ROLLBACK_INCOMPLETE,
    ),
    "waits_until": (
        {"phase": Phase.HELD, "waits_until": datetime(2026, 11, 22, 3, tzinfo=UTC)},
        NoticeState.WAITING_FOR_SECOND_PERSON,
    ),
    "window": (
        {"window": WindowAnswer(fits=False, is_open=False, sentence="closed")},
        NoticeState.WAITING_FOR_WINDOW,
    ),
}
"""By each field of a change's memory that says that it waits: such a change, and what is told of it."""
WAITS_FOR_NOBODY = {
    "name",
    "wave",
    "gateways",
    "counts",
    "share",
    "aside",
    "votes",
    "moved",
    "switching",
    "promoting",
    "commands",
    "rebooted",
    "lapsed",
    "more_not_back",
    "first_try",
    "only_waits",
    "in_wave",
    "begun",
    "ends_unchanged",
    "claims",
    "paused",
    "aside_later",
    "events",
    "earlier_events",
    "result",
}
"""The others: what was, how far it is, and its end. Who is left out is told by the record's own entry."""


def order(**more: Any) -> ChangeOrder:
    return ChangeOrder(fleet="edge", kind=ChangeKind.UPGRADE, requested_by="ana", reason="CVE", **more)


def waiting(told: Told) -> set[NoticeState]:
    confirm = CONFIRM if told.waits_until is not None else None
    return {fact.state for fact in facts_of(order(confirm=confirm), None, told) if KINDS[fact.state].waits}


def test_every_field_of_a_changes_memory_is_known_to_wait_or_not_to() -> None:
    assert Told.model_fields.keys() == WAITS.keys() | WAITS_FOR_NOBODY
    assert not WAITS.keys() & WAITS_FOR_NOBODY


@pytest.mark.parametrize("field", WAITS)
def test_what_a_change_waits_for_is_told_while_it_does(field: str) -> None:
    said, state = WAITS[field]
    assert state in waiting(Told.model_validate({"name": "edge-1", **said}))


def test_whatever_phase_and_verdict_needs_somebody_or_holds_is_told() -> None:
    """All phases, actions and verdicts that the model has."""
    for phase, action, verdict in product(Phase, Action, GateVerdict):
        if phase is Phase.ENDED:
            continue
        told = Told(name="edge-1", phase=phase, wave=1, moved=True, decision=decision(action, verdict))
        needs = Sentences(order(), None, told).status().needs_you
        if needs is not None or phase is Phase.HELD:
            assert waiting(told) or is_blind(told), (phase, action, verdict, needs)


@pytest.mark.parametrize("outcome", Outcome)
def test_every_end_is_told_and_what_waited_does_not_any_more(outcome: Outcome) -> None:
    result = ChangeResult(rollout="edge-1", outcome=outcome, reason="it was")
    told = Told(name="edge-1", phase=Phase.ENDED, holds={"ana": "calls"}, result=result)
    found = [fact.state for fact in facts_of(order(), None, told)]
    assert found == [NoticeState.STARTED, OF_OUTCOMES[outcome]]


ALL_AT_ONCE: list[tuple[Awaited | None, dict[str, Any]]] = [
    (Awaited.GATEWAYS, {"not_back": {"gw-1": "its disk is full"}, "phase": Phase.ROLLING_BACK}),
    (Awaited.GATEWAYS, {"failed": {"part 1/2": "the ledger has lost it"}, "phase": Phase.ROLLING_BACK}),
    (None, {"phase": Phase.ROLLING_BACK}),
    (None, {"phase": Phase.PROMOTING, "promoting": True}),
    (Awaited.HARM, {"holds": {"ana": "calls", PENSTOCK_WATCH: HARM}}),
    (Awaited.RESUME, {"holds": {"ana": "calls"}}),
    (Awaited.WINDOW, {"window": WindowAnswer(fits=False, is_open=False, sentence="closed")}),
    (Awaited.TESTS, {"untested": {"gw-1": "it is silent"}}),
    (Awaited.SWITCH, {"refused": {"gw-1": "its table is locked"}}),
    (Awaited.STOP, {"shown_harm": "wave 1 passed by time against: 9 of 10 fail"}),
    (Awaited.DECISION, {"decision": decision(Action.HOLD_FOR_HUMAN, GateVerdict.NOT_ENOUGH_DATA)}),
    (Awaited.CAPACITY, {"short": ("main has room for 3 of 10",)}),
]
"""Things that may be so at the same time, the one that is told before the others first."""


@pytest.mark.parametrize("first", range(len(ALL_AT_ONCE)))
def test_of_several_things_one_is_waited_for_and_reason_and_notice_are_of_the_same(first: int) -> None:
    said: dict[str, Any] = {"name": "edge-1", "wave": 1}
    for _, more in reversed(ALL_AT_ONCE[first:]):
        said |= {"phase": Phase.SWITCHING, "promoting": False} | more
    told = Told.model_validate(said)
    thing = ALL_AT_ONCE[first][0]
    assert awaited(told, None) is thing
    lasting = [fact for fact in facts_of(order(), None, told) if KINDS[fact.state].waits]
    assert len(lasting) == (thing is not None)
    status = Sentences(order(), None, told).status()
    assert all(status.why in fact.sentences for fact in lasting)
    assert (status.needs_you is not None) <= (thing is not None)


def test_a_change_that_goes_back_names_no_hold_of_before_that_nobody_could_lift() -> None:
    told = Told(name="edge-1", phase=Phase.ROLLING_BACK, holds={"ana": "calls"})
    status = Sentences(order(), None, told).status()
    assert (status.why, status.needs_you) == ("CVE", None)
    assert waiting(told) == set()


def test_a_person_is_not_asked_again_for_a_wave_that_two_people_passed() -> None:
    asked = decision(Action.HOLD_FOR_HUMAN, GateVerdict.NOT_ENOUGH_DATA)
    closed = WindowAnswer(fits=False, is_open=False, sentence="closed")
    for told in (
        Told(name="edge-1", phase=Phase.OBSERVING, wave=1, decision=asked, window=closed),
        Told(name="edge-1", phase=Phase.PROMOTING, wave=3, decision=asked, promoting=True),
    ):
        assert Sentences(order(), None, told).status().needs_you is None
        assert NoticeState.HELD not in waiting(told)


PROPOSES = {**HELD, "decision": decision(Action.ROLL_BACK, GateVerdict.UNHEALTHY)}
FOUND = {"holds": {"ana": "calls", PENSTOCK_WATCH: HARM}}


@pytest.mark.parametrize(
    "more", [{"untested": {"gw-1": "it is silent"}}, {"refused": {"gw-1": "locked"}}, {}]
)
def test_harm_about_which_the_fleet_asks_is_told_whatever_else_the_wave_waits_for(
    more: dict[str, Any],
) -> None:
    told = Told.model_validate({"name": "edge-1", **PROPOSES, **more})
    asks = Fleet(Automation.ASK).header
    (fact,) = [one for one in facts_of(order(), asks, told) if KINDS[one.state].waits]
    assert (fact.state, fact.runbook) == (NoticeState.HARM_TO_DECIDE, "held-decide")
    assert "logins: 12 of 12" in fact.headline


@pytest.mark.parametrize(("action", "verdict"), [(Action.HOLD_FOR_HUMAN, verdict) for verdict in GateVerdict])
def test_harm_where_waves_have_passed_comes_before_what_the_wave_waits_for(
    action: Action, verdict: GateVerdict
) -> None:
    told = Told.model_validate({"name": "edge-1", **HELD, **FOUND, "decision": decision(action, verdict)})
    status = Sentences(order(), None, told).status()
    first = f"held by penstock.watch: {HARM}; ana: calls"
    assert (status.why, status.needs_you) == (first, f"{first}; logins: 12 of 12")
    assert (status.runbook, status.can_do[0].hold_of) == ("held-decide", PENSTOCK_WATCH)
