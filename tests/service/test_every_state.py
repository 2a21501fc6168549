"""Every state of a change: the same words from the API and on the terminal, and what can be done."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from orchestrator.cli.following import code_of_fleet
from orchestrator.cli.spelling import all_spelled
from orchestrator.store.ledger import Ledger
from policies.model.change import (
    ChangeEnding,
    ChangeKind,
    ChangeOpening,
    ChangeOrder,
    ChangeResult,
    Outcome,
    Phase,
)
from policies.model.fleet import AtDeadline
from policies.model.report import GatewayProgress
from policies.model.status import Event
from policies.model.value import digest_of
from policies.model.verdict import Action, Decision, GateReading, GateVerdict
from policies.model.way_back import Confirmation
from policies.status.told import Told
from tests.service.command_line import CommandLine

AT = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)
PLAN = digest_of(b"plan")
CONFIRM = Confirmation(
    reason="another release than known-good",
    within=timedelta(minutes=15),
    change=PLAN,
    known_good=PLAN,
    at_deadline=AtDeadline.KNOWN_GOOD,
)
GATEWAYS = {
    "gw-1": GatewayProgress(gateway="gw-1", wave=1, state="on trial"),
    "gw-2": GatewayProgress(gateway="gw-2", wave=2, state="waiting"),
}
SENTENCES = ("what", "users", "why", "next")
State = tuple[ChangeKind, dict[str, Any], Outcome | None]


def decision(action: Action, verdict: GateVerdict) -> Decision:
    reading = GateReading(gate="logins", verdict=verdict, reason="12 of 12", numbers={"bad": 0.3})
    return Decision(action=action, verdict=verdict, reason="logins: 12 of 12", readings=(reading,))


def ended(outcome: Outcome, **more: Any) -> State:
    result = ChangeResult(rollout="edge-1", outcome=outcome, reason=f"it was {outcome.value}", touched=2)
    return ChangeKind.UPGRADE, {"phase": Phase.ENDED, "result": result, **more}, outcome


UPGRADE, BACK, INSTALL = ChangeKind.UPGRADE, ChangeKind.GO_BACK, ChangeKind.INSTALL
RELOAD = ChangeKind.RELOAD
SWITCHING = {"phase": Phase.SWITCHING, "gateways": GATEWAYS, "switching": True}
OBSERVING = {"phase": Phase.OBSERVING, "wave": 1, "gateways": GATEWAYS, "moved": True}
HELD = {**OBSERVING, "phase": Phase.HELD}
STATES: dict[str, State] = {
    "starting": (UPGRADE, {"phase": Phase.STARTING}, None),
    "switching": (
        UPGRADE,
        {"phase": Phase.SWITCHING, "wave": 1, "gateways": GATEWAYS, "switching": True},
        None,
    ),
    "waiting for capacity": (
        UPGRADE,
        {**SWITCHING, "wave": 1, "short": ("main has room for 3 of 10",)},
        None,
    ),
    "observing without a verdict": (UPGRADE, OBSERVING, None),
    "observing what cannot be decided": (
        UPGRADE,
        {**OBSERVING, "decision": decision(Action.HOLD, GateVerdict.NOT_ENOUGH_DATA)},
        None,
    ),
    "observing without metrics": (
        UPGRADE,
        {**OBSERVING, "decision": decision(Action.HOLD, GateVerdict.METRICS_UNAVAILABLE)},
        None,
    ),
    "observing health": (
        UPGRADE,
        {**OBSERVING, "decision": decision(Action.PROMOTE, GateVerdict.HEALTHY)},
        None,
    ),
    "held by a person": (
        UPGRADE,
        {**OBSERVING, "phase": Phase.HELD, "holds": {"ana": "calls come in"}},
        None,
    ),
    "held by two": (
        UPGRADE,
        {**OBSERVING, "phase": Phase.HELD, "holds": {"ana": "calls", "ben": "lunch"}},
        None,
    ),
    "one left out": (UPGRADE, {**OBSERVING, "aside": {"gw-2": "it is silent"}}, None),
    "promoting": (UPGRADE, {**OBSERVING, "phase": Phase.PROMOTING, "promoting": True}, None),
    "rolling back": (UPGRADE, {**OBSERVING, "phase": Phase.ROLLING_BACK}, None),
    "rolling back, one missing": (
        UPGRADE,
        {**OBSERVING, "phase": Phase.ROLLING_BACK, "missing": {"1/1": {"gw-1": "its disk is full"}}},
        None,
    ),
    "waiting for a second person": (
        BACK,
        {"phase": Phase.HELD, "waits_until": AT + timedelta(minutes=15)},
        None,
    ),
    "going back": (BACK, {"phase": Phase.ROLLING_BACK, "moved": True}, None),
    "installing": (INSTALL, SWITCHING, None),
    "reloading": (RELOAD, {"phase": Phase.SWITCHING, "wave": 1}, None),
    "promoted": ended(Outcome.PROMOTED, moved=True),
    "rolled back": ended(Outcome.ROLLED_BACK, moved=True),
    "aborted": ended(Outcome.ABORTED),
    "refused": ended(Outcome.REFUSED),
    "held to its end": ended(Outcome.HELD),
    "rollback incomplete": ended(
        Outcome.ROLLBACK_INCOMPLETE, moved=True, missing={"1/1": {"gw-1": "its disk is full"}}
    ),
}


def written(ledger: Ledger, state: State) -> None:
    """Have a change in the ledger that is in this state."""
    kind, told, outcome = state
    confirm = CONFIRM if "waits_until" in told else None
    order = ChangeOrder(fleet="edge", kind=kind, requested_by="ana", reason="CVE", confirm=confirm)
    opening = ChangeOpening(
        key="run", fleet="edge", kind=kind, requested_by="ana", reason="CVE", release="1.3.0"
    )
    name = ledger.open_change(opening)
    events = [Event(at=AT, sentence="ana asked for an upgrade: CVE")]
    ledger.record_story(order, Told.model_validate({"name": name, **told}), 0, events)
    if outcome is not None:
        ledger.close_change(ChangeEnding(change=name, outcome=outcome, sentence=f"it was {outcome.value}"))


@pytest.mark.parametrize("state", STATES)
async def test_the_terminal_says_what_the_api_says(
    state: str, penstock: CommandLine, api: httpx.AsyncClient, ledger: Ledger
) -> None:
    written(ledger, STATES[state])
    asked = (await api.get("/fleets/edge")).json()
    change = asked["change"]
    shown = await penstock("status", "edge", COLUMNS="400")
    words = " ".join(shown.out.split())
    for sentence in SENTENCES:
        assert change[sentence].strip(), f"{sentence} is empty"
        assert " ".join(change[sentence].split()) in words
    assert " ".join(all_spelled(asked["offers"]).split()) in words
    assert shown.code == code_of_fleet(asked)
    assert json.loads((await penstock("status", "edge", "-o", "json")).out)["data"] == asked
    if change["needs_you"]:
        assert f"NEEDS YOU {change['needs_you']}" in words
    assert len(shown.out.splitlines()) <= 24


@pytest.mark.parametrize("state", STATES)
async def test_every_state_offers_something_and_every_stop_has_its_reason(
    state: str, api: httpx.AsyncClient, ledger: Ledger
) -> None:
    written(ledger, STATES[state])
    change = (await api.get("/fleets/edge")).json()["change"]
    assert change["can_do"]
    if change["outcome"] is not None or change["phase"] in {"held", "rolling_back"}:
        assert change["why"].strip()
    if change["phase"] == "held":
        assert change["needs_you"]


def test_every_phase_and_every_outcome_is_walked() -> None:
    phases = {told["phase"] for _, told, _ in STATES.values()}
    outcomes = {outcome for _, _, outcome in STATES.values()} - {None}
    assert (phases, outcomes) == ({*Phase}, {*Outcome})
