"""Every state of a change: the same words from the API, on terminal, page and report; what can be done."""

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from orchestrator.cli.following import code_of_fleet
from orchestrator.store.ledger import Ledger
from orchestrator.words.offers import EFFECTS, all_spelled, spelled
from policies.model.change import (
    PENSTOCK_WATCH,
    ChangeEnding,
    ChangeKind,
    ChangeOpening,
    ChangeOrder,
    ChangeResult,
    Outcome,
    Phase,
    Quarantine,
)
from policies.model.report import ByTime, GatewayProgress
from policies.model.status import Event
from policies.model.value import digest_of
from policies.model.verdict import Action, Decision, GateReading, GateVerdict
from policies.model.way_back import Confirmation
from policies.model.windows import WindowAnswer
from policies.status.awaited import Awaited, awaited
from policies.status.told import Told
from tests.service.command_line import CommandLine
from tests.service.shown import Element, shown

AT = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)
PLAN = digest_of(b"plan")
CONFIRM = Confirmation(
    reason="another release than known-good",
    within=timedelta(minutes=15),
    change=PLAN,
    known_good=PLAN,
    by_itself=PLAN,
    then="gw-1 will serve 1.1.6",
    stays="gw-1 serves 1.3.0",
)
GATEWAYS = {
    "gw-1": GatewayProgress(gateway="gw-1", wave=1, state="on trial"),
    "gw-2": GatewayProgress(gateway="gw-2", wave=2, state="waiting"),
}
SENTENCES = ("what", "users", "why", "next")
REPORTED = SENTENCES[:3]
"""Those that outlast the moment: a report is read when what comes next has come."""
LINES = re.compile(r"^- (What|Users|Why): (.*)$", re.MULTILINE)
"""The same in Markdown, after what each is called."""
CLOSED = WindowAnswer(
    fits=False,
    is_open=False,
    sentence="closed: next opening Tue 2096-11-20 02:00 Europe/Berlin (01:00Z), in 9 h 12 m",
    until=datetime(2096, 11, 20, 1, tzinfo=UTC),
    opens="Tue 2096-11-20 02:00 Europe/Berlin (01:00Z)",
)
FROZEN = CLOSED.model_copy(update={"freeze": "finance", "sentence": "closed by the freeze finance"})
ITS_TURN = WindowAnswer(fits=False, is_open=True, sentence="core changes now, and at most 1 fleet may")
"""What changes wait for; how long that is from now must not change while a test reads it twice."""
LEFT = re.compile(r", in [0-9]+ d [0-9]+ h$")
"""How long a change still waits: whoever looks is told so, a report is kept."""
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
HARM = "harm was found where its waves have passed: 9 of 10 logins fail"
ONLY_OBSERVED = {
    **OBSERVING,
    "decision": decision(Action.ROLL_BACK, GateVerdict.UNHEALTHY),
    "by_time": ByTime(at=AT),
}
STATES: dict[str, State] = {
    "starting": (UPGRADE, {"phase": Phase.STARTING}, None),
    "waiting for its window": (UPGRADE, {"phase": Phase.STARTING, "window": CLOSED}, None),
    "waiting for the window of its second wave": (UPGRADE, {**OBSERVING, "window": FROZEN}, None),
    "waiting for its turn": (UPGRADE, {"phase": Phase.STARTING, "window": ITS_TURN}, None),
    "held while it waits for its window": (
        UPGRADE,
        {"phase": Phase.HELD, "window": CLOSED, "holds": {"ana": "calls come in"}},
        None,
    ),
    "switching": (
        UPGRADE,
        {"phase": Phase.SWITCHING, "wave": 1, "gateways": GATEWAYS, "switching": True},
        None,
    ),
    "a host refuses the switch": (
        UPGRADE,
        {**SWITCHING, "wave": 1, "refused": {"gw-1": "its steering table is locked"}},
        None,
    ),
    "waiting for capacity": (
        UPGRADE,
        {**SWITCHING, "wave": 1, "short": ("main has room for 3 of 10",)},
        None,
    ),
    "waiting for tests": (
        UPGRADE,
        {**SWITCHING, "wave": 1, "untested": {"gw-1": "its user cannot be looked up"}},
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
    "waiting for a person's decision": (
        UPGRADE,
        {**HELD, "decision": decision(Action.HOLD_FOR_HUMAN, GateVerdict.NOT_ENOUGH_DATA)},
        None,
    ),
    "going on against its verdict": (UPGRADE, ONLY_OBSERVED, None),
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
    "held after harm where its waves have passed": (
        UPGRADE,
        {**HELD, "holds": {"ana": "calls", PENSTOCK_WATCH: HARM}},
        None,
    ),
    "one left out": (UPGRADE, {**OBSERVING, "aside": {"gw-2": "it is silent"}}, None),
    "promoting": (UPGRADE, {**OBSERVING, "phase": Phase.PROMOTING, "promoting": True}, None),
    "rolling back": (UPGRADE, {**OBSERVING, "phase": Phase.ROLLING_BACK}, None),
    "rolling back, one missing": (
        UPGRADE,
        {**OBSERVING, "phase": Phase.ROLLING_BACK, "not_back": {"gw-1": "its disk is full"}},
        None,
    ),
    "waiting for a second person": (
        BACK,
        {"phase": Phase.HELD, "waits_until": AT + timedelta(minutes=15)},
        None,
    ),
    "rolling back what was held": (
        UPGRADE,
        {**OBSERVING, "phase": Phase.ROLLING_BACK, "holds": {"ana": "calls come in"}},
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
        Outcome.ROLLBACK_INCOMPLETE, moved=True, not_back={"gw-1": "its disk is full"}
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


@pytest.mark.sweep
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
async def test_the_page_says_what_the_api_says(
    state: str, page: httpx.AsyncClient, api: httpx.AsyncClient, ledger: Ledger
) -> None:
    written(ledger, STATES[state])
    asked = (await api.get("/fleets/edge")).json()
    change = asked["change"]
    fleet = await looked_at(page, "/fleets/edge")
    assert sentences(fleet) == {name: one_line(change[name]) for name in SENTENCES}
    assert needs(fleet) == [
        one_line(said).removesuffix(".") for said in (asked["concern"], change["needs_you"]) if said
    ]
    (orders,) = fleet.all("ul", "orders")
    assert [one.text for one in orders.all("code")] == [one_line(spelled(one)) for one in asked["offers"]]
    buttons = [one.attributes["href"].partition("?")[0] for one in orders.all("a", "button")]
    ordered = [one for one in asked["offers"] if one["verb"] in {*EFFECTS, "plan"}]
    assert [one.rpartition("/")[2] for one in buttons] == [one["verb"] for one in ordered]
    plans = [one for one in fleet.all("a", "button") if one.attributes["href"] == "/fleets/edge/plan"]
    assert len(plans) == (change["phase"] == Phase.ENDED or "plan" in {one["verb"] for one in ordered})
    for name in (change["rollout"], change["version"], change["outcome"] or change["phase"]):
        assert name.replace("_", " ") in fleet.text


@pytest.mark.sweep
@pytest.mark.parametrize("state", STATES)
async def test_the_page_of_a_change_says_what_the_api_says(
    state: str, page: httpx.AsyncClient, api: httpx.AsyncClient, ledger: Ledger
) -> None:
    written(ledger, STATES[state])
    (said,) = (await api.get("/fleets/edge/changes")).json()["changes"]
    change = (await api.get(f"/changes/{said['name']}")).json()["status"]
    alone = await looked_at(page, f"/changes/{said['name']}")
    assert sentences(alone) == {name: one_line(change[name]) for name in SENTENCES}
    assert needs(alone) == [one_line(told).removesuffix(".") for told in (change["needs_you"],) if told]
    offers = [one.text for one in alone.all("code", "offer")]
    goes_on = change["phase"] != Phase.ENDED
    assert offers == [one_line(spelled(one)) for one in change["can_do"] if goes_on]


@pytest.mark.sweep
@pytest.mark.parametrize("state", STATES)
async def test_the_report_says_what_the_api_says(
    state: str, api: httpx.AsyncClient, penstock: CommandLine, ledger: Ledger
) -> None:
    written(ledger, STATES[state])
    (said,) = (await api.get("/fleets/edge/changes")).json()["changes"]
    name = said["name"]
    change = (await api.get(f"/changes/{name}")).json()["status"]
    told = [stopped(LEFT.sub("", one_line(change[sentence]))) for sentence in REPORTED]
    page = await api.get(f"/changes/{name}/report", headers={"Accept": "text/html"})
    (short,) = [
        one for one in shown(page.text).all("section") if one.attributes["aria-labelledby"] == "short"
    ]
    assert [one.text for one in short.all("p")] == told
    text = (await api.get(f"/changes/{name}/report", headers={"Accept": "text/markdown"})).text
    lines = dict(re.findall(LINES, text))
    assert [read(lines[sentence.capitalize()]) for sentence in REPORTED] == told
    goes_on = "while the change goes on"
    assert (goes_on in page.text, goes_on in text) == (change["phase"] != Phase.ENDED,) * 2
    assert dict(re.findall(LINES, (await penstock("report", name)).out)) == lines


NAMES_ITS_PAGE = re.compile(r"\.? Runbook: [a-z-]+$")


async def looked_at(page: httpx.AsyncClient, path: str) -> Element:
    """Return what is shown there to whoever is logged in."""
    answer = await page.get(path)
    assert answer.status_code == httpx.codes.OK, answer.text
    (main,) = shown(answer.text).all("main")
    return main


def sentences(page: Element) -> dict[str, str]:
    """Return the four sentences that the page tells; the fifth is what it offers."""
    told = page.told()
    return {name: told[name.capitalize()] for name in SENTENCES}


def needs(page: Element) -> list[str]:
    """Return what the page says that waits for a person, each without the runbook that it has to name."""
    texts = [one.text for one in page.all("p", "needs")]
    said = [text.removeprefix("Needs you: ") for text in texts if text.startswith("Needs you: ")]
    assert [one for one in said if not NAMES_ITS_PAGE.search(one)] == []
    return [NAMES_ITS_PAGE.sub("", one) for one in said]


def stopped(sentence: str) -> str:
    """Return a sentence as prose has it, which a report is: with a full stop if nothing else ends it."""
    return sentence if sentence.endswith((".", "!", "?")) else f"{sentence}."


def read(markdown: str) -> str:
    """Return a line of Markdown as it is read: what escapes and marks stand for."""
    return re.sub(r"\\(.)|`+ ?([^`]*?) ?`+", lambda found: found[1] or found[2], markdown)


def one_line(text: str) -> str:
    """Return a text as it is read, however it is broken into lines."""
    return " ".join(text.split())


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


async def test_a_held_change_offers_to_leave_out_a_gateway_that_is_silent_by_now(
    api: httpx.AsyncClient, ledger: Ledger
) -> None:
    """The verdict that held it was older than the silence: for minutes nothing said how to go on."""
    written(ledger, (UPGRADE, {**OBSERVING, "phase": Phase.HELD}, None))
    offered = (await api.get("/fleets/edge")).json()["offers"]
    assert "quarantine" not in {one["verb"] for one in offered}
    ledger.record_states("edge", [], {"edge-1": "no answer in time"})
    offered = (await api.get("/fleets/edge")).json()["offers"]
    assert [one["gateway"] for one in offered if one["verb"] == "quarantine"] == ["edge-1"]


async def test_a_gateway_that_is_quarantined_is_not_offered_to_be_quarantined(
    page: httpx.AsyncClient, api: httpx.AsyncClient, ledger: Ledger
) -> None:
    """Screens 14: a page said that gw-2 is quarantined, beside a button that quarantines it."""
    written(ledger, (UPGRADE, {**OBSERVING, "silent": ("edge-1",)}, None))
    offered = (await api.get("/fleets/edge")).json()["offers"]
    assert "quarantine" in {one["verb"] for one in offered}
    ledger.set_quarantine(
        Quarantine(fleet="edge", gateway="edge-1", person="ana", reason="its disk is full", since=AT)
    )
    offered = (await api.get("/fleets/edge")).json()["offers"]
    assert "quarantine" not in {one["verb"] for one in offered}
    assert "Quarantine edge-1" not in (await looked_at(page, "/fleets/edge")).text


def test_every_phase_and_every_outcome_is_walked() -> None:
    phases = {Phase.WAITING if "window" in told else told["phase"] for _, told, _ in STATES.values()}
    outcomes = {outcome for _, _, outcome in STATES.values()} - {None}
    assert (phases, outcomes) == ({*Phase}, {*Outcome})


def test_everything_that_a_change_waits_for_is_walked() -> None:
    walked = {
        awaited(Told.model_validate({"name": "edge-1", **told}), None) for _, told, _ in STATES.values()
    }
    assert walked == {None, *Awaited}
