"""Signals from people: into which change they fall, what their gateway was, and what may follow of them."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as some
from pydantic import ValidationError

from orchestrator.words.signals import signal_lines
from policies.judge.complaints import Complaint
from policies.judge.gates.tickets import Tickets
from policies.judge.reading import TICKETS, OpenTicket, Reading
from policies.judge.window import WindowState, fold_reading
from policies.model.change import ChangeKind, ChangeRecord, GatewayResult, Outcome
from policies.model.gates import GatePolicy
from policies.model.signal import Stand
from policies.model.verdict import Action, Cohorts, Window
from policies.signals import AFTERWARDS, signals_of, span_of, stand_at, stands_of

BEGAN = datetime(2026, 11, 24, 2, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def record(outcome: Outcome | None = None, ended: datetime | None = None) -> ChangeRecord:
    return ChangeRecord(
        name="edge-1",
        number=1,
        fleet="edge",
        kind=ChangeKind.UPGRADE,
        requested_by="ana",
        reason="CVE fix",
        release="1.4.1",
        began=BEGAN,
        outcome=outcome,
        ended=ended,
    )


def result(state: str = "on trial", started: datetime | None = BEGAN, at: datetime = BEGAN) -> GatewayResult:
    seconds = started.timestamp() if started is not None else None
    return GatewayResult(gateway="gw-1", wave=1, state=state, slot="b", started=seconds, at=at)


def test_a_gateway_is_changed_from_when_its_instance_was_started_until_it_is_back() -> None:
    started = result(started=BEGAN + MINUTE)
    assert stand_at(record(), None, BEGAN + MINUTE) is Stand.UNCHANGED
    assert stand_at(record(), started, BEGAN) is Stand.UNCHANGED
    assert stand_at(record(), started, BEGAN + MINUTE) is Stand.CHANGED
    aside = result("set aside", at=BEGAN + 3 * MINUTE)
    assert stand_at(record(), aside, BEGAN + 2 * MINUTE) is Stand.CHANGED
    assert stand_at(record(), aside, BEGAN + 3 * MINUTE) is Stand.BACK
    over = record(Outcome.ROLLED_BACK, BEGAN + 5 * MINUTE)
    assert stand_at(over, started, BEGAN + 4 * MINUTE) is Stand.CHANGED
    assert stand_at(over, started, BEGAN + 5 * MINUTE) is Stand.BACK
    kept = record(Outcome.PROMOTED, BEGAN + 5 * MINUTE)
    assert stand_at(kept, started, BEGAN + 60 * MINUTE) is Stand.CHANGED


def test_what_is_said_falls_into_the_newest_change_of_then_and_a_day_after_its_end() -> None:
    now = BEGAN + timedelta(days=3)
    assert span_of(record(), None, now) == (BEGAN, now)
    ended = record(Outcome.PROMOTED, BEGAN + MINUTE)
    assert span_of(ended, None, now) == (BEGAN, BEGAN + MINUTE + AFTERWARDS)
    assert span_of(ended, BEGAN + 2 * MINUTE, now) == (BEGAN, BEGAN + 2 * MINUTE)


@given(some.lists(some.tuples(some.integers(0, 9), some.integers(1, 6), some.integers(0, 600)), max_size=60))
def test_every_user_counts_once_for_each_gateway_and_none_is_lost(found: list[tuple[int, int, int]]) -> None:
    complaints = [
        Complaint(user=f"{user:032x}", gateway=f"gw-{gateway}", at=BEGAN.timestamp() + 1 + after)
        for user, gateway, after in found
    ]
    results = {"gw-1": result()}
    signals = signals_of(record(), results, complaints, (), stands={Stand.CHANGED: 1, Stand.UNCHANGED: 5})
    assert sum(one.users for one in signals.complaining) == len({(user, on) for user, on, _ in found})
    changed = {user for user, gateway, _ in found if gateway == 1}
    assert signals.users.get(Stand.CHANGED, 0) == len(changed)
    assert bool(signal_lines(signals.model_dump(mode="json"))) is bool(found)


@given(some.integers(0, 100), some.integers(0, 100), some.integers(0, 100))
def test_every_gateway_stands_somehow(more: int, aside: int, untouched: int) -> None:
    started, gateways = aside + more, aside + more + untouched
    for one in (record(), record(Outcome.ROLLED_BACK, BEGAN)):
        assert sum(stands_of(one, started, aside, gateways, BEGAN).values()) == gateways


POLICY = GatePolicy.model_validate(
    {"gates": [{"id": "noc", "kind": "tickets", "severities": ["page"]}], "shadow": False}
)
COHORTS = Cohorts(canary=("a:1",), control=("b:1",), expected={})


def decided(*tickets: OpenTicket, unread: str = "") -> tuple[Action, str]:
    lost = {TICKETS: unread} if unread else {}
    reading = Reading(at=BEGAN.timestamp(), series={}, tickets=tickets, unread=lost)
    _, _, decision = fold_reading(POLICY, Window(), COHORTS, WindowState(), reading)
    return decision.action, next(one.reason for one in decision.readings if one.gate == "noc")


def ticket(instance: str = "a:1", severity: str = "page") -> OpenTicket:
    return OpenTicket(instance, severity, BEGAN.timestamp() - 60, "ticket NOC-1181 (page) about gw-1: calls")


def test_an_open_ticket_of_a_declared_severity_holds_and_is_named() -> None:
    for one in (ticket(), ticket("")):
        action, reason = decided(one)
        assert action is Action.HOLD
        assert reason == "noc: ticket NOC-1181 (page) about gw-1: calls, open since 2026-11-24 01:59 UTC"


def test_no_ticket_and_one_of_another_severity_or_gateway_prove_nothing() -> None:
    for some_tickets in ((), (ticket(severity="info"),), (ticket("b:1"),)):
        action, reason = decided(*some_tickets)
        assert action is not Action.PROMOTE
        assert reason == "noc: no such ticket is open"
    assert POLICY.required == (), "nothing is ever promoted for want of tickets"


def test_tickets_that_cannot_be_read_are_not_none() -> None:
    _, reason = decided(unread="the ledger does not answer")
    assert reason == "the ledger does not answer"


def test_a_gate_of_tickets_can_do_no_more_than_hold() -> None:
    with pytest.raises(ValidationError, match="hold"):
        Tickets.model_validate({"id": "noc", "kind": "tickets", "severities": ["page"], "action": "rollback"})
